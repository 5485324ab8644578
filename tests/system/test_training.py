"""Training in processes of its own: the real command line, kills at the worst moments, two processes at once.

Processes that are killed are forked from a server that has imported the trainer: the same code, without its start-up.
"""

import itertools
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any
from unittest.mock import patch

import learnable
import pytest
import torch
from safetensors.torch import load_file

from qa_engine import Reader
from qa_engine.checkpoints import candidates, publish, read_manifest, sha256_of, verify
from trainer.__main__ import main
from trainer.features import LabelledWindow, TrainingWindows
from trainer.finetune import SpanTrainer

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "trainer" / "sample"
WAIT_SECONDS = 600
KILLS_AT_PUBLISHING = 8
LAST_STEP = 16  # of two epochs
FAST = ["--bf16", "false", "--max_tokens", "136", "--stride", "32", "--disable_tqdm", "true"]
FAST += ["--replay", "0", "--unanswerable_pairs", "0"]  # nothing but the data that is given
SAVING = ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "2", "--eval_steps", "2"]
# The last weights are published, not the best: those could be from before a kill.
LAST_WEIGHTS = ["--load_best_model_at_end", "false", "--save_total_limit", "3"]
# Dropout draws random numbers in every step: a training goes on as if nothing had been only if these are restored.
STEPS = ["--max_steps", str(LAST_STEP), "--dropout", "0.1", "--per_device_train_batch_size", "8"]


@dataclass(frozen=True)
class Workplace:
    """Where a training lives and publishes, and the flags that it is always started with."""

    folder: Path
    flags: tuple[str, ...]

    @property
    def states(self) -> list[str]:
        """Saved training states, by name."""
        return sorted(path.name for path in (self.folder / "training").glob("checkpoint-*"))

    @property
    def published(self) -> list[Path]:
        return candidates(self.folder / "checkpoints")

    @property
    def visible(self) -> set[Path]:
        """Whatever looks published, whole or not."""
        return {path for path in (self.folder / "checkpoints").glob("*") if not path.name.startswith(".")}

    @property
    def arguments(self) -> list[str]:
        places = ["--output_dir", str(self.folder / "training"), "--checkpoint_dir", str(self.folder / "checkpoints")]
        return [*places, *self.flags]

    def copy(self, folder: Path) -> "Workplace":
        shutil.copytree(self.folder, folder)
        return Workplace(folder, self.flags)


def environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    path = os.pathsep.join([str(ROOT), *more.pop("PYTHONPATH", "").split(os.pathsep)])
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def run(*command: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A Python command line from start to end."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=WAIT_SECONDS,
        check=False,
    )


def in_a_process(target: Any, *arguments: Any) -> int:
    """Run `target` in a forked process; returns its exit code, minus the signal's number if one ended it."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["trainer.finetune"])
    process = context.Process(target=target, args=arguments)
    process.start()
    process.join(WAIT_SECONDS)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def train(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    sys.exit(main(arguments))


def train_and_be_killed(arguments: list[str], before_step: int) -> None:
    """Train; SIGKILL comes before the given step, after whatever was saved by then."""
    training_step, steps = SpanTrainer.training_step, itertools.count(1)

    def killed_training_step(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if next(steps) == before_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, *args, **kwargs)

    with patch.object(SpanTrainer, "training_step", killed_training_step):
        train(arguments)


def publish_and_be_killed(arguments: list[str], moment: int, passed: "Synchronized[int]") -> None:
    """Train; from publishing on, file operations are counted in `passed`, and the one at `moment` meets SIGKILL."""
    operations = itertools.count()

    def watched_publish(*args: Any) -> Path:
        def watch(event: str, _: object) -> None:
            if event == "open" or event.startswith(("os.", "shutil.")):
                passed.value = next(operations)
                if passed.value == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        return publish(*args)

    with patch("trainer.finetune.publish", watched_publish):
        train(arguments)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(checkpoint / "model.safetensors"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    learnable.write(folder / "train.json", 64, seed=1)
    learnable.write(folder / "dev.json", 16, seed=2)
    return folder


@pytest.fixture(scope="module")
def flags(wordpiece_model: Path, data: Path) -> tuple[str, ...]:
    files = ["--train", str(data / "train.json"), "--dev", str(data / "dev.json")]
    return ("--base", str(wordpiece_model), *files, *FAST, *SAVING, *LAST_WEIGHTS, *STEPS)


@pytest.fixture(scope="module")
def killed(flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A training that was killed in the middle of its second epoch, a step after the newest of its saved states."""
    workplace = Workplace(tmp_path_factory.mktemp("killed"), flags)
    assert in_a_process(train_and_be_killed, workplace.arguments, 12) == -signal.SIGKILL
    assert {"checkpoint-8", "checkpoint-10"} <= set(workplace.states)
    assert f"checkpoint-{LAST_STEP}" not in workplace.states
    assert workplace.published == []
    return workplace


