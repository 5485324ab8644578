"""The benchmarks of serving run from question to table on a small model, without a network."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu, limit, long_documents, serving, soak
from qa_engine import Ask, Reader
from tests.qa_engine.material import publish_copy
from trainer.finetune import SAMPLE_DEV
from trainer.squad import load


@pytest.fixture
def checkpoint(wordpiece_model: Path, tmp_path: Path) -> str:
    return str(publish_copy(wordpiece_model, tmp_path))


def test_serving_tells_each_reader_s_throughput_and_answers(checkpoint: str, tmp_path: Path) -> None:
    sizes = ["--questions", "4", "--rounds", "1", "--only", "duwen", "notebook"]
    serving.main([*sizes, "--model", checkpoint, "--output", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "serving.json").read_text(encoding="utf-8"))
    labels = [one["label"] for one in report["results"]]
    assert labels == [one.label for one in serving.CONTESTANTS if one.reader in ("duwen", "notebook")]
    assert all(one["questions_per_second"] > 0 and one["peak_mb"] > 0 for one in report["results"])
    ours = [one for one in report["results"] if one["label"].startswith("duwen")]
    assert len({(one["em"], one["f1"]) for one in ours}) == 1, "however many ask at once, the answers are the same"
    table = (tmp_path / "out" / "serving.md").read_text(encoding="utf-8")
    assert all(f"| {label} |" in table for label in labels)
    assert (tmp_path / "out" / "serving.png").stat().st_size > 0


def test_the_limit_counts_the_multiply_adds_that_the_model_makes(checkpoint: str, tmp_path: Path) -> None:
    limit.main(["--questions", "4", "--at-once", "2", "--model", checkpoint, "--output", str(tmp_path / "out")])
    facts = json.loads((tmp_path / "out" / "limit.json").read_text(encoding="utf-8"))
    assert 0 < facts["share_of_peak"] < 1
    reader = Reader.load(checkpoint)
    windows = [
        window
        for one in load(SAMPLE_DEV).examples[:4]
        for window in reader.encode(Ask(one.question, one.context)).windows
    ]
    assert facts["tokens"] == sum(map(len, windows))
    width, middle, layers = 32, 64, 2  # of the model in conftest.py
    per_token = layers * (4 * width * width + 2 * width * middle) + 2 * width
    assert limit.multiply_adds(reader, 10) == 10 * per_token + layers * 2 * 10 * 10 * width


def test_long_documents_are_read_three_ways(checkpoint: str, tmp_path: Path) -> None:
    sizes = ["--contexts", "3", "--questions", "2", "--read-whole-up-to", "3"]
    long_documents.main([*sizes, "--model", checkpoint, "--output", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "long_documents.json").read_text(encoding="utf-8"))
    assert [row["way"] for row in report["rows"]] == ["the right paragraph", "the best passages", "everything"]


def test_a_soak_answers_every_ask_as_the_reader_alone(checkpoint: str, tmp_path: Path) -> None:
    sizes = ["--asks", "300", "--clients", "20", "--swaps", "3", "--compared", "50"]
    assert soak.main([*sizes, "--model", checkpoint, "--output", str(tmp_path / "out")]) == 0
    facts = json.loads((tmp_path / "out" / "soak.json").read_text(encoding="utf-8"))
    assert facts["answered"] == 300
    assert min(facts["by_reader"].values()) > 100
    assert facts["compared"] >= 50 > 10 * facts["differing"]
    assert len(facts["memory_mb_after_each_swap"]) == 4


def test_without_a_gpu_one_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    gpu.main([])
    assert "There is no GPU" in capsys.readouterr().out
