"""Fine-tuning: Hugging Face `Trainer` with our features, our evaluation and our checkpoint layout.

AMP, DDP, MPS, resuming, TensorBoard and every flag of `TrainingArguments` are the `Trainer`'s. Ours are the windows,
the loss in float32, EM/F1 through the very reader that will serve, and the atomic publishing at the end.
"""

import logging
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from qa_engine import Reader, Reading
from qa_engine.checkpoints import Calibration, Manifest, WindowSettings, publish, read_manifest
from qa_engine.errors import CheckpointBroken, DataError, DuwenError
from qa_engine.reader import BUNDLED, cpu_computes_bfloat16
from qa_engine.windows import WindowMaker, WindowSizes
from trainer.evaluate import Evaluation, asks_of, evaluate
from trainer.features import LikeLengths, TrainingWindows, collate, tokenize_examples
from trainer.report import ModelCard
from trainer.runs import EpochCallback, keep_freed_memory, show_figures, starting_point
from trainer.squad import DataSet, Example, load_all, split_off

log = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "sample"
HELD_BACK = "held-back training data"
DEFAULT_WINDOWS = WindowSettings(max_tokens=384, stride=128)


@dataclass
class DataArguments:
    """What to train on, from which base, and where the result goes."""

    train: list[str] = field(
        default_factory=lambda: [str(SAMPLE / "train.json")],
        metadata={
            "help": "SQuAD, CMRC 2018 or DRCD files, or hf:NAME[:SPLIT] (default: the sample that ships with it)"
        },
    )
    dev: list[str] = field(
        default_factory=list,
        metadata={"help": "files to measure on (default: the sample's own, else what --hold_back keeps)"},
    )
    base: str = field(
        default=str(BUNDLED),
        metadata={"help": "a BERT-type model: folder or Hub id (default: the bundled checkpoint)"},
    )
    checkpoint_dir: Path = field(
        default=Path("checkpoints"), metadata={"help": "where the finished checkpoint is published"}
    )
    max_tokens: int | None = field(
        default=None, metadata={"help": "window length in tokens (default: the base's own, else 384)"}
    )
    stride: int | None = field(
        default=None,
        metadata={"help": "tokens that two windows share in reading (default: the base's own, else 128)"},
    )
    windows_without_answer: float = field(
        default=0.1,
        metadata={"help": "windows that miss the answer, labelled as not saying, a question of training data"},
    )
    hold_back: float = field(
        default=0.05,
        metadata={"help": "share of the training contexts kept to measure on where there is no --dev"},
    )
    about: Path | None = field(
        default=None,
        metadata={"help": "Markdown for the model card: where base and data come from, licences, limits"},
    )
    dropout: float = field(
        default=0.0,
        metadata={"help": "hidden and attention dropout; 0 trains twice as fast on a CPU, and short trainings as well"},
    )

    def __post_init__(self) -> None:
        if not self.dev and self.train == [str(SAMPLE / "train.json")]:
            self.dev = [str(SAMPLE / "dev.json")]


@dataclass
class FinetuneArguments(TrainingArguments):
    """`TrainingArguments` with our defaults; every flag is still theirs."""

    output_dir: str | None = field(default="var/training", metadata={"help": "where an unfinished training lives"})
    resume: bool = field(default=False, metadata={"help": "go on with the training in --output_dir"})
    per_device_train_batch_size: int = 16
    num_train_epochs: float = 2
    warmup_steps: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    seed: int = 0
    logging_steps: float = 10
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 2
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "f1"
    report_to: str = "tensorboard"
    bf16: bool | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "bfloat16 mixed precision (default: where the hardware computes in it)"},
    )

    def __post_init__(self) -> None:
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.bf16 is None:
            on_gpu = torch.cuda.is_available() and not self.use_cpu
            able = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_computes_bfloat16()
            self.bf16 = able and not self.fp16
            self.fp16 = self.fp16 or (on_gpu and not able)
        super().__post_init__()  # type: ignore[no-untyped-call]


