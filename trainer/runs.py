"""What every training run has: where it starts from, how it shows its figures, which epoch its data draws from.

Knows the `Trainer`, not what is learned: that is `finetune`'s and `adapt`'s.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any, Protocol, cast

from safetensors.torch import load_model, save_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import SaveStrategy

from qa_engine.errors import DuwenError
from qa_engine.memory import give_back_freed_memory

log = logging.getLogger(__name__)


class DrawnAnew(Protocol):
    """Training data that are drawn anew in every epoch, as a function of seed, epoch and index alone."""

    epoch: int


def show_figures(trainer: Trainer) -> None:
    """Put the `Trainer`'s figures on the progress bar, or on lines of their own where no bar is wanted."""
    quiet = trainer.args.disable_tqdm
    trainer.remove_callback(PrinterCallback if quiet else ProgressCallback)
    trainer.add_callback(_LogLines if quiet else _LossBar)


class EpochCallback(TrainerCallback):
    """Tells the windows which epoch begins, also in the middle of a resumed one."""

    def __init__(self, windows: DrawnAnew) -> None:
        self.windows = windows

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.windows.epoch = int(state.epoch or 0)


class SaveWithinEpochs(TrainerCallback):
    """Where a state is saved at the end of each epoch, saves one every `save_steps` steps, too: epochs take hours.

    Not at a step that ends an epoch: resumed from there, the epoch would go unmeasured.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        is_due = state.save_steps > 0 and state.global_step % state.save_steps == 0
        ends_epoch = control.should_training_stop or (state.epoch or 0.0).is_integer()
        if args.save_strategy == SaveStrategy.EPOCH and is_due and not ends_epoch:
            control.should_save = True


class WeightAverage(TrainerCallback):
    """The exponential moving average of a model's weights over a training's steps, itself a model (`model`).

    An average generalizes better than any of the weights it is made of (Izmailov et al. 2018, stochastic weight
    averaging). It is a part of the training's state: saved into it, and found there again.
    """

    FILE = "average.safetensors"

    def __init__(self, decay: float, resumed_from: str | None = None) -> None:
        self.decay = decay
        self.resumed_from = resumed_from
        self._average: AveragedModel | None = None

    @property
    def model(self) -> PreTrainedModel | None:
        """None before training has begun."""
        return cast(PreTrainedModel, self._average.module) if self._average else None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        if model is None:
            return
        self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))  # type: ignore[no-untyped-call]
        if self.resumed_from:
            load_model(self._average, Path(self.resumed_from, self.FILE))

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> None:
        if self._average and model:
            self._average.update_parameters(model)

    def save(self, training_state: str) -> None:
        if self._average:
            save_model(self._average, str(Path(training_state, self.FILE)))


class _LossBar(ProgressCallback):
    """A progress bar that carries loss and accuracies; other figures get a line."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        if self.training_bar is None:
            return
        if "loss" in logs:
            shown = {name: value for name, value in logs.items() if name == "loss" or name.endswith("accuracy")}
            self.training_bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()})
        else:
            self.training_bar.write(_line(logs), file=sys.stderr)


class _LogLines(TrainerCallback):
    """Stands in for the progress bar where none is wanted: a line for each log, on stderr as all messages are."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero:
            log.info("%s", _line(logs or {}))


def _line(logs: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in logs.items() if isinstance(value, int | float))


def starting_point(output_dir: str | None, resume: bool) -> str | None:
    """The newest whole training state when resuming. A training that was not finished is never overwritten."""
    folder = Path(output_dir or ".")
    states = sorted(
        (path for path in folder.glob("checkpoint-*") if _is_whole(path)),
        key=lambda path: int(path.name.split("-")[1]),
    )
    if resume and not states:
        raise DuwenError(f"nothing to resume in {folder}: start without --resume")
    if states and not resume:
        raise DuwenError(
            f"{folder} holds an unfinished training ({states[-1].name}): go on with --resume, "
            "name another --output_dir, or delete it"
        )
    return str(states[-1]) if states else None


def _is_whole(training_state: Path) -> bool:
    """The `Trainer` writes trainer_state.json last: without it, or with half of it, the rest may be missing too."""
    try:
        json.loads((training_state / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


class TrimMemory(TrainerCallback):
    """Gives back now and then what batches of differing lengths leave in pieces."""

    EVERY_STEPS = 100

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.EVERY_STEPS == 0:
            give_back_freed_memory()
