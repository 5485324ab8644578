"""The training benchmark on a tiny model: all recipes run, on the same questions, and what it counts is right."""

import json
from collections import Counter
from pathlib import Path

import learnable
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from benchmarks.training import PLAIN_WINDOWS, RUN_QA_WINDOWS, StepCost, _features, main
from trainer.squad import Example, Span


def test_a_short_run_measures_every_recipe_and_writes_both_reports(
    wordpiece_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, dev = learnable.write(tmp_path / "a.json", 12, seed=1), learnable.write(tmp_path / "b.json", 6, seed=2)
    files = ["--train", str(train), "--dev", str(dev), "--base", str(wordpiece_model), "-o", str(tmp_path / "out")]
    sizes = ["--steps", "2", "--batch-size", "4", "--rounds", "1", "--dev-questions", "4"]
    assert main([*files, *sizes]) == 0
    report = json.loads((tmp_path / "out" / "training.json").read_text(encoding="utf-8"))
    table = (tmp_path / "out" / "training.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == table
    assert (report["questions"], report["dev_questions"]) == (8, 4)
    medians = {(recipe["name"], recipe["precision"]): recipe["median"] for recipe in report["recipes"]}
    assert {("run_qa", "fp32"), ("plain loop", "fp32")} < set(medians)
    (ours,) = (median for (name, _), median in medians.items() if name == "ours")
    run_qa, plain = medians["run_qa", "fp32"], medians["plain loop", "fp32"]
    assert run_qa["tokens"] == plain["tokens"] == ours["tokens"], "short texts: every recipe reads the same tokens"
    assert run_qa["padded_tokens"] == 8 * 384
    assert plain["padded_tokens"] == 8 * 512
    assert ours["tokens"] <= ours["padded_tokens"] < run_qa["padded_tokens"]
    for (name, precision), median in medians.items():
        assert f"| {name} | {precision} | " in table
        assert 0 < median["share_of_peak"] < 1
        assert 0 <= median["em"] <= median["f1"] <= 100


def test_wrong_sizes_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--steps", "0"])
    assert ended.value.code == 2
    assert "--steps" in capsys.readouterr().err


def test_the_cost_of_a_step_is_what_the_models_matrices_take(wordpiece_model: Path) -> None:
    model = AutoModelForQuestionAnswering.from_pretrained(wordpiece_model)
    cost = StepCost.of(str(wordpiece_model))
    matrices = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear)
    )  # a token passes each once forward, and twice backward
    assert cost.linear == pytest.approx(6 * matrices, rel=0.01)
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    assert cost.square == pytest.approx(12 * layers * width, rel=0.01), "two products of attention, thrice each"
    assert cost.total(Counter({(2, 10): 3})) == pytest.approx(6 * (cost.linear * 10 + cost.square * 100))


def test_overlapping_windows_hold_the_answer_or_point_at_the_first_token(wordpiece_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(wordpiece_model)
    context = "的" * 600 + "王中" + "了" * 300
    examples = [Example("a", "有几个？", context, ("王中",), Span("王中", 600))]
    windows = _features(examples, tokenizer, RUN_QA_WINDOWS, overflowing=True)
    assert len(windows) > 2
    assert {len(window["input_ids"]) for window in windows} == {384}
    answers = [
        tokenizer.decode(window["input_ids"][window["start_positions"] : window["end_positions"] + 1])
        for window in windows
    ]
    assert {answer.replace(" ", "") for answer in answers} == {"王中", "[CLS]"}
    (cut,) = _features(examples, tokenizer, PLAIN_WINDOWS, overflowing=False)
    assert len(cut["input_ids"]) == 512
    assert (cut["start_positions"], cut["end_positions"]) == (0, 0)
