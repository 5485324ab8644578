"""Fine-tuning: Hugging Face `Trainer` with our features, our evaluation and our checkpoint layout.

AMP, DDP, MPS, resuming, TensorBoard and every flag of `TrainingArguments` are the `Trainer`'s. Ours are the windows,
the loss in float32, EM/F1 through the very reader that will serve, calibration on held-back data, the gate, and the
atomic publishing at the end.
"""

import hashlib
import logging
import random
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from huggingface_hub import HfApi
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
from qa_engine.attention import fastest
from qa_engine.checkpoints import Calibration, DataSource, Manifest, WindowSettings, publish, read_manifest
from qa_engine.errors import CheckpointBroken, DataError, DuwenError
from qa_engine.memory import keep_freed_memory
from qa_engine.reader import BUNDLED, Candidates, cpu_is_faster_in_bfloat16
from qa_engine.windows import WindowMaker, WindowSizes
from trainer.augment import Augmentation, rewritten, thinned, unanswerable
from trainer.calibrate import FEWEST_QUESTIONS, MOST_PAIRS, Fit, fit, off_topic
from trainer.evaluate import asks_of, evaluate
from trainer.features import LikeLengths, TrainingWindows, collate, tokenize_examples
from trainer.gate import Bar, NotPublished, why_not
from trainer.report import ModelCard, training_plots
from trainer.runs import (
    EpochCallback,
    SaveWithinEpochs,
    TrimMemory,
    WeightAverage,
    show_figures,
    starting_point,
)
from trainer.squad import DataSet, Example, load_all, split_off

log = logging.getLogger(__name__)

SAMPLE_TRAIN, SAMPLE_DEV = (str(Path(__file__).parent / "sample" / name) for name in ("train.json", "dev.json"))
HELD_BACK = "held-back training data"
DEFAULT_WINDOWS = WindowSettings(max_tokens=384, stride=128)


