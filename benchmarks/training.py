"""`python -m benchmarks.training`: how fast our trainer learns, and how well, beside two others on the same questions.

| recipe | windows | padded to | precision | dropout | schedule |
| --- | --- | --- | --- | --- | --- |
| ours | one drawn around each answer | the longest of the batch | bf16 where computed | none | warm-up, then linear |
| run_qa | all that overlap, stride 128 | 384 | fp32, and once as ours | the base's | linear |
| plain loop | none: cut off at 512 | 512 | fp32 | the base's | constant |

run_qa is the recipe of the Transformers examples' question-answering script with its defaults; the plain loop is what a
notebook does. Both are written anew here from what they do. Base, questions, batch size, learning rate and seeds are
the same for all. Every round trains each recipe from the base once, beginning with another recipe each time; medians
over rounds count. Tokens are those of text and question, padding not counted; tokenizing before the training is not
timed, drawing and padding windows is. All results are read by the same reader.

The setting that keeps freed memory (`qa_engine.memory`) holds for a process, so that the others have it here as well.
"""

import argparse
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from qa_engine import Reader
from qa_engine.checkpoints import WindowSettings, read_manifest, sha256_of
from qa_engine.errors import DataError, DuwenError
from qa_engine.memory import keep_freed_memory
from qa_engine.reader import BUNDLED, choose_device, cpu_is_faster_in_bfloat16
from trainer.evaluate import asks_of, evaluate
from trainer.finetune import SAMPLE_DEV, SAMPLE_TRAIN, DataArguments, FinetuneArguments, SpanTrainer, finetune
from trainer.runs import show_figures
from trainer.squad import Example, load

RUN_QA_WINDOWS = WindowSettings(max_tokens=384, stride=128)
PLAIN_WINDOWS = WindowSettings(max_tokens=512, stride=128)  # the stride is for reading: in training it cuts off
_PEAK_SIZES = (1024, 2048)
_PEAK_REPEATS = 5

Feature = dict[str, Any]
Collate = Callable[[list[Any]], dict[str, Tensor]]


@dataclass(frozen=True)
class Setting:
    """What is the same for all recipes in a round."""

    base: str
    train_file: Path
    dev_file: Path
    batch_size: int
    learning_rate: float
    seed: int
    bf16: bool
    device: torch.device


@dataclass
class Meter:
    """What a training was fed, and how long it took."""

    seconds: float = 0.0
    tokens: int = 0
    """Without padding."""
    shapes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(windows, tokens with padding) of each batch."""

    def over(self, collate: Collate) -> Collate:
        """The same batches, noted."""

        def noted(features: list[Any]) -> dict[str, Tensor]:
            batch = collate(features)
            mask = batch["attention_mask"]
            self.tokens += int(mask.sum())
            self.shapes[mask.shape[0], mask.shape[1]] += 1
            return batch

        return noted

    @contextmanager
    def clock(self, device: torch.device) -> Iterator[None]:
        """Add the time of what runs inside, the device's included."""
        started = time.perf_counter()
        yield
        _wait(device)
        self.seconds += time.perf_counter() - started


@dataclass(frozen=True)
class Outcome:
    """One training of one recipe."""

    seconds: float
    tokens: int
    padded_tokens: int
    windows: int
    tokens_per_second: float
    examples_per_second: float
    share_of_peak: float
    em: float
    f1: float


@dataclass(frozen=True)
class Recipe:
    """A way to train: the setting in, EM and F1 out, with what it was fed noted on the meter."""

    name: str
    bf16: bool
    train: Callable[[Setting, Meter], tuple[float, float]]


def ours(setting: Setting, meter: Meter) -> tuple[float, float]:
    """`python -m trainer` with its defaults, for one epoch."""

    class Measured(SpanTrainer):
        def train(self, *args: Any, **kwargs: Any) -> Any:
            self.data_collator = meter.over(self.data_collator)
            with meter.clock(setting.device):
                return super().train(*args, **kwargs)

    with tempfile.TemporaryDirectory() as folder, patch("trainer.finetune.SpanTrainer", Measured):
        data = DataArguments(
            train=[str(setting.train_file)],
            dev=[str(setting.dev_file)],
            base=setting.base,
            checkpoint_dir=Path(folder) / "checkpoints",
            hold_back=0,  # the same questions for all recipes
            replay=0,
            unanswerable_pairs=0,
        )
        args = FinetuneArguments(
            output_dir=str(Path(folder) / "training"),
            num_train_epochs=1,
            per_device_train_batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
            seed=setting.seed,
            bf16=setting.bf16,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            report_to="none",
            disable_tqdm=True,
        )
        checkpoint = finetune(data, args)
        manifest = read_manifest(checkpoint) if checkpoint else None
    if manifest is None:
        raise DuwenError("the benchmark measures one process: start it without torchrun")
    figures = manifest.metrics[setting.dev_file.name]
    return figures["em"], figures["f1"]


