"""Adapting a tiny base: it learns, says so, goes on after an interruption, and makes what fine-tuning takes."""

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import learnable
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForQuestionAnswering, AutoTokenizer

from trainer.__main__ import main
from trainer.adapt import MaskTrainer
from trainer.squad import load_contexts

FAST = ["--bf16", "false", "--max_tokens", "48", "--per_device_train_batch_size", "8", "--disable_tqdm", "true"]
LEARNING = ["--learning_rate", "3e-3", "--num_train_epochs", "6", "--hold_back", "0.2"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Of each pair of characters the second follows from the first: something to learn."""
    file = tmp_path / "corpus.txt"
    draw = torch.Generator().manual_seed(1)
    pairs = ["中国", "人民", "时间", "电话", "经济", "问题"]
    lines = ["".join(pairs[i] for i in torch.randint(6, (20,), generator=draw)) + "。" for _ in range(150)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def arguments(base: Path, folder: Path, *flags: str) -> list[str]:
    places = ["-o", str(folder / "adapted"), "--output_dir", str(folder / "adapting")]
    return ["adapt", "--base", str(base), *places, *FAST, *flags]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def held_out(text: str) -> dict[str, float]:
    return {when: float(loss) for when, loss in re.findall(r"held out, (before|after): loss ([\d.]+)", text)}


def test_it_learns_the_corpus_and_says_by_how_much(
    any_model: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        assert main(arguments(any_model, tmp_path, "--corpus", str(corpus), *LEARNING)) == 0
    adapted = tmp_path / "adapted"
    assert capsys.readouterr().out == f"{adapted}\n"
    losses = held_out(caplog.text)
    assert losses["after"] < 0.7 * losses["before"]
    assert "masked_accuracy " in caplog.text
    card = (adapted / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(corpus.read_bytes()).hexdigest() in card
    assert f"| before | {losses['before']:.3f} |" in card
    assert f"base_model: {any_model.name}" in card
    assert not list((tmp_path / "adapting").glob("checkpoint-*"))


def test_what_it_makes_is_a_base_for_fine_tuning_and_for_adapting_again(
    unigram_model: Path, corpus: Path, tmp_path: Path
) -> None:
    assert main(arguments(unigram_model, tmp_path, "--corpus", str(corpus), "--max_steps", "2")) == 0
    adapted = tmp_path / "adapted"
    model, loading = AutoModelForMaskedLM.from_pretrained(adapted, output_loading_info=True)
    assert not loading["missing_keys"]
    tokenizer = AutoTokenizer.from_pretrained(adapted)
    assert tokenizer.mask_token == "<mask>"
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings
    data = learnable.write(tmp_path / "train.json", 8, seed=1)
    published = ["--output_dir", str(tmp_path / "training"), "--checkpoint_dir", str(tmp_path / "checkpoints")]
    flags = ["--base", str(adapted), "--train", str(data), "--dev", str(data), "--max_steps", "1", "--bf16", "false"]
    assert main([*published, *flags, "--disable_tqdm", "true"]) == 0
    again = arguments(adapted, tmp_path / "again", "--corpus", str(corpus), "--max_steps", "2")
    assert main(again) == 0
    assert len(AutoTokenizer.from_pretrained(tmp_path / "again" / "adapted")) == len(tokenizer)


def test_it_writes_no_token_and_uploads_nothing(
    unigram_model: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = arguments(unigram_model, tmp_path, "--corpus", str(corpus), "--max_steps", "1", "--hub_token", "hf_secret")
    monkeypatch.setattr("sys.argv", ["trainer", *flags])
    assert main(flags) == 0
    card = (tmp_path / "adapted" / "README.md").read_text(encoding="utf-8")
    assert "hf_secret" not in card
    assert "--hub_token ..." in card
    with pytest.raises(SystemExit):
        main([*flags, "--push_to_hub"])
    assert "adapt uploads nothing" in capsys.readouterr().err


def test_the_answering_head_of_a_base_is_kept(wordpiece_model: Path, corpus: Path, tmp_path: Path) -> None:
    assert main(arguments(wordpiece_model, tmp_path, "--corpus", str(corpus), "--max_steps", "2")) == 0
    model, loading = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "adapted", output_loading_info=True)
    before = AutoModelForQuestionAnswering.from_pretrained(wordpiece_model)
    assert not loading["missing_keys"]
    torch.testing.assert_close(model.qa_outputs.weight.float(), before.qa_outputs.weight, atol=1e-3, rtol=1e-3)
    assert not torch.equal(
        model.get_input_embeddings().weight.float(), before.get_input_embeddings().weight.half().float()
    ), "and the rest has learned"


def test_scores_are_computed_for_masked_tokens_only(wordpiece_model: Path, corpus: Path, tmp_path: Path) -> None:
    rows, tokens = list[int](), list[int]()
    compute = MaskTrainer._masked_logits

    def noted(self: MaskTrainer, model: torch.nn.Module, inputs: Any) -> Any:
        logits, labels = compute(self, model, inputs)
        assert len(logits) == len(labels) == int((inputs["labels"] >= 0).sum())
        rows.append(len(logits))
        tokens.append(int(inputs["attention_mask"].sum()))
        return logits, labels

    with patch.object(MaskTrainer, "_masked_logits", noted):
        assert main(arguments(wordpiece_model, tmp_path, "--corpus", str(corpus), "--max_steps", "2")) == 0
    assert 0 < sum(rows) < 0.16 * sum(tokens)


def test_an_interrupted_adaptation_goes_on_to_the_very_same_weights(
    wordpiece_model: Path, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saving = ["--save_strategy", "steps", "--save_steps", "3", "--dropout", "0.1", "--max_steps", "20"]
    flags = ["--corpus", str(corpus), *saving, "--eval_strategy", "no"]
    with caplog.at_level(logging.INFO):
        assert main(arguments(wordpiece_model, tmp_path / "whole", *flags)) == 0
    before = held_out(caplog.text)
    caplog.clear()
    step, steps = MaskTrainer.training_step, iter(range(100))

    def interrupted(self: MaskTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if next(steps) == 10:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with patch.object(MaskTrainer, "training_step", interrupted):
        assert main(arguments(wordpiece_model, tmp_path / "parts", *flags)) == 1
    assert not (tmp_path / "parts" / "adapted").exists()
    assert main(arguments(wordpiece_model, tmp_path / "parts", *flags)) == 1, "it is not begun anew by accident"
    with caplog.at_level(logging.INFO):
        assert main(arguments(wordpiece_model, tmp_path / "parts", *flags, "--resume")) == 0
    assert held_out(caplog.text) == before
    whole, resumed = (tmp_path / name / "adapted" / "model.safetensors" for name in ("whole", "parts"))
    assert hashlib.sha256(whole.read_bytes()).digest() == hashlib.sha256(resumed.read_bytes()).digest()


def test_of_question_files_only_the_contexts_are_read(tmp_path: Path) -> None:
    paragraphs = [
        {"context": "一个段落。", "qas": [{"question": "秘密？"}]},
        {"context": "另一个。"},
        {"context": "另一个。"},
    ]
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    assert load_contexts(str(file)) == ["一个段落。", "另一个。"]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "nothing to do: give --corpus, --single_characters or --single_punctuation"),
        (["--corpus", "missing.txt"], "missing.txt: cannot be read"),
        (["--corpus", "latin.txt"], "latin.txt: is not UTF-8 at byte 0"),
        (["--corpus", "short.txt"], "too few to learn from"),
        (["--corpus", "list.json"], "list.json: expected an object with 'data'"),
        (["--corpus", "short.txt", "--max_tokens", "600"], "reads at most 512 tokens"),
        (["--single_characters"], "not Unigram"),
    ],
)
def test_what_cannot_be_done_is_said(
    flags: list[str],
    reason: str,
    wordpiece_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.txt").write_bytes(b"\xff\xfe")
    Path("short.txt").write_text("中国", encoding="utf-8")
    Path("list.json").write_text("[]", encoding="utf-8")
    assert main(arguments(wordpiece_model, tmp_path, *flags)) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "adapted").exists()


def test_a_folder_that_is_there_is_never_overwritten(
    wordpiece_model: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapted").mkdir()
    assert main(arguments(wordpiece_model, tmp_path, "--corpus", str(corpus))) == 1
    assert "is there already" in capsys.readouterr().err
