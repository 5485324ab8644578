"""A process counts the cores that it was given, not those of the machine."""

import os
from pathlib import Path

import pytest

from qa_engine.cores import cores


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({}, 4),
        ({"": "max 100000"}, 4),
        ({"": "200000 100000"}, 2),
        ({"bots": "150000 100000"}, 2),
        ({"bots": "300000 100000", "bots/duwen": "50000 100000"}, 1),
        ({"": "300000 100000", "bots/duwen": "max 100000"}, 3),
        ({"bots/duwen": "900000 100000"}, 4),
        ({"others": "100000 100000"}, 4),
    ],
)
def test_the_tightest_quota_from_its_cgroup_up_counts(tmp_path: Path, quotas: dict[str, str], expected: int) -> None:
    own = tmp_path / "own"
    own.write_text("12:pids:/elsewhere\n0::/bots/duwen\n")
    for place, quota in quotas.items():
        folder = tmp_path / "cgroups" / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.max").write_text(quota + "\n")
    assert cores(tmp_path / "cgroups", own) == expected


@pytest.mark.usefixtures("four_cores")
def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert cores(tmp_path, tmp_path / "none") == 4