def run_qa(setting: Setting, meter: Meter) -> tuple[float, float]:
    """The recipe of the Transformers examples' script: overlapping windows, all of them, padded to 384."""
    set_seed(setting.seed)
    model, tokenizer = _load(setting.base)
    settings = _within(model, tokenizer, RUN_QA_WINDOWS)
    features = _features(_examples(setting.train_file), tokenizer, settings, overflowing=True)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
            seed=setting.seed,
            bf16=setting.bf16,
            use_cpu=setting.device.type == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        collate: Collate = default_data_collator
        trainer = Trainer(model=model, args=args, train_dataset=features, data_collator=meter.over(collate))
        show_figures(trainer)  # on stderr, as ours
        with meter.clock(setting.device):
            trainer.train()
    return _measured(model, tokenizer, settings, setting)


def plain_loop(setting: Setting, meter: Meter) -> tuple[float, float]:
    """What a notebook does: everything padded to 512, what is longer cut off, AdamW, float32, no schedule."""
    set_seed(setting.seed)
    model, tokenizer = _load(setting.base)
    settings = _within(model, tokenizer, PLAIN_WINDOWS)
    features = _features(_examples(setting.train_file), tokenizer, settings, overflowing=False)
    collate: Collate = default_data_collator
    model.to(setting.device)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.learning_rate)
    model.train()
    with meter.clock(setting.device):
        for batch in DataLoader(features, setting.batch_size, shuffle=True, collate_fn=meter.over(collate)):  # type: ignore[arg-type]
            optimizer.zero_grad()
            model(**{name: tensor.to(setting.device) for name, tensor in batch.items()}).loss.backward()
            optimizer.step()
    return _measured(model, tokenizer, settings, setting)


def _load(base: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model = AutoModelForQuestionAnswering.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    return model, AutoTokenizer.from_pretrained(base)


def _within(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, windows: WindowSettings) -> WindowSettings:
    """No longer than the base reads."""
    positions = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    return windows.model_copy(update={"max_tokens": min(windows.max_tokens, positions)})


def _features(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    windows: WindowSettings,
    *,
    overflowing: bool,
) -> list[Feature]:
    """Padded windows with the answer's first and last token; the first token for both where a window misses it."""
    encoded = tokenizer(
        [example.question.lstrip() for example in examples],
        [example.context for example in examples],
        truncation="only_second",
        max_length=windows.max_tokens,
        stride=windows.stride if overflowing else 0,
        return_overflowing_tokens=overflowing,
        padding="max_length",
        return_attention_mask=True,
    )
    owners = encoded["overflow_to_sample_mapping"] if overflowing else range(len(examples))
    names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in encoded]
    features = []
    for row, owner in enumerate(owners):
        span = examples[owner].span
        encoding = encoded.encodings[row]
        start = end = 0
        if span is not None:
            touched = [
                place
                for place, (part, (first, beyond)) in enumerate(
                    zip(encoding.sequence_ids, encoding.offsets, strict=True)
                )
                if part == 1 and first < span.end and beyond > span.start
            ]
            if touched and _covers(encoding.offsets, touched, span.start, span.end):
                start, end = touched[0], touched[-1]
        features.append({name: encoded[name][row] for name in names} | {"start_positions": start, "end_positions": end})
    return features


def _covers(offsets: Sequence[tuple[int, int]], touched: Sequence[int], start: int, end: int) -> bool:
    """Whether a window holds the whole answer."""
    return offsets[touched[0]][0] <= start and offsets[touched[-1]][1] >= end


def _measured(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, windows: WindowSettings, setting: Setting
) -> tuple[float, float]:
    examples = _examples(setting.dev_file)
    model.train(False)
    reader = Reader(model, tokenizer, name="benchmark", windows=windows)
    with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.bf16):
        result = evaluate(examples, reader.read_many(asks_of(examples)))
    return result.em, result.f1


