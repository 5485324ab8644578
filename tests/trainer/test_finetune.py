"""Fine-tuning a tiny model: it learns, repeats itself, logs, follows the `Trainer`'s flags, keeps the best, publishes.

What takes processes of its own (kills, two of them at once) is in `tests/system/test_training.py`.
"""

import contextlib
import io
import json
import logging
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import learnable
import pytest
import torch
from huggingface_hub import HfApi, RepoUrl
from huggingface_hub import ModelCard as HubCard
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from qa_engine import Reader
from qa_engine.checkpoints import Calibration, Manifest, candidates, read_manifest, sha256_of, verify
from trainer.__main__ import main
from trainer.evaluate import asks_of
from trainer.finetune import SAMPLE_DEV, FinetuneArguments, SpanTrainer
from trainer.squad import load, split_off

EPOCHS = 5
FAST = ["--bf16", "false", "--max_tokens", "136", "--stride", "32", "--per_device_train_batch_size", "8"]
LEARNING = [*FAST, "--learning_rate", "3e-2", "--num_train_epochs", str(EPOCHS), "--logging_steps", "1"]
QUIET = ["--disable_tqdm", "true"]


@dataclass(frozen=True)
class Training:
    """A finished run of the command line in a folder of its own."""

    folder: Path
    stdout: str
    stderr: str

    @property
    def checkpoint(self) -> Path:
        (only,) = candidates(self.folder / "checkpoints")
        return only

    @property
    def manifest(self) -> Manifest:
        manifest = read_manifest(self.checkpoint)
        assert manifest is not None
        return manifest

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return dict(load_file(self.checkpoint / "model.safetensors"))

    def logged(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of a figure in the TensorBoard files."""
        (folder,) = (self.folder / "training" / "runs").iterdir()
        events = EventAccumulator(str(folder)).Reload()
        return [(event.step, event.value) for event in events.Scalars(name)]


AS_IT_IS = ("--replay", "0", "--unanswerable_pairs", "0")
"""Nothing but the data that is given."""


def places(folder: Path) -> list[str]:
    return ["--output_dir", str(folder / "training"), "--checkpoint_dir", str(folder / "checkpoints")]


def train(folder: Path, *flags: str) -> Training:
    """Run `python -m trainer` with these flags, in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stdout):
        status = main([*places(folder), *AS_IT_IS, *flags])
    assert status == 0, stderr.getvalue()
    return Training(folder, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    learnable.write(folder / "train.json", 128, seed=1)
    learnable.write(folder / "dev.json", 24, seed=2)
    learnable.write(folder / "wrong.json", 64, seed=3, wrong=True)
    return folder


@pytest.fixture(scope="module")
def on_data(data: Path) -> list[str]:
    return ["--train", str(data / "train.json"), "--dev", str(data / "dev.json")]


@pytest.fixture(scope="module")
def trained(wordpiece_model: Path, on_data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The one whole training that most tests look at."""
    return train(tmp_path_factory.mktemp("trained"), "--base", str(wordpiece_model), *on_data, *LEARNING)


Start = Callable[..., Training]


@pytest.fixture
def start(wordpiece_model: Path, tmp_path: Path) -> Start:
    """Trains the tiny model without a progress bar; called again, in a further folder."""
    count = 0

    def start(*flags: str) -> Training:
        nonlocal count
        count += 1
        return train(tmp_path / str(count), "--base", str(wordpiece_model), *QUIET, *flags)

    return start


@pytest.fixture
def refused(wordpiece_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command line, which must end with status 1 and one line that says why; returns that line."""

    def refused(*flags: str) -> str:
        assert main([*places(tmp_path), "--base", str(wordpiece_model), *QUIET, *FAST, *flags]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        (line,) = (line for line in captured.err.splitlines() if line.startswith("error: "))
        assert candidates(tmp_path / "checkpoints") == []
        return line

    return refused


def test_stdout_holds_the_checkpoint_and_nothing_else(trained: Training, start: Start, on_data: list[str]) -> None:
    without_bar = start(*on_data, *FAST, "--max_steps", "2", "--logging_steps", "1")
    assert trained.stdout == f"{trained.checkpoint}\n"
    assert without_bar.stdout == f"{without_bar.checkpoint}\n"


def test_without_a_progress_bar_figures_are_messages(
    start: Start, on_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        start(*on_data, *FAST, "--max_steps", "2", "--logging_steps", "1")
    for name in ("loss", "start_accuracy", "end_accuracy", "eval_f1"):
        assert f"{name} " in caplog.text


def test_it_learns_what_can_be_learned(trained: Training) -> None:
    losses = [loss for _, loss in trained.logged("train/loss")]
    assert losses[-1] < losses[0] / 4
    assert trained.manifest.metrics["dev.json"]["em"] > 90


@pytest.mark.parametrize("figure", ["start_accuracy", "end_accuracy"])
def test_start_and_end_accuracy_are_logged_beside_the_loss(trained: Training, figure: str) -> None:
    logged = trained.logged(f"train/{figure}")
    assert [step for step, _ in logged] == [step for step, _ in trained.logged("train/loss")]
    values = [value for _, value in logged]
    assert all(0 <= value <= 1 for value in values)
    assert sum(values[:5]) / 5 < 0.5 < 0.9 < sum(values[-5:]) / 5


def test_the_progress_bar_carries_loss_and_both_accuracies(trained: Training) -> None:
    bars = [line for line in trained.stderr.replace("\r", "\n").split("\n") if "loss=" in line]
    assert bars
    assert all(name in bars[-1] for name in ("loss=", "start_accuracy=", "end_accuracy="))


@pytest.mark.parametrize("figure", ["em", "f1"])
def test_the_dev_data_is_measured_after_each_epoch(trained: Training, figure: str) -> None:
    steps_an_epoch = trained.logged("train/loss")[-1][0] // EPOCHS
    logged = trained.logged(f"eval/{figure}")
    assert [step for step, _ in logged] == [steps_an_epoch * (epoch + 1) for epoch in range(EPOCHS)]
    assert logged[0][1] < logged[-1][1]
    assert f"eval_{figure}" in trained.stderr


def test_the_manifest_says_what_the_checkpoint_was_made_of(
    trained: Training, wordpiece_model: Path, data: Path
) -> None:
    manifest = trained.manifest
    (source,) = manifest.data
    train_file = data / "train.json"
    assert (source.name, source.sha256, source.questions) == ("train.json", sha256_of(train_file), 128)
    assert manifest.base_model == wordpiece_model.name
    assert (manifest.windows.max_tokens, manifest.windows.stride) == (136, 32)
    assert [(one.name, one.sha256) for one in manifest.measured_on] == [("dev.json", sha256_of(data / "dev.json"))]
    assert manifest.metrics["dev.json"].keys() == {"questions", "em", "f1", "kept", "ece", "aurc"}
    assert manifest.command is not None
    assert {path.name for path in trained.checkpoint.iterdir()} == {*manifest.files, "manifest.json"}
    assert "README.md" in manifest.files


def test_the_published_weights_are_float16_and_finite(trained: Training) -> None:
    weights = trained.weights
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_the_reader_answers_with_the_published_checkpoint_as_well_as_it_was_measured(
    trained: Training, data: Path
) -> None:
    reader = Reader.load(trained.checkpoint, device="cpu", dtype="float32")
    assert reader.manifest == trained.manifest
    right = 0
    for example in load(str(data / "dev.json")).examples:
        (answer,) = reader.read(example.question, example.context).answers
        right += answer.text in example.answers
    assert 100 * right / 24 == pytest.approx(trained.manifest.metrics["dev.json"]["em"], abs=100 / 24)


def test_plain_transformers_load_the_published_checkpoint(trained: Training) -> None:
    model, loading = AutoModelForQuestionAnswering.from_pretrained(trained.checkpoint, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(trained.checkpoint)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    context = "的一是7不"
    output = model.float()(**tokenizer("有几个？", context, return_tensors="pt"))
    tokens = tokenizer("有几个？", context).tokens()
    assert tokens[int(output.start_logits.argmax())] == "7"


def test_a_finished_training_leaves_room_for_the_next(start: Start, on_data: list[str]) -> None:
    finished = start(*on_data, *FAST, "--max_steps", "2")
    assert not list((finished.folder / "training").glob("checkpoint-*"))
    train(finished.folder, "--base", str(finished.checkpoint), *QUIET, *on_data, *FAST, "--max_steps", "2")
    assert len(candidates(finished.folder / "checkpoints")) == 2


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(start: Start, on_data: list[str]) -> None:
    few = [*on_data, *FAST, "--max_steps", "6", "--learning_rate", "1e-3", "--logging_steps", "1", "--dropout", "0.1"]
    first, again, other = start(*few), start(*few), start(*few, "--seed", "1")
    assert first.logged("train/loss") == again.logged("train/loss")
    assert all(torch.equal(tensor, again.weights[name]) for name, tensor in first.weights.items())
    assert not all(torch.equal(tensor, other.weights[name]) for name, tensor in first.weights.items())


def test_max_steps_learning_rate_and_logging_steps_are_followed(start: Start, on_data: list[str]) -> None:
    flags = ["--max_steps", "6", "--learning_rate", "2e-4", "--lr_scheduler_type", "constant", "--logging_steps", "3"]
    training = start(*on_data, *FAST, *flags)
    assert dict(training.logged("train/learning_rate")) == pytest.approx({3: 2e-4, 6: 2e-4})


def test_two_halves_of_a_batch_teach_what_the_whole_teaches(start: Start, tmp_path: Path, on_data: list[str]) -> None:
    """Plain gradient descent, where a gradient of another size gives other weights; an epoch is one batch of 16."""
    sixteen = learnable.write(tmp_path / "sixteen.json", 16, seed=5)
    descent = ["--optim", "sgd", "--learning_rate", "5e-3", "--max_grad_norm", "0", "--max_steps", "4"]
    common = [
        *FAST,
        *on_data,
        "--train",
        str(sixteen),
        "--hold_back",
        "0",
        "--windows_without_answer",
        "0",
        *descent,
        "--logging_steps",
        "1",
    ]
    whole = start(*common, "--per_device_train_batch_size", "16")
    halves = start(*common, "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "2")
    unlike = start(*common, "--per_device_train_batch_size", "8", "--max_steps", "8")
    assert dict(halves.logged("train/loss")) == pytest.approx(dict(whole.logged("train/loss")), rel=1e-4)
    torch.testing.assert_close(halves.weights, whole.weights, rtol=0, atol=2e-3)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(unlike.weights, whole.weights, rtol=0, atol=2e-3)


def test_the_epoch_with_the_best_f1_is_published(
    trained: Training, on_data: list[str], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that knows the answers loses its weights after the first epoch."""
    step = SpanTrainer.training_step

    def forgetting_step(self: SpanTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if (self.state.epoch or 0) >= 1:
            with torch.no_grad():
                for weights in self.model.parameters():
                    weights.zero_()
        return step(self, *args, **kwargs)

    monkeypatch.setattr(SpanTrainer, "training_step", forgetting_step)
    flags = ["--num_train_epochs", "3", "--learning_rate", "1e-4"]
    training = start("--base", str(trained.checkpoint), *on_data, *FAST, *flags)
    measured = [value for _, value in training.logged("eval/f1")]
    assert measured[0] > measured[-1], "otherwise there is nothing to choose"
    assert training.manifest.metrics["dev.json"]["f1"] == pytest.approx(max(measured))


def test_a_base_of_ours_passes_its_windows_on(trained: Training, start: Start, on_data: list[str]) -> None:
    flags = ["--bf16", "false", "--max_steps", "1"]
    again = start("--base", str(trained.checkpoint), *on_data, *flags)
    assert again.manifest.windows == trained.manifest.windows
    wider = start("--base", str(trained.checkpoint), *on_data, *flags, "--max_tokens", "200")
    assert (wider.manifest.windows.max_tokens, wider.manifest.windows.stride) == (200, 32)


def test_without_dev_files_held_back_contexts_are_measured_and_not_trained_on(start: Start, data: Path) -> None:
    train_file = str(data / "train.json")
    training = start("--train", train_file, *FAST, "--max_steps", "1", "--hold_back", "0.25")
    (figures,) = training.manifest.metrics.values()
    assert figures["questions"] == 32
    assert training.manifest.data[0].questions == 128


def test_several_files_are_learned_from_and_measured_apart(start: Start, data: Path) -> None:
    train_files, dev_files = ["train.json", "wrong.json"], ["dev.json", "train.json"]
    training = start(
        *["--train", *(str(data / name) for name in train_files), "--dev", *(str(data / name) for name in dev_files)],
        *[*FAST, "--max_steps", "1"],
    )
    assert [source.name for source in training.manifest.data] == train_files
    assert list(training.manifest.metrics) == dev_files
    assert [figures["questions"] for figures in training.manifest.metrics.values()] == [24, 128]


def questions_learned(caplog: pytest.LogCaptureFixture) -> int:
    (line,) = (message for message in caplog.messages if message.endswith("windows an epoch"))
    return int(line.split()[0])


def test_questions_of_the_sample_keep_what_the_base_knows(
    start: Start, on_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    training = start(*on_data, *FAST, "--max_steps", "1", "--replay", "0.25")
    assert [source.name for source in training.manifest.data] == ["train.json", "train.json"]
    assert training.manifest.data[0].sha256 != training.manifest.data[1].sha256
    assert questions_learned(caplog) == 128 + 32


def test_what_is_replayed_can_come_from_other_files(
    start: Start, on_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    training = start(*on_data, *FAST, "--max_steps", "1", "--replay", "0.5", "--replay_from", SAMPLE_DEV)
    assert [source.name for source in training.manifest.data] == ["train.json", "dev.json"]
    assert questions_learned(caplog) == 128 + 64


def test_questions_in_a_users_programs_words_are_learned_beside_their_own(
    start: Start, on_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    training = start(*on_data, *FAST, "--max_steps", "1", "--rewriter", "cat")
    assert questions_learned(caplog) == 2 * 128
    assert not (training.folder / "training" / "rewritten.txt").exists()


def test_nothing_is_replayed_that_is_learned_or_held_back_already(
    start: Start, data: Path, on_data: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    same = shutil.copy(data / "train.json", tmp_path / "the same under another name.json")
    other = learnable.write(tmp_path / "other.json", 8, seed=9)
    flags = [*on_data, *FAST, "--max_steps", "1", "--replay", "1", "--hold_back", "0.5"]
    training = start(*flags, "--replay_from", str(same), str(other))
    assert questions_learned(caplog) == 64 + 8
    assert [source.name for source in training.manifest.data] == ["train.json", Path(same).name, "other.json"]


def test_a_training_that_comes_to_nothing_says_so_and_publishes_nothing(
    refused: Callable[..., str], on_data: list[str]
) -> None:
    line = refused(*on_data, "--learning_rate", "1e30", "--max_steps", "3")
    assert line.startswith("error: the training has come to nothing: weights are not finite numbers")


def test_answers_that_are_too_long_to_be_given_are_said(
    start: Start, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = {"text": "在家里", "answer_start": 1}
    paragraph = {"context": "他在家里工作。", "qas": [{"id": "1", "question": "他在哪里？", "answers": [answer]}]}
    file = tmp_path / "one.json"
    file.write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}), encoding="utf-8")
    flags = ["--train", str(file), "--dev", str(data / "dev.json"), *FAST, "--max_steps", "1"]
    training = start(*flags, "--max_answer_tokens", "2")
    assert "1 answers have more than 2 tokens and can be learned but never given" in caplog.text
    assert training.manifest.windows.max_answer_tokens == 2
    caplog.clear()
    start(*flags)
    assert "never given" not in caplog.text


def test_of_measures_that_are_better_the_lower_the_lowest_is_the_best(tmp_path: Path) -> None:
    for measure, is_greater_better in (("f1", True), ("ece", False), ("eval_aurc", False)):
        args = FinetuneArguments(output_dir=str(tmp_path), metric_for_best_model=measure)
        assert args.greater_is_better is is_greater_better


def test_silence_is_learned_from_pairs_of_the_training_data(
    start: Start, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counts = []
    for share in ("0", "0.25"):
        caplog.clear()
        flags = ["--train", SAMPLE_DEV, "--dev", str(data / "dev.json"), *FAST, "--max_steps", "1"]
        start(*flags, "--unanswerable_pairs", share)
        counts.append(questions_learned(caplog))
    without, with_pairs = counts
    assert without + 10 <= with_pairs <= without + 22, "a quarter of 87, fewer where no context fits"


def test_other_wordings_and_noise_change_what_is_learned(start: Start, on_data: list[str]) -> None:
    plain, disturbed = (start(*on_data, *FAST, "--max_steps", "2", "--noise", share) for share in ("0", "1"))
    assert any(not torch.equal(disturbed.weights[name], weights) for name, weights in plain.weights.items())


def test_dev_files_of_one_name_are_measured_apart(start: Start, data: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = learnable.write(tmp_path / "other" / "dev.json", 7, seed=9)
    dev_files = [str(data / "dev.json"), str(other)]
    training = start("--train", str(data / "train.json"), "--dev", *dev_files, *FAST, "--max_steps", "1")
    metrics = training.manifest.metrics
    assert {name: figures["questions"] for name, figures in metrics.items()} == dict(
        zip(dev_files, [24, 7], strict=True)
    )


def test_a_dev_file_named_twice_is_refused(refused: Callable[..., str], on_data: list[str], data: Path) -> None:
    assert "twice" in refused(*on_data, str(data / "dev.json"))


def test_the_dev_data_is_not_read_again_with_the_same_weights(
    start: Start, on_data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    find_many = Reader.find_many

    def noted(self: Reader, asks: Any, **options: Any) -> Any:
        read.append(len(asks))
        return find_many(self, asks, **options)

    monkeypatch.setattr(Reader, "find_many", noted)
    start(*on_data, *FAST, "--max_steps", "2")
    assert read == [24], "once after the last step, and not again for publishing"


@pytest.fixture(scope="module")
def half_unanswerable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second context has lost its 7."""
    path = learnable.write(tmp_path_factory.mktemp("data") / "half.json", 240, seed=11)
    document = json.loads(path.read_text(encoding="utf-8"))
    for paragraph in document["data"][0]["paragraphs"][::2]:
        paragraph["context"] = paragraph["context"].replace("7", "的")
        paragraph["qas"][0] |= {"answers": [], "is_impossible": True}
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return path


def test_temperature_and_threshold_are_fitted_on_held_back_data_and_not_on_dev(
    trained: Training, start: Start, half_unanswerable: Path, data: Path
) -> None:
    train_file = str(half_unanswerable)
    flags = ["--base", str(trained.checkpoint), "--train", train_file, *FAST, "--max_steps", "1", "--hold_back", "0.6"]
    training = start(*flags, "--dev", str(data / "dev.json"))
    calibration = training.manifest.calibration
    assert calibration != Calibration()
    assert start(*flags, "--dev", str(data / "wrong.json")).manifest.calibration == calibration

    examples, held_back = split_off(load(train_file).examples, 0.6, seed=0)
    assert len(held_back) > len(examples)
    reader = Reader.load(training.checkpoint, device="cpu", dtype="float32")
    assert reader.calibration == calibration
    readings = reader.read_many(asks_of(held_back))
    kept = [one.best is not None for one, asked in zip(readings, held_back, strict=True) if not asked.is_impossible]
    assert sum(kept) / len(kept) >= 0.93, "95 % before the weights were rounded"
    assert "Calibrated on " in (training.checkpoint / "README.md").read_text(encoding="utf-8")


def test_files_to_calibrate_on_are_fitted_on_and_nothing_is_held_back(
    trained: Training, start: Start, half_unanswerable: Path, on_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    flags = ["--base", str(trained.checkpoint), *on_data, *FAST, "--max_steps", "1", "--hold_back", "0.6"]
    with caplog.at_level(logging.INFO):
        training = start(*flags, "--calibrate_on", str(half_unanswerable))
    assert questions_learned(caplog) == 128
    assert training.manifest.calibration != Calibration()
    count = len(load(str(half_unanswerable)).examples)
    card = (training.checkpoint / "README.md").read_text("utf-8")
    assert f"Calibrated on {count} held-back questions" in card
    assert "| half.json | calibration |" in card
    assert [source.name for source in training.manifest.calibrated_on] == ["half.json"]


def test_too_few_questions_to_calibrate_on_are_said_before_training(
    refused: Callable[..., str], on_data: list[str], data: Path
) -> None:
    count = len(load(str(data / "dev.json")).examples)
    line = refused(*on_data, "--calibrate_on", str(data / "dev.json"))
    assert line == f"error: --calibrate_on: {count} questions with an answer are too few: give 50"


def test_few_questions_are_all_trained_on_and_the_bases_calibration_stays(
    trained: Training, start: Start, on_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        training = start("--base", str(trained.checkpoint), *on_data, *FAST, "--max_steps", "1")
    assert "128 questions, " in caplog.text
    assert "not calibrated: " in caplog.text
    assert training.manifest.calibration == Calibration()


def test_a_checkpoint_below_the_bar_is_kept_whole_and_not_published(
    trained: Training, refused: Callable[..., str], on_data: list[str], tmp_path: Path
) -> None:
    bars = ["--min_f1", "99.5", "--no_worse_than", str(trained.checkpoint)]
    line = refused(*on_data, "--max_steps", "1", *bars)
    (kept,) = candidates(tmp_path / "training" / "kept")
    assert line.startswith("error: not published: F1 on the dev data is ")
    assert "99.50 (--min_f1)" in line
    assert f"(--no_worse_than {trained.checkpoint})" in line
    assert f"mv {kept} {tmp_path / 'checkpoints'}/" in line

    manifest = read_manifest(kept)
    assert manifest is not None
    verify(kept, manifest)
    assert Reader.load(kept, device="cpu").manifest == manifest
    shutil.move(kept, tmp_path / "checkpoints")
    assert [path.name for path in candidates(tmp_path / "checkpoints")] == [kept.name]


def test_a_checkpoint_no_worse_than_the_other_is_published(trained: Training, start: Start, on_data: list[str]) -> None:
    bars = ["--min_f1", "50", "--no_worse_than", str(trained.checkpoint)]
    same = start("--base", str(trained.checkpoint), *on_data, *FAST, "--max_steps", "1", "--learning_rate", "0", *bars)
    assert same.manifest.metrics["dev.json"]["f1"] == trained.manifest.metrics["dev.json"]["f1"]
    assert not (same.folder / "training" / "kept").exists()


def test_a_bar_that_cannot_be_measured_is_told_before_training(
    refused: Callable[..., str], on_data: list[str], tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    assert refused(*on_data, "--no_worse_than", str(nowhere)) == f"error: there is no checkpoint at {nowhere}"
    assert not (tmp_path / "training" / "runs").exists()


def test_the_card_shows_how_the_training_went_in_small_plots(trained: Training, data: Path) -> None:
    plots = {path.name: path for path in trained.checkpoint.glob("*.png")}
    assert plots.keys() == {"loss.png", "measured.png", "lengths.png", "reliability.png", "coverage.png"}
    assert plots.keys() <= trained.manifest.files.keys()
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.values())
    assert sum(path.stat().st_size for path in plots.values()) < 300_000
    text = (trained.checkpoint / "README.md").read_text(encoding="utf-8")
    assert all(f"]({name})" in text for name in plots)
    assert all(f"`{sha256_of(data / name)}`" in text for name in ("train.json", "dev.json"))


def test_the_hub_finds_base_task_and_figures_in_the_card(trained: Training, wordpiece_model: Path) -> None:
    card = HubCard.load(trained.checkpoint / "README.md").data
    assert (card.language, card.pipeline_tag, card.base_model) == ("zh", "question-answering", wordpiece_model.name)
    figures = trained.manifest.metrics["dev.json"]
    assert {(one.metric_type, one.metric_value) for one in card.eval_results or []} == {
        ("exact_match", figures["em"]),
        ("f1", figures["f1"]),
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the Hub: notes what is uploaded."""
    uploads: list[dict[str, Any]] = []

    def create_repo(self: HfApi, repo_id: str, **options: Any) -> RepoUrl:
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self: HfApi, **options: Any) -> Future[None]:
        folder = Path(options["folder_path"])
        uploads.append(options | {"files": {path.name for path in folder.iterdir()}})
        done = Future[None]()
        done.set_result(None)
        return done

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return uploads


TO_THE_HUB = ["--push_to_hub", "--hub_model_id", "someone/reader", "--hub_token", "hf_secret"]


def test_push_to_hub_uploads_the_published_checkpoint_once_and_no_token(
    start: Start, on_data: list[str], hub: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["trainer", *TO_THE_HUB])
    training = start(*on_data, *FAST, "--max_steps", "2", *TO_THE_HUB)
    (upload,) = hub
    assert (upload["repo_id"], upload["token"]) == ("someone/reader", "hf_secret")
    assert upload["folder_path"] == training.checkpoint
    assert {"model.safetensors", "tokenizer.json", "README.md", "manifest.json", "reliability.png"} <= upload["files"]
    assert training.manifest.command == "python -m trainer --push_to_hub --hub_model_id someone/reader --hub_token ..."
    assert not [path for path in training.checkpoint.iterdir() if b"hf_secret" in path.read_bytes()]


def test_the_other_strategies_of_the_hub_upload_as_it_trains(
    start: Start, on_data: list[str], hub: list[dict[str, Any]]
) -> None:
    as_it_trains = ["--hub_strategy", "every_save", "--hub_always_push", "true"]
    training = start(*on_data, *FAST, "--max_steps", "2", *TO_THE_HUB, *as_it_trains)
    assert [str(upload["folder_path"]) for upload in hub] == [
        str(training.folder / "training"),
        str(training.checkpoint),
    ]


def test_a_checkpoint_that_the_hub_does_not_take_is_published_all_the_same(
    wordpiece_model: Path,
    on_data: list[str],
    hub: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(self: HfApi, **options: Any) -> None:
        raise ConnectionError("no route to the Hub")

    monkeypatch.setattr(HfApi, "upload_folder", unreachable)
    flags = ["--base", str(wordpiece_model), *QUIET, *on_data, *FAST, "--max_steps", "1", *TO_THE_HUB]
    assert main([*places(tmp_path), *flags]) == 1
    (checkpoint,) = candidates(tmp_path / "checkpoints")
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {checkpoint} is published here, but not uploaded: ConnectionError: no route")


def test_the_base_is_kept_by_the_share_that_is_asked_for(trained: Training, start: Start, on_data: list[str]) -> None:
    flags = ["--base", str(trained.checkpoint), *on_data, *FAST, "--max_steps", "2"]
    without, half, all_of_it = (start(*flags, "--keep_base", share).weights for share in ("0", "0.5", "1"))
    base = trained.weights
    assert any(not torch.equal(without[name], weights) for name, weights in base.items())
    for name, weights in base.items():
        assert torch.equal(all_of_it[name], weights), name
        middle = (without[name].float() + weights.float()) / 2
        assert torch.allclose(half[name].float(), middle, atol=2e-3), name


def test_the_average_over_the_steps_is_measured_and_published(
    trained: Training, start: Start, on_data: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    flags = ["--base", str(trained.checkpoint), *on_data, *FAST, "--lr_scheduler_type", "constant"]
    first, second = (start(*flags, "--max_steps", steps).weights for steps in ("1", "2"))
    averaged = start(*flags, "--max_steps", "2", "--average", "0.75")
    assert "not the best of the epochs" in caplog.text
    for name, weights in averaged.weights.items():
        expected = 0.75 * first[name].float() + 0.25 * second[name].float()
        assert torch.allclose(weights.float(), expected, atol=2e-3), name
    assert any(not torch.equal(weights, second[name]) for name, weights in averaged.weights.items())


def test_of_a_base_that_cannot_answer_nothing_can_be_kept(
    refused: Callable[..., str], on_data: list[str], wordpiece_model: Path, tmp_path: Path
) -> None:
    headless = tmp_path / "headless"
    shutil.copytree(wordpiece_model, headless)
    config = json.loads((headless / "config.json").read_text(encoding="utf-8"))
    (headless / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}), encoding="utf-8")
    assert "--keep_base" in refused(*on_data, "--base", str(headless), "--keep_base", "0.5")


def test_what_a_person_wrote_about_the_checkpoint_stands_in_its_card(
    start: Start, on_data: list[str], tmp_path: Path
) -> None:
    about = tmp_path / "about.md"
    about.write_text("## 数据\n\n自己写的。", encoding="utf-8")
    training = start(*on_data, *FAST, "--max_steps", "1", "--about", str(about))
    assert "## 数据\n\n自己写的。" in (training.checkpoint / "README.md").read_text(encoding="utf-8")


def test_nothing_to_resume_is_said(refused: Callable[..., str], on_data: list[str], tmp_path: Path) -> None:
    assert (
        refused(*on_data, "--resume") == f"error: nothing to resume in {tmp_path / 'training'}: start without --resume"
    )


def test_a_training_without_anything_to_measure_on_does_not_start(refused: Callable[..., str], data: Path) -> None:
    line = refused("--train", str(data / "train.json"), "--hold_back", "0")
    assert "--dev" in line
    assert "--hold_back" in line


@pytest.mark.parametrize("share", ["0", "0.05"])
def test_a_training_without_anything_to_learn_does_not_start(
    refused: Callable[..., str], tmp_path: Path, data: Path, share: str
) -> None:
    """No answer stands in its context; or the only context is held back."""
    lost = learnable.write(tmp_path / "lost.json", 1, seed=1)
    lost.write_text(lost.read_text(encoding="utf-8").replace('"text": "7"', '"text": "无"'), encoding="utf-8")
    line = refused("--train", str(lost), "--dev", str(data / "dev.json"), "--hold_back", share)
    assert "nothing to train on" in line


def test_a_missing_base_is_named(refused: Callable[..., str], on_data: list[str], tmp_path: Path) -> None:
    line = refused(*on_data, "--base", str(tmp_path / "nowhere"))
    assert f"{tmp_path / 'nowhere'} cannot be used as a base" in line


def test_a_base_without_a_model_is_named(refused: Callable[..., str], on_data: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert f"{tmp_path} cannot be used as a base" in refused(*on_data, "--base", str(tmp_path))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--max_tokens", "600"], "512"),
        (["--max_tokens", "20"], "20"),
        (["--stride", "-1"], "stride"),
    ],
)
def test_windows_that_the_base_cannot_have_are_refused_before_training(
    refused: Callable[..., str], on_data: list[str], flags: list[str], named: str
) -> None:
    assert named in refused(*on_data, *flags)


def test_a_missing_file_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    assert refused("--train", str(missing)) == f"error: {missing}: cannot be read: No such file or directory"


def test_a_place_that_cannot_be_written_is_named_and_the_training_can_be_resumed(
    wordpiece_model: Path, on_data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "checkpoints"
    blocked.write_text("a file", encoding="utf-8")
    flags = ["--base", str(wordpiece_model), *QUIET, *on_data, *FAST, "--max_steps", "1"]
    assert main([*places(tmp_path), *flags]) == 1
    captured = capsys.readouterr()
    assert "error: " in captured.err
    assert str(blocked) in captured.err
    assert "Traceback" not in captured.err
    blocked.unlink()
    assert train(tmp_path, *flags, "--resume").checkpoint.parent == blocked


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--no_such_flag", "1"], "--no_such_flag"),
        (["--learning_rate", "fast"], "--learning_rate"),
        (["--train"], "--train"),
        (["--fp16", "true", "--bf16", "true"], "fp16 and bf16"),
        (["--save_strategy", "steps", "--eval_strategy", "epoch"], "save and eval strategy"),
        (["--lr_scheduler_type", "sideways"], "sideways"),
        (["--train", "mine.json", "--min_f1", "70"], "give it"),
        (["--train", "mine.json", "--no_worse_than", "other"], "give it"),
        (["--min_f1", "0.7"], "per cent"),
        (["--dataloader_persistent_workers", "true"], "the first epoch again and again"),
        (["--label_smoothing_factor", "0.1"], "our loss has none"),
    ],
)
def test_wrong_usage_ends_with_status_2_and_the_reason(
    flags: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*places(tmp_path), *flags])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert reason in message
    assert "Traceback" not in message


@pytest.mark.parametrize("arguments", [[], ["--data", "a.json", "--top", "3"], ["--data", "a.json", "--dtype", "int8"]])
def test_wrong_usage_of_evaluate_ends_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments])
    assert ended.value.code == 2


def test_help_names_our_flags_and_the_trainers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    ours = ("--train", "--dev", "--base", "--checkpoint_dir", "--hold_back", "--min_f1", "--no_worse_than", "--resume")
    for flag in (*ours, "--learning_rate", "--max_steps"):
        assert flag in text