def finetune(data: DataArguments, args: FinetuneArguments) -> Path | None:
    """Train, measure, publish. Returns the published checkpoint; None on the processes that only help (DDP).

    Raises DataError for data that cannot be used, and DuwenError where a flag cannot be followed.
    """
    resumed_from = starting_point(args.output_dir, args.resume)
    set_seed(args.seed)
    about = data.about.read_text(encoding="utf-8") if data.about else None
    training_sets, dev_sets = load_all(data.train), load_all(data.dev)
    training, held_back = split_off(_all_examples(training_sets), 0 if dev_sets else data.hold_back, args.seed)
    if not training:
        raise DataError("nothing to train on: the only context is held back; add contexts, or set --hold_back 0")
    if not (dev_sets or held_back):
        raise DuwenError("nothing to measure on: give --dev, or a --hold_back above 0")
    base = _base_settings(data)
    trainer = SpanTrainer(data, args, base, training, _all_examples(dev_sets) or held_back)
    trainer.train(resume_from_checkpoint=resumed_from)
    measured_on = {data_set.source.name: list(data_set.examples) for data_set in dev_sets} or {HELD_BACK: held_back}
    metrics = {name: trainer.measure(examples).figures() for name, examples in measured_on.items()}
    if not trainer.is_world_process_zero():
        return None
    manifest = Manifest(
        created=datetime.now(UTC),
        base_model=base.name,
        data=tuple(data_set.source for data_set in training_sets),
        metrics=metrics,
        calibration=base.calibration,
        windows=base.windows,
        command=shlex.join(["python", "-m", "trainer", *sys.argv[1:]]),
    )
    checkpoint = publish(data.checkpoint_dir, manifest, partial(trainer.write_files, ModelCard(manifest, about)))
    for leftover in Path(args.output_dir or ".").glob("checkpoint-*"):
        shutil.rmtree(leftover)
    return checkpoint