def _examples(file: Path) -> list[Example]:
    return list(load(str(file)).examples)


@dataclass(frozen=True)
class StepCost:
    """Floating-point operations of a forward and backward pass over a window of n tokens: `linear`·n + `square`·n²."""

    linear: float
    square: float

    @classmethod
    def of(cls, base: str) -> "StepCost":
        """Counted by torch on windows of two lengths; a multiplication and its addition are two operations."""
        model = AutoModelForQuestionAnswering.from_pretrained(
            base, dtype=torch.float32, use_safetensors=True, attn_implementation="eager"
        )
        short, long = 64, 128
        costs = []
        for length in (short, long):
            with FlopCounterMode(display=False) as counter:
                output = model(input_ids=torch.full((1, length), 5))
                (output.start_logits.sum() + output.end_logits.sum()).backward()
            costs.append(counter.get_total_flops())
        square = (costs[1] / long - costs[0] / short) / (long - short)
        return cls(costs[0] / short - square * short, square)

    def total(self, shapes: Counter[tuple[int, int]]) -> float:
        """Of all batches, padding included: it is computed too."""
        return sum(
            batches * windows * (self.linear * tokens + self.square * tokens**2)
            for (windows, tokens), batches in shapes.items()
        )


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """The most operations a second that a product of two square matrices reaches here."""
    best = 0.0
    for size in _PEAK_SIZES:
        first, second = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
        for _ in range(_PEAK_REPEATS):
            _wait(device)
            started = time.perf_counter()
            first @ second
            _wait(device)
            best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _drawn(sources: Sequence[str], count: int, seed: int, file: Path, *, answerable: bool) -> None:
    """Write `count` questions drawn from the sources as a SQuAD file."""
    examples = [example for source in sources for example in load(source).examples]
    if answerable:  # what all recipes can learn from
        examples = [example for example in examples if example.span is not None]
    if not examples:
        raise DataError(f"{', '.join(sources)}: holds no questions to train on")
    drawn = random.Random(seed).sample(examples, min(count, len(examples)))
    paragraphs = [
        {"context": example.context, "qas": [_question(example, str(place))]} for place, example in enumerate(drawn)
    ]
    file.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}, ensure_ascii=False), encoding="utf-8")


def _question(example: Example, identity: str) -> dict[str, Any]:
    texts = [example.span.text] if example.span else []
    texts += [text for text in example.answers if text not in texts]
    answers = [{"text": text, "answer_start": example.span.start if example.span else -1} for text in texts]
    return {"id": identity, "question": example.question, "answers": answers, "is_impossible": not answers}


def _outcome(recipe: Recipe, setting: Setting, cost: StepCost, peak: float) -> Outcome:
    meter = Meter()
    em, f1 = recipe.train(replace(setting, bf16=recipe.bf16), meter)
    return Outcome(
        seconds=meter.seconds,
        tokens=meter.tokens,
        padded_tokens=sum(windows * tokens * count for (windows, tokens), count in meter.shapes.items()),
        windows=sum(windows * count for (windows, _), count in meter.shapes.items()),
        tokens_per_second=meter.tokens / meter.seconds,
        examples_per_second=len(_examples(setting.train_file)) / meter.seconds,
        share_of_peak=cost.total(meter.shapes) / meter.seconds / peak,
        em=em,
        f1=f1,
    )