@dataclass
class DataArguments:
    """What to train on, from which base, and where the result goes."""

    train: list[str] = field(
        default_factory=lambda: [SAMPLE_TRAIN],
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
    length_weight: float | None = field(
        default=None,
        metadata={
            "help": "makes long answers less likely in reading: with 0.5 one of four times as many tokens has to be "
            "twice as likely (default: the base's own, else 0)"
        },
    )
    max_answer_tokens: int | None = field(
        default=None,
        metadata={"help": "tokens of the longest answer that is given (default: the base's own, else 64)"},
    )
    windows_without_answer: float = field(
        default=0.1,
        metadata={"help": "windows that miss the answer, labelled as not saying, a question of training data"},
    )
    shortest_window: float = field(
        default=1.0,
        metadata={
            "help": "share of the window length from which on lengths are drawn in training, anew in every epoch, so "
            "that the model reads windows of all lengths well (1: all are as long as they can be)"
        },
    )
    average: float = field(
        default=0.0,
        metadata={
            "help": "with 0.998, say, not the last weights are measured and published but their moving average over "
            "some 500 steps; best with --lr_scheduler_type constant_with_warmup"
        },
    )
    replay: float = field(
        default=1.0,
        metadata={
            "help": "questions of --replay_from mixed in, a question of training data (at most all of them), so that "
            "the base does not forget what it could"
        },
    )
    replay_from: list[str] = field(
        default_factory=lambda: [SAMPLE_TRAIN],
        metadata={"help": "files like what the base has learned from (default: the sample that ships with it)"},
    )
    unanswerable_pairs: float = field(
        default=0.1,
        metadata={
            "help": "questions on contexts that do not answer them (near ones, and their own without the answer), "
            "a question of training data"
        },
    )
    paraphrase: float = field(
        default=0.0, metadata={"help": "share of questions that are worded or typed otherwise, anew in every epoch"}
    )
    noise: float = field(
        default=0.0, metadata={"help": "share of contexts with one character in twenty changed outside the answer"}
    )
    shuffle: float = field(default=0.0, metadata={"help": "share of contexts with their sentences in another order"})
    other_script: float = field(
        default=0.0,
        metadata={"help": "share of examples that are put into the other script, Traditional or Simplified Chinese"},
    )
    favour_short: int | None = field(
        default=None,
        metadata={
            "help": "characters of an answer from which on its question may be left out of training: of those with "
            "answers n times as long, one in n is trained on. For data whose annotators marked more than people want"
        },
    )
    rewriter: str | None = field(
        default=None,
        metadata={"help": "a program that reads questions and writes them in other words, line by line"},
    )
    hold_back: float = field(
        default=0.05,
        metadata={
            "help": "share of the training contexts that is not trained on: temperature, bias and no-answer threshold "
            f"are fitted on it, also where there is a --dev (unless it has fewer than {FEWEST_QUESTIONS} questions "
            "with an answer, too few to fit on: then it is trained on); without --dev it is measured on too"
        },
    )
    calibrate_on: list[str] = field(
        default_factory=list,
        metadata={
            "help": "files to fit temperature, bias and no-answer threshold on, that neither this training nor the "
            "base has learned from (default: what --hold_back keeps)"
        },
    )
    min_f1: float | None = field(
        default=None,
        metadata={
            "help": "F1 in per cent, over all questions of --dev, below which the checkpoint is not published but kept "
            "in --output_dir/kept; the exit status is then 1"
        },
    )
    no_worse_than: str | None = field(
        default=None,
        metadata={"help": "as --min_f1, with the F1 of this checkpoint (folder or Hub id) on --dev"},
    )
    keep_base: float = field(
        default=0.0,
        metadata={
            "help": "share of the base in the published weights, from 0 to 1: with 0.5 each weight is the mean of what "
            "it was and what it became (Wortsman et al. 2022, WiSE-FT); a short training on few texts forgets less"
        },
    )
    about: Path | None = field(
        default=None,
        metadata={"help": "Markdown for the model card: where base and data come from, licences, limits"},
    )
    dropout: float = field(
        default=0.0,
        metadata={"help": "hidden and attention dropout; on a CPU 0.1 takes 1.8 times as long as 0"},
    )

    def __post_init__(self) -> None:
        if not self.dev and self.train == [SAMPLE_TRAIN]:
            self.dev = [SAMPLE_DEV]
        if not self.dev and (self.min_f1 is not None or self.no_worse_than):
            raise ValueError("--min_f1 and --no_worse_than judge by --dev: give it")
        if self.min_f1 is not None and not (self.min_f1 == 0 or 1 < self.min_f1 <= 100):
            raise ValueError(f"--min_f1 {self.min_f1:g}: F1 is in per cent, up to 100")
        if self.favour_short is not None and self.favour_short < 1:
            raise ValueError(f"--favour_short {self.favour_short}: it is a number of characters, 1 or more")
        if not 0 < self.shortest_window <= 1:
            raise ValueError(f"--shortest_window {self.shortest_window:g}: it is a share, above 0 and up to 1")
        if not 0 <= self.average < 1:
            raise ValueError(f"--average {self.average:g}: it is a weight, from 0 to below 1")
        if not 0 <= self.keep_base <= 1:
            raise ValueError(f"--keep_base {self.keep_base:g}: it is a share, from 0 to 1")


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
    save_steps: float = field(
        default=200,
        metadata={
            "help": "steps after which a state for --resume is saved, also between those of --save_strategy epoch"
        },
    )
    save_total_limit: int | None = 2
    load_best_model_at_end: bool = True
    metric_for_best_model: str | None = "f1"
    logging_nan_inf_filter: bool = False  # it would show a loss of 0
    report_to: str = "tensorboard"
    hub_strategy: str = field(
        default="end",
        metadata={
            "help": "what --push_to_hub uploads (default: end, the published checkpoint; others also as it trains)"
        },
    )
    bf16: bool | None = field(  # type: ignore[assignment]
        default=None,
        metadata={"help": "bfloat16 mixed precision (default: where the hardware is faster in it)"},
    )

    def __post_init__(self) -> None:
        if self.dataloader_persistent_workers:
            raise ValueError("--dataloader_persistent_workers: such workers would read the first epoch again and again")
        if self.label_smoothing_factor:
            raise ValueError("--label_smoothing_factor: our loss has none")
        if self.greater_is_better is None and str(self.metric_for_best_model).removeprefix("eval_") in ("ece", "aurc"):
            self.greater_is_better = False
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.bf16 is None:
            on_gpu = torch.cuda.is_available() and not self.use_cpu
            able = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_is_faster_in_bfloat16()
            self.bf16 = able and not self.fp16
            self.fp16 = self.fp16 or (on_gpu and not able)
        super().__post_init__()  # type: ignore[no-untyped-call]


def finetune(data: DataArguments, args: FinetuneArguments) -> Path | None:
    """Train, calibrate, measure, publish. Returns the published checkpoint; None on the processes that only help (DDP).

    Raises DataError for data that cannot be used, NotPublished where the gate holds a checkpoint back, and DuwenError
    where a flag cannot be followed.
    """
    resumed_from = starting_point(args.output_dir, args.resume)
    set_seed(args.seed)
    about = data.about.read_text(encoding="utf-8") if data.about else None
    training_sets, dev_sets = load_all(data.train), load_all(data.dev)
    calibration_sets = load_all(data.calibrate_on)
    measured_on = _distinct_sources(data.dev or data.calibrate_on, dev_sets or calibration_sets)
    training = given = _to_learn(training_sets, data, args.seed)
    if data.calibrate_on:
        held_back = _all_examples(calibration_sets)
        if (count := _answerable(held_back)) < FEWEST_QUESTIONS:
            raise DataError(f"--calibrate_on: {count} questions with an answer are too few: give {FEWEST_QUESTIONS}")
    else:
        training, held_back = split_off(given, data.hold_back, args.seed)
        if dev_sets and _answerable(held_back) < FEWEST_QUESTIONS:
            training, held_back = given, []
    if not training:
        raise DataError("nothing to train on: the only context is held back; add contexts, or set --hold_back 0")
    if not (dev_sets or held_back):
        raise DuwenError("nothing to measure on: give --dev, or a --hold_back above 0")
    if not any(example.span or example.is_impossible for example in training):
        raise DataError("nothing to train on: no answer of the training data stands in its context")
    if data.replay:
        known = {example.context for example in (*_all_examples([*training_sets, *dev_sets]), *held_back)}
        replayed_sets = load_all(data.replay_from)
        replayed = [one for one in _to_learn(replayed_sets, data, args.seed) if one.context not in known]
        if replayed:
            training = [*training, *_drawn(replayed, round(data.replay * len(training)), args.seed)]
            training_sets += replayed_sets
    rewritings = Path(args.output_dir or ".", "rewritten.txt")
    if data.rewriter:
        with args.main_process_first(local=False):
            if resumed_from is None and args.process_index == 0:
                rewritings.unlink(missing_ok=True)
            training += rewritten(training, data.rewriter, rewritings)
    training += unanswerable(training, round(data.unanswerable_pairs * len(training)), args.seed)
    if data.average and args.load_best_model_at_end:
        log.info("--average: the average at the end is published, not the best of the epochs")
        args.load_best_model_at_end = False
    base = _base_settings(data)
    dev = _all_examples(dev_sets) or held_back
    average = WeightAverage(data.average, resumed_from) if data.average else None
    trainer = SpanTrainer(data, args, base, training, dev, average)
    bars = trainer.bars(data)
    trainer.train(resume_from_checkpoint=resumed_from)
    trainer.take_average()
    if data.keep_base:
        trainer.keep_base(data)
    fitted = trainer.calibrate(held_back)
    readings = [found.reading(fitted.calibration) for found in trainer.find_dev()]
    if not trainer.is_world_process_zero():
        return None
    log.info("%s", fitted)
    manifest = Manifest(
        created=datetime.now(UTC),
        base_model=base.name,
        data=tuple(data_set.source for data_set in training_sets),
        measured_on=measured_on,
        calibrated_on=tuple(data_set.source for data_set in calibration_sets),
        metrics=_measured_apart(measured_on, dev, readings),
        calibration=fitted.calibration,
        windows=base.windows,
        command=command_line(args.hub_token),
    )
    overall = evaluate(dev, readings)
    card = ModelCard(manifest, about, str(fitted), training_plots(trainer.state.log_history, training, overall))
    held_up = why_not(overall.f1, bars)
    folder = Path(args.output_dir or ".", "kept") if held_up else data.checkpoint_dir
    checkpoint = publish(folder, manifest, partial(trainer.write_files, card))
    for leftover in Path(args.output_dir or ".").glob("checkpoint-*"):
        shutil.rmtree(leftover)
    rewritings.unlink(missing_ok=True)
    if held_up:
        data.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        raise NotPublished(held_up, checkpoint, data.checkpoint_dir)
    if args.push_to_hub:
        trainer.upload(checkpoint)
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
        average: WeightAverage | None = None,
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
        too_long = sum(one.answer_tokens > windows.max_answer_tokens for one in examples)
        if too_long:
            log.warning(
                "%d answers have more than %d tokens and can be learned but never given: raise --max_answer_tokens",
                too_long,
                windows.max_answer_tokens,
            )
        self.settings = settings
        self.tokenizer = tokenizer
        self.dev = dev
        self.training_windows = TrainingWindows(
            examples,
            window_maker,
            windows_without_answer=data.windows_without_answer,
            seed=args.seed,
            shortest_window=data.shortest_window,
            augment=Augmentation(data.paraphrase, data.noise, data.shuffle, data.other_script) or None,
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
        self._dev_found: tuple[str, list[Candidates]] | None = None  # with the weights' sha256
        self._right: list[Tensor] = []  # [2]: start and end accuracy of every batch since the last log
        show_figures(self)
        self.add_callback(TrimMemory())
        self.add_callback(EpochCallback(self.training_windows))
        self.add_callback(SaveWithinEpochs())
        self.average = average
        if average:
            self.add_callback(average)
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
        readings = [found.reading(self.settings.calibration) for found in self.find_dev()]
        figures = evaluate(self.dev, readings).figures()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the `Trainer`, who writes what makes a training state whole after this."""
        super().save_model(output_dir, _internal_call)
        if self.average and output_dir and self.args.should_save:
            self.average.save(output_dir)

    def take_average(self) -> None:
        """From now on the model is its average over the steps, where one was kept."""
        if self.average and self.average.model:
            self.accelerator.unwrap_model(self.model).load_state_dict(self.average.model.state_dict())
            self.average = None

    def _measured_model(self) -> PreTrainedModel:
        averaged = self.average.model if self.average else None
        model: PreTrainedModel = averaged or self.accelerator.unwrap_model(self.model)
        return model

    @torch.no_grad()
    def keep_base(self, data: DataArguments) -> None:
        """Move every weight back towards the base's, by the share `data.keep_base` of the way."""
        base, _ = _load_base(data, on_cpu=self.args.device.type == "cpu")
        model = self.accelerator.unwrap_model(self.model)
        for weights, base_weights in zip(model.parameters(), base.parameters(), strict=True):
            weights.lerp_(base_weights.to(weights.device, weights.dtype), data.keep_base)

    def calibrate(self, held_back: Sequence[Example]) -> Fit:
        """Temperature and no-answer threshold for the model as it is now."""
        found = self.find_dev() if held_back is self.dev else self.find(held_back)
        pairs = off_topic(held_back, min(_answerable(held_back), MOST_PAIRS), self.args.seed)
        return fit(held_back, found, self.find(pairs), self.settings.calibration)

    def bars(self, data: DataArguments) -> list[Bar]:
        """What F1 must be reached on the dev examples; `--no_worse_than` reads them as precisely as this training."""
        bars = [] if data.min_f1 is None else [Bar(data.min_f1, "--min_f1")]
        if data.no_worse_than:
            reader = Reader.load(data.no_worse_than, device=str(self.args.device), dtype="float32")
            found = self._share_out(reader, self.dev)
            f1 = evaluate(self.dev, [one.reading(reader.calibration) for one in found]).f1
            log.info("to be published, F1 on the dev data must be %.2f or more: that of %s", f1, data.no_worse_than)
            bars.append(Bar(f1, f"--no_worse_than {data.no_worse_than}"))
        return bars

    def find_dev(self) -> list[Candidates]:
        """As `find`, for the dev examples; with the weights of the last time they are not read again."""
        weights = _weights_sha256(self._measured_model())
        if self._dev_found is None or self._dev_found[0] != weights:
            self._dev_found = weights, self.find(self.dev)
        return self._dev_found[1]

    def find(self, examples: Sequence[Example]) -> list[Candidates]:
        """What the model as it is now finds, before calibration."""
        if not examples:
            return []
        model = self._measured_model()
        if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
            raise DuwenError("the training has come to nothing: weights are not finite numbers. Lower --learning_rate")
        model.eval()  # type: ignore[no-untyped-call]
        found = self._share_out(Reader(model, self.tokenizer, name="training", windows=self.settings.windows), examples)
        model.train()
        return found

    def _share_out(self, reader: Reader, examples: Sequence[Example]) -> list[Candidates]:
        """Every process reads its share; all of them get everything."""
        rank, processes = self.args.process_index, self.args.world_size
        with self.compute_loss_context_manager():
            asks = asks_of(examples)[rank::processes]
            found = reader.find_many(asks, progress=rank == 0 and not self.args.disable_tqdm)
        shares = gather_object([found]) if processes > 1 else [found]
        return [shares[index % processes][index // processes] for index in range(len(examples))]

    def upload(self, checkpoint: Path) -> None:
        """Upload a published checkpoint to the Hub: where and as whom is what `--hub_…` say, as in the `Trainer`."""
        with _reported(f"{checkpoint} is published here, but not uploaded"):
            HfApi().upload_folder(
                repo_id=str(self.hub_model_id),
                folder_path=checkpoint,
                commit_message=f"Checkpoint {checkpoint.name}",
                token=self.args.hub_token,
                revision=self.args.hub_revision,
            )

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """As the `Trainer`, before training begins."""
        with _reported("--push_to_hub"):
            super().init_hf_repo(token, private)

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


def command_line(secret: str | None) -> str:
    """This command line without the Hub's token: it stands in the manifest and in the card for all to read."""
    arguments = [one.replace(secret, "...") if secret else one for one in sys.argv[1:]]
    return shlex.join(["python", "-m", "trainer", *arguments])


@contextmanager
def _reported(what: str) -> Iterator[None]:
    """The Hub's client and its network raise whatever they like; people get a line."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise DuwenError(f"{what}: {type(error).__name__}: {reason}") from error


def _weights_sha256(model: torch.nn.Module) -> str:
    """Costs some tenths of a second for 100 million weights; another reading of the dev data costs minutes."""
    digest = hashlib.sha256()
    for weights in model.state_dict().values():
        digest.update(weights.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _distinct_sources(paths: Sequence[str], data_sets: Sequence[DataSet]) -> tuple[DataSource, ...]:
    """The sources under names that differ: file names, where several share one whole paths."""
    count = Counter(data_set.source.name for data_set in data_sets)
    named = dict[str, DataSource]()
    for path, source in zip(paths, (data_set.source for data_set in data_sets), strict=True):
        name = source.name if count[source.name] == 1 else path
        if name in named:
            raise DataError(f"--dev names {path} twice")
        named[name] = source.model_copy(update={"name": name})
    return tuple(named.values())


def _measured_apart(
    sources: Sequence[DataSource], dev: Sequence[Example], readings: Sequence[Reading]
) -> dict[str, dict[str, float]]:
    """Figures by source; without sources, all examples are held-back training data."""
    metrics, at = dict[str, dict[str, float]](), 0
    for name, count in [(source.name, source.questions) for source in sources] or [(HELD_BACK, len(dev))]:
        metrics[name] = evaluate(dev[at : at + count], readings[at : at + count]).figures()
        at += count
    return metrics


def _all_examples(data_sets: Sequence[DataSet]) -> list[Example]:
    return [example for data_set in data_sets for example in data_set.examples]


def _answerable(examples: Sequence[Example]) -> int:
    return sum(not example.is_impossible for example in examples)


def _to_learn(data_sets: Sequence[DataSet], data: DataArguments, seed: int) -> list[Example]:
    examples = _all_examples(data_sets)
    return thinned(examples, data.favour_short, seed) if data.favour_short else examples


def _drawn(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    return random.Random(seed).sample(examples, min(len(examples), count))


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
    flags = ("max_tokens", "stride", "length_weight", "max_answer_tokens")
    asked = {name: value for name in flags if (value := getattr(data, name)) is not None}
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
            attn_implementation=fastest(config, on_cpu=on_cpu),
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointBroken(f"{data.base} cannot be used as a base: {reason}") from error
    if data.keep_base and not any("QuestionAnswering" in name for name in config.architectures or ()):
        raise DuwenError(f"{data.base} cannot answer yet, nothing of it is to be kept: leave --keep_base away")
    return model, tokenizer