class SpanTrainer(Trainer):
    """The `Trainer` for start and end positions, measured by reading whole contexts as the bot will."""

    def __init__(
        self,
        data: DataArguments,
        args: FinetuneArguments,
        settings: "_BaseSettings",
        training: Sequence[Example],
        dev: Sequence[Example],
    ) -> None:
        windows = settings.windows
        on_cpu = args.device.type == "cpu"
        if on_cpu:
            keep_freed_memory()
        model, tokenizer = _load_base(data, on_cpu)
        positions = min(
            tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", windows.max_tokens)
        )
        if windows.max_tokens > positions:
            raise DuwenError(f"{data.base} reads at most {positions} tokens at once: lower --max_tokens")
        window_maker = WindowMaker(tokenizer, WindowSizes(windows.max_tokens, windows.stride))
        examples = tokenize_examples(training, window_maker)
        if not examples:
            raise DataError("nothing to train on: no answer of the training data stands in its context")
        self.settings = settings
        self.tokenizer = tokenizer
        self.dev = dev
        self.training_windows = TrainingWindows(
            examples, window_maker, windows_without_answer=data.windows_without_answer, seed=args.seed
        )
        super().__init__(
            model=model,
            args=args,
            train_dataset=self.training_windows,
            eval_dataset=_Measured(),
            processing_class=tokenizer,
            data_collator=partial(collate, pad_id=tokenizer.pad_token_id or 0),
        )
        self.model_accepts_loss_kwargs = False  # our loss is a mean over the batch
        self._right: list[Tensor] = []  # [2]: start and end accuracy of every batch since the last log
        show_figures(self)
        self.add_callback(EpochCallback(self.training_windows))
        log.info("%d questions, %d windows an epoch", len(examples), len(self.training_windows))

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> LikeLengths:
        return LikeLengths(self.training_windows, self.args.train_batch_size)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean cross entropy of start and end over the window's tokens, in float32 whatever the model computes in."""
        labels = torch.stack([inputs["start_positions"], inputs["end_positions"]])  # [2, window]
        features = {name: inputs[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
        output = model(**features)
        logits = torch.stack([output.start_logits, output.end_logits]).float()  # [2, window, token]
        logits = logits.masked_fill(features["attention_mask"] == 0, -torch.inf)
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
        if model.training:
            self._right.append((logits.detach().argmax(-1) == labels).float().mean(1))
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the `Trainer` does, with start and end accuracy beside the loss."""
        if "loss" in logs and self._right:
            start, end = torch.stack(self._right).mean(0).tolist()
            logs |= {"start_accuracy": start, "end_accuracy": end}
            self._right.clear()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """EM and F1 of the model as it is now, on the dev examples."""
        figures = self.measure(self.dev).figures()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measure(self, examples: Sequence[Example]) -> Evaluation:
        """EM and F1 of the model as it is now."""
        return evaluate(examples, self._read(examples))

    def _read(self, examples: Sequence[Example]) -> list[Reading]:
        """Every process reads its share; all of them get all readings."""
        model = self.accelerator.unwrap_model(self.model)
        reader = Reader(
            model, self.tokenizer, name="training", windows=self.settings.windows, calibration=self.settings.calibration
        )
        rank, processes = self.args.process_index, self.args.world_size
        model.eval()
        with self.compute_loss_context_manager():
            asks = asks_of(examples)[rank::processes]
            readings = reader.read_many(asks, progress=rank == 0 and not self.args.disable_tqdm)
        model.train()
        shares = gather_object([readings]) if processes > 1 else [readings]
        return [shares[index % processes][index // processes] for index in range(len(examples))]

    def write_files(self, card: ModelCard, folder: Path) -> None:
        """Everything of a checkpoint but its manifest: weights in float16, tokenizer, model card."""
        model = self.accelerator.unwrap_model(self.model)
        if all(bool(weights.half().isfinite().all()) for weights in model.state_dict().values()):
            model.half()
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        card.write(folder)


class _Measured(Dataset[None]):
    """Stands for the dev examples where the `Trainer` asks whether there are any; `SpanTrainer.evaluate` has them."""


def _all_examples(data_sets: Sequence[DataSet]) -> list[Example]:
    return [example for data_set in data_sets for example in data_set.examples]


@dataclass(frozen=True)
class _BaseSettings:
    name: str
    windows: WindowSettings
    calibration: Calibration


def _base_settings(data: DataArguments) -> _BaseSettings:
    """How the base reads, if it is a checkpoint of ours, and what the flags change of that."""
    folder = Path(data.base)
    manifest = read_manifest(folder) if folder.is_dir() else None
    windows = manifest.windows if manifest else DEFAULT_WINDOWS
    flags = {"max_tokens": data.max_tokens, "stride": data.stride}
    asked = {name: value for name, value in flags.items() if value is not None}
    try:
        windows = WindowSettings.model_validate(windows.model_dump() | asked)
    except ValidationError as error:
        first = error.errors()[0]
        raise DuwenError(f"--{first['loc'][0]} {first['input']}: {first['msg']}") from None
    name = folder.resolve().name if folder.is_dir() else data.base
    return _BaseSettings(name, windows, manifest.calibration if manifest else Calibration())


def _load_base(data: DataArguments, on_cpu: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base in float32, with a fresh question-answering head where it has none."""
    try:
        config = AutoConfig.from_pretrained(
            data.base, hidden_dropout_prob=data.dropout, attention_probs_dropout_prob=data.dropout
        )
        tokenizer = AutoTokenizer.from_pretrained(data.base)
        model = AutoModelForQuestionAnswering.from_pretrained(
            data.base,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            # For backward passes through heads as narrow as BERT's, a CPU is faster without the fused attention
            # (1.2 times for 12 layers x 384 at 256 tokens); on a GPU the fused one is.
            attn_implementation="eager" if on_cpu else "sdpa",
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointBroken(f"{data.base} cannot be used as a base: {reason}") from error
    return model, tokenizer