def _medians(rounds: Sequence[Outcome]) -> dict[str, float]:
    columns = [asdict(outcome) for outcome in rounds]
    return {name: statistics.median(column[name] for column in columns) for name in columns[0]}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    header = ["recipe", "precision", "tokens/s", "questions/s", "share of matmul peak", "padding", "EM", "F1"]
    lines = [header, ["---"] * len(header)]
    for recipe in report["recipes"]:
        median = recipe["median"]
        lines.append(
            [
                recipe["name"],
                recipe["precision"],
                f"{median['tokens_per_second']:,.0f}",
                f"{median['examples_per_second']:.2f}",
                f"{median['share_of_peak']:.0%}",
                f"{1 - median['tokens'] / median['padded_tokens']:.0%}",
                f"{median['em']:.1f}",
                f"{median['f1']:.1f}",
            ]
        )
    peaks = ", ".join(f"{name} {value / 1e9:,.0f} GFLOP/s" for name, value in report["matmul_peak"].items())
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in lines)
        + f"\n\nMedians of {report['rounds']} alternating rounds of {report['questions']} questions, batches of "
        f"{report['batch_size']}, learning rate {report['learning_rate']:g}, from `{report['base']}`; EM and F1 on "
        f"{report['dev_questions']} questions. Tokens of text and question, without padding. Matmul peak: {peaks}.\n"
        f"{report['machine']}, {report['threads']} threads, torch {report['torch']}, transformers "
        f"{report['transformers']}, Python {report['python']}, {report['date']}.\n"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="Our trainer beside two others.")
    parser.add_argument("--train", nargs="+", default=[SAMPLE_TRAIN], help="default: the sample")
    parser.add_argument("--dev", nargs="+", default=[SAMPLE_DEV], help="default: the sample's")
    parser.add_argument("--base", default=str(BUNDLED), help="default: the bundled checkpoint")
    parser.add_argument("--steps", type=int, default=64, help="batches of questions a round (default: 64)")
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dev-questions", type=int, default=500, help="how many to measure on (default: 500)")
    parser.add_argument("-o", "--output", type=Path, default=Path("var/benchmarks"), help="folder for the results")
    options = parser.parse_args(arguments)
    if min(options.steps, options.batch_size, options.rounds, options.dev_questions) < 1:
        parser.error("--steps, --batch-size, --rounds and --dev-questions must be at least 1")
    try:
        report = _run(options)
    except (DuwenError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "training.json").write_text(
        json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    (options.output / "training.md").write_text(_table(report), encoding="utf-8")
    print(_table(report), end="")
    return 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """Train every recipe in every round; returns the report."""
    device = choose_device("auto")
    able = (
        cpu_is_faster_in_bfloat16()
        if device.type == "cpu"
        else device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    recipes = [Recipe("ours", able, ours), Recipe("run_qa", False, run_qa), Recipe("plain loop", False, plain_loop)]
    if able:
        recipes.insert(2, Recipe("run_qa", True, run_qa))
    if device.type == "cpu":
        keep_freed_memory()
    cost = StepCost.of(options.base)
    peaks = {recipe.bf16: 0.0 for recipe in recipes}
    rounds: list[list[Outcome]] = [[] for _ in recipes]
    with tempfile.TemporaryDirectory() as folder:
        train_file, dev_file = Path(folder) / "train.json", Path(folder) / "dev.json"
        _drawn(options.dev, options.dev_questions, 0, dev_file, answerable=False)
        for number in range(options.rounds):
            _drawn(options.train, options.steps * options.batch_size, number, train_file, answerable=True)
            setting = Setting(
                base=options.base,
                train_file=train_file,
                dev_file=dev_file,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
                seed=number,
                bf16=False,
                device=device,
            )
            for bf16, best in peaks.items():
                peaks[bf16] = max(best, matmul_peak(torch.bfloat16 if bf16 else torch.float32, device))
            for place in range(len(recipes)):
                at = (place + number) % len(recipes)
                recipe = recipes[at]
                outcome = _outcome(recipe, setting, cost, peaks[recipe.bf16])
                rounds[at].append(outcome)
                print(
                    f"round {number + 1}, {recipe.name}, {_precision(recipe.bf16)}: "
                    f"{outcome.tokens_per_second:,.0f} tokens/s, EM {outcome.em:.1f}, F1 {outcome.f1:.1f}",
                    file=sys.stderr,
                )
        questions, dev_questions = len(_examples(train_file)), len(_examples(dev_file))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else _processor(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "base": Path(options.base).name,
        "data": {
            name: {Path(file).name: sha256_of(Path(file)) for file in files}
            for name, files in (("train", options.train), ("dev", options.dev))
        },
        "rounds": options.rounds,
        "questions": questions,
        "dev_questions": dev_questions,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "matmul_peak": {_precision(bf16): peak for bf16, peak in peaks.items()},
        "recipes": [
            {
                "name": recipe.name,
                "precision": _precision(recipe.bf16),
                "median": _medians(outcomes),
                "rounds": [asdict(outcome) for outcome in outcomes],
            }
            for recipe, outcomes in zip(recipes, rounds, strict=True)
        ],
    }


def _precision(bf16: bool) -> str:
    return "bf16" if bf16 else "fp32"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