@pytest.fixture(scope="module")
def unkilled_weights(flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What the same training comes to if nothing happens."""
    workplace = Workplace(tmp_path_factory.mktemp("unkilled"), flags)
    assert in_a_process(train, workplace.arguments) == 0
    (checkpoint,) = workplace.published
    return weights(checkpoint)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_killed_training_resumes_to_the_very_same_weights(
    killed: Workplace, unkilled_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    resumed = killed.copy(tmp_path / "resumed")
    assert in_a_process(train, [*resumed.arguments, "--resume"]) == 0
    (checkpoint,) = resumed.published
    assert_same(weights(checkpoint), unkilled_weights)
    assert resumed.states == []


@pytest.mark.parametrize(
    ("saved", "before_batch"),
    [
        pytest.param(
            ["--save_strategy", "epoch", "--eval_strategy", "epoch"], 11, id="at an epoch's end, the best kept"
        ),
        pytest.param(
            ["--save_strategy", "epoch", "--eval_strategy", "epoch", "--save_steps", "2"],
            4,
            id="within its first epoch, the best kept",
        ),
        pytest.param(
            [*SAVING, *LAST_WEIGHTS, "--gradient_accumulation_steps", "2"], 20, id="between halves of batches"
        ),
        pytest.param([*SAVING, "--average", "0.9", "--shortest_window", "0.4"], 10, id="an average, on varied lengths"),
    ],
)
def test_a_training_resumed_after_kill_9_publishes_the_same_bytes(
    unigram_model: Path, data: Path, tmp_path: Path, saved: list[str], before_batch: int
) -> None:
    """With learning so fast, and dropout, that a batch or a random number out of its order shows even in float16."""
    learning = ["--max_steps", "12", "--per_device_train_batch_size", "8", "--learning_rate", "1e-2"]
    files = ["--train", str(data / "train.json"), "--dev", str(data / "dev.json")]
    flags = ("--base", str(unigram_model), *files, *FAST, *saved, *learning, "--dropout", "0.1")
    unkilled, killed = Workplace(tmp_path / "unkilled", flags), Workplace(tmp_path / "killed", flags)
    assert in_a_process(train, unkilled.arguments) == 0
    assert in_a_process(train_and_be_killed, killed.arguments, before_batch) == -signal.SIGKILL
    assert killed.states and not killed.published
    assert in_a_process(train, [*killed.arguments, "--resume"]) == 0
    (expected,), (resumed,) = unkilled.published, killed.published
    assert sha256_of(resumed / "model.safetensors") == sha256_of(expected / "model.safetensors")
    assert sha256_of(resumed / "model.safetensors") != sha256_of(unigram_model / "model.safetensors")


@pytest.mark.parametrize("tear", ["missing", "half"])
def test_a_torn_training_state_is_passed_over(
    killed: Workplace, unkilled_weights: dict[str, torch.Tensor], tmp_path: Path, tear: str
) -> None:
    resumed = killed.copy(tmp_path / "resumed")
    newest = resumed.folder / "training" / "checkpoint-10"
    state = newest / "trainer_state.json"
    if tear == "missing":
        state.unlink()
        (newest / "model.safetensors").write_bytes(b"half")
    else:
        state.write_bytes(state.read_bytes()[:100])
    assert in_a_process(train, [*resumed.arguments, "--resume"]) == 0
    (checkpoint,) = resumed.published
    assert_same(weights(checkpoint), unkilled_weights)


def test_an_unfinished_training_is_not_overwritten(
    killed: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace = killed.copy(tmp_path / "again")
    assert main(workplace.arguments) == 1
    message = capsys.readouterr().err
    assert "holds an unfinished training (checkpoint-10): go on with --resume" in message
    assert workplace.states == killed.states


def test_states_without_one_that_is_whole_cannot_be_resumed(
    killed: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace = killed.copy(tmp_path / "torn")
    for state in (workplace.folder / "training").glob("checkpoint-*/trainer_state.json"):
        state.unlink()
    assert main([*workplace.arguments, "--resume"]) == 1
    assert "nothing to resume" in capsys.readouterr().err


def test_no_kill_during_publishing_leaves_a_half_checkpoint(killed: Workplace, tmp_path: Path) -> None:
    """At moments drawn from all file operations between the end of training and the end of the process."""
    passed = get_context("forkserver").Value("i", 0)
    finished = killed.copy(tmp_path / "finished")
    assert in_a_process(publish_and_be_killed, [*finished.arguments, "--resume"], 0, passed) == -signal.SIGKILL
    assert f"checkpoint-{LAST_STEP}" in finished.states

    whole = finished.copy(tmp_path / "whole")
    assert in_a_process(publish_and_be_killed, [*whole.arguments, "--resume"], -1, passed) == 0
    moments = random.Random(0).sample(range(passed.value), KILLS_AT_PUBLISHING)

    looked_finished = Counter[bool]()
    workplace = finished.copy(tmp_path / "workplace")
    for moment in moments:
        before = workplace.visible
        assert (
            in_a_process(publish_and_be_killed, [*workplace.arguments, "--resume"], moment, passed) == -signal.SIGKILL
        )
        new = workplace.visible - before
        for checkpoint in new:
            manifest = read_manifest(checkpoint)
            assert manifest is not None
            verify(checkpoint, manifest)
            Reader.load(checkpoint, device="cpu")
        looked_finished[bool(new)] += 1
        shutil.rmtree(workplace.folder / "training")
        shutil.copytree(finished.folder / "training", workplace.folder / "training")
    assert looked_finished.keys() == {True, False}, "the moments lie on both sides of the publishing"

    before = workplace.visible
    assert in_a_process(train, [*workplace.arguments, "--resume"]) == 0
    (new_checkpoint,) = workplace.visible - before
    assert_same(weights(new_checkpoint), weights(whole.published[0]))
    left = set((workplace.folder / "checkpoints").iterdir())
    assert left == set(workplace.published), "what the kills left behind was swept away"


def note_windows_and_train() -> None:
    """Run as a program under torchrun: `python -m trainer`, with a note of every window that this process reads."""
    notes = Path(os.environ["NOTES"]) / os.environ["RANK"]
    read = TrainingWindows.__getitem__

    def noted(self: TrainingWindows, index: int) -> LabelledWindow:
        with notes.open("a", encoding="utf-8") as file:
            file.write(f"{self.epoch} {index} {len(self)}\n")
        return read(self, index)

    with patch.object(TrainingWindows, "__getitem__", noted):
        runpy.run_module("trainer", run_name="__main__", alter_sys=True)


def test_two_processes_share_the_data_and_publish_one_checkpoint_as_good_as_one_process_makes(
    wordpiece_model: Path, data: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    learning = [
        "--learning_rate",
        "3e-2",
        "--num_train_epochs",
        "8",
        "--hold_back",
        "0",
        "--windows_without_answer",
        "0",
    ]
    files = ["--train", str(data / "train.json"), "--dev", str(data / "dev.json")]
    common = ("--base", str(wordpiece_model), *files, *FAST, *learning)
    alone = Workplace(tmp_path / "alone", (*common, "--per_device_train_batch_size", "8"))
    shared = Workplace(tmp_path / "shared", (*common, "--per_device_train_batch_size", "4"))

    result = run(
        *["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "test_training", *shared.arguments],
        cwd=tmp_path,
        NOTES=str(notes),
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(ROOT / "tests")]),
    )
    assert result.returncode == 0, result.stderr
    (checkpoint,) = shared.published
    assert result.stdout == f"{checkpoint}\n"

    read = [[tuple(map(int, line.split())) for line in path.read_text().splitlines()] for path in notes.iterdir()]
    assert len(read) == 2
    for epoch in range(8):
        windows = [[index for at, index, _ in process if at == epoch] for process in read]
        assert sorted(windows[0] + windows[1]) == list(range(64)), "64 fill all batches: each once, over both processes"

    assert in_a_process(train, alone.arguments) == 0
    figures = []
    for path in (checkpoint, *alone.published):
        manifest = read_manifest(path)
        assert manifest is not None
        figures.append(manifest.metrics["dev.json"])
    assert figures[0]["questions"] == figures[1]["questions"] == 16
    # Batches hold the same windows, but sums of floats in another order lead such fast learning elsewhere: a question
    # or two of the 16 differ. Untrained, or trained without the other's gradients, it finds 12 %.
    assert all(one["f1"] > 75 for one in figures)


def test_the_command_trains_on_the_sample_and_evaluate_measures_what_it_made(
    wordpiece_model: Path, tmp_path: Path
) -> None:
    flags = ["--base", str(wordpiece_model), *FAST, "--max_steps", "2"]
    trained = run("-m", "trainer", *flags, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    checkpoint = tmp_path / trained.stdout.strip()
    assert checkpoint.parent == tmp_path / "checkpoints", "the default, in the working directory"
    manifest = read_manifest(checkpoint)
    assert manifest is not None
    assert manifest.command == f"python -m trainer {' '.join(flags)}"

    measured = run(
        *["-m", "trainer", "evaluate", "--data", str(SAMPLE / "dev.json"), "--checkpoint", str(checkpoint)],
        *["--plots", "plots", "--unanswerable-pairs", "10"],
        cwd=tmp_path,
    )
    assert measured.returncode == 0, measured.stderr
    figures = json.loads(measured.stdout)
    assert figures["checkpoint"] == checkpoint.name
    assert figures["data"] == ["dev.json"]
    assert figures["questions"] == 87
    assert 0 <= figures["em"] <= 100
    assert 0 <= figures["f1"] <= 100
    assert all(0 <= figures[name] <= 1 for name in ("auroc", "ece", "aurc"))
    assert sum(group["questions"] for group in figures["by_question_type"].values()) == 87
    assert figures["off_topic"].keys() == {"questions", "auroc", "refused"}
    assert figures["off_topic"]["questions"] == 10
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"reliability.png", "coverage.png"}


def test_a_failure_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"data": [{"paragraphs": [{"qas": []}]}]}', encoding="utf-8")
    failed = run("-m", "trainer", "--train", "bad.json", cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stdout == ""
    expected = "error: bad.json: data[0].paragraphs[0]: 'context' is missing; expected SQuAD's layout"
    assert failed.stderr.splitlines()[-1] == expected
    assert "Traceback" not in failed.stderr


if __name__ == "__main__":
    note_windows_and_train()
