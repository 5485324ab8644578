"""`make learn-demo`: from 30 corrections to a checkpoint that an engine takes up; a small model and few steps here."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.learning import REPLAYED
from qa_engine.checkpoints import candidates, read_manifest, verify
from tests.system.bot_process import ROOT
from trainer.squad import load

TEA = ROOT / "benchmarks" / "tea"
FAST = ["--bf16", "false", "--max_tokens", "136", "--stride", "32", "--disable_tqdm", "true", "--max_steps", "2"]


def test_corrections_are_exported_trained_on_and_taken_up(wordpiece_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "round"
    guard = ["--guard", str(ROOT / "trainer" / "sample" / "dev.json"), "--guard-questions", "5"]
    command = [sys.executable, str(ROOT / "benchmarks" / "learning.py"), "--folder", str(folder)]
    ended = subprocess.run(
        [*command, "--base", str(wordpiece_model), *guard, *FAST],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ended.returncode == 0, ended.stderr

    taught, meant = load(str(folder / "corrections.json")), load(str(TEA / "corrections.json"))
    assert len(taught.examples) == 30
    assert {(one.context, one.question, one.span) for one in taught.examples} == {
        (one.context, one.question, one.span) for one in meant.examples
    }
    [checkpoint] = candidates(folder / "checkpoints")
    manifest = read_manifest(checkpoint)
    assert manifest
    verify(checkpoint, manifest)
    assert [source.name for source in manifest.data] == ["corrections.json", *map(os.path.basename, REPLAYED)]
    assert f"{checkpoint.name} answers from now on" in ended.stdout
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert [(name, both["before"]["questions"]) for name, both in figures.items()] == [
        ("corrected", 30),
        ("same domain", 20),
        ("guard", 5),
    ]


def test_what_is_tested_was_never_corrected() -> None:
    corrected, tested = (load(str(TEA / name)) for name in ("corrections.json", "test.json"))
    for data in (corrected, tested):
        assert data.report.moved == 0
        assert data.report.lost == []
    assert {one.context for one in corrected.examples}.isdisjoint(one.context for one in tested.examples)
