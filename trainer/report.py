"""What a checkpoint leaves for people: the model card beside the weights, in the Hub's format, and its plots."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qa_engine.checkpoints import Manifest
from trainer.evaluate import Evaluation
from trainer.squad import Example

_CARD = """\
---
{front_matter}
---

# A Chinese reader: spans of a text as answers to questions

Made by duwen's trainer on {created} from `{base}`. Given a question and a text, it scores where in the text the
answer starts and ends, and whether the text has one at all. It writes no text of its own.

```python
from qa_engine import Reader

reading = Reader.load("path/to/this/folder").read("詹姆斯有多高？", "他身高203厘米，体重113公斤。")
print(reading.best)
```

It is a plain `AutoModelForQuestionAnswering` folder too. Question first, then text, in windows of {max_tokens} tokens
that share {stride}: it was trained that way, and reads longer ones less well.
{about}
## Measured

{figures}

EM and F1 in per cent, on characters, as CMRC 2018 counts them. *kept*: questions with an answer that got one;
*refused*: questions without one that got none; both at the no-answer threshold of {threshold:.3f}. *auroc*: how well
the no-answer score tells the two apart. *ece*: how far scores, with temperature {temperature:.3f} and bias {bias:.2f},
are from the share of exact matches. *aurc*: area under risk against coverage, less is better.
{calibrated}{plots}
## Data

{data}

```console
{command}
```

With torch {torch} and transformers {transformers}. `manifest.json` holds all of this for programs, and every file's
sha256.
"""
_COLUMNS = ("questions", "em", "f1", "answerable_em", "answerable_f1", "kept", "refused", "auroc", "ece", "aurc")
_SHARES = ("auroc", "ece", "aurc")  # from 0 to 1; the others are in per cent
_CAPTIONS = {
    "loss.png": "Loss and learning rate by step",
    "measured.png": "EM and F1 on the dev data by step",
    "reliability.png": "Exact matches against score, in bins of equally many questions",
    "coverage.png": "Share of right answers against share of questions answered, surest first",
    "lengths.png": "Characters of the training contexts and answers",
}


@dataclass(frozen=True)
class ModelCard:
    """A checkpoint's README.md: what its manifest knows, and `about`, what only a person can tell.

    `calibrated` says in a sentence what calibration was fitted on; `plots` are PNG files by their names.
    """

    manifest: Manifest
    about: str | None
    calibrated: str | None = None
    plots: Mapping[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write README.md and the plots into the checkpoint's folder."""
        (folder / "README.md").write_text(str(self), encoding="utf-8")
        for name, png in self.plots.items():
            (folder / name).write_bytes(png)

    def __str__(self) -> str:
        manifest = self.manifest
        return _CARD.format(
            front_matter=_front_matter(manifest),
            base=manifest.base_model,
            created=manifest.created.strftime("%Y-%m-%d"),
            max_tokens=manifest.windows.max_tokens,
            stride=manifest.windows.stride,
            about=f"\n{self.about.strip()}\n" if self.about else "",
            figures=_table(
                ("data", *_COLUMNS),
                [
                    (name, *(_figure(column, figures.get(column)) for column in _COLUMNS))
                    for name, figures in manifest.metrics.items()
                ],
            ),
            threshold=manifest.calibration.no_answer_threshold,
            temperature=manifest.calibration.temperature,
            bias=manifest.calibration.bias,
            calibrated=f"\n{self.calibrated[0].upper()}{self.calibrated[1:]}.\n" if self.calibrated else "",
            plots="".join(f"\n![{_CAPTIONS[name]}]({name})\n" for name in self.plots),
            data=_table(
                ("data", "for", "questions", "sha256"),
                [
                    (source.name, use, str(source.questions), f"`{source.sha256}`")
                    for use, sources in (
                        ("training", manifest.data),
                        ("measuring", manifest.measured_on),
                        ("calibration", manifest.calibrated_on),
                    )
                    for source in sources
                ],
            ),
            command=manifest.command,
            torch=version("torch"),
            transformers=version("transformers"),
        )


def _front_matter(manifest: Manifest) -> str:
    """The card's head as the Hub reads it, with EM and F1 for its tables (`model-index`)."""
    results = [
        EvalResult("question-answering", name, name, metric, figures[figure])
        for name, figures in manifest.metrics.items()
        for metric, figure in (("exact_match", "em"), ("f1", "f1"))
        if figure in figures
    ]
    card = ModelCardData(
        language="zh",
        library_name="transformers",
        pipeline_tag="question-answering",
        base_model=manifest.base_model,
        metrics=["exact_match", "f1"],
        tags=["duwen", "extractive-qa"],
        model_name="duwen reader",
        eval_results=results or None,
    )
    return card.to_yaml()


def _figure(column: str, value: float | None) -> str:
    if value is None:
        return "–"
    if column == "questions":
        return str(round(value))
    return f"{value:.3f}" if column in _SHARES else f"{value:.1f}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def training_plots(
    log: Sequence[Mapping[str, float]], examples: Sequence[Example], evaluation: Evaluation
) -> dict[str, bytes]:
    """PNG files by name: how a training went, by the `Trainer`'s log, what it learned from, and what its scores mean.

    What was never logged has no plot.
    """
    plots = {
        "loss.png": _loss_plot([entry for entry in log if "loss" in entry]),
        "measured.png": _measured_plot([entry for entry in log if "eval_f1" in entry]),
        "lengths.png": _lengths_plot(examples),
    }
    return {name: png for name, png in plots.items() if png} | evaluation_plots(evaluation)


def evaluation_plots(evaluation: Evaluation) -> dict[str, bytes]:
    """`reliability.png` and `coverage.png`; neither where no question has a best span."""
    if not evaluation.reliability:
        return {}
    return {"reliability.png": _reliability_plot(evaluation), "coverage.png": _coverage_plot(evaluation)}


def _loss_plot(log: Sequence[Mapping[str, float]]) -> bytes | None:
    if not log:
        return None
    figure, axes = _axes("step", "loss")
    steps = [entry["step"] for entry in log]
    axes.plot(steps, [entry["loss"] for entry in log], color="C0")
    axes.set_ylim(bottom=0)
    rates = axes.twinx()
    rates.plot(steps, [entry["learning_rate"] for entry in log], color="C1", linewidth=1, linestyle="--")
    rates.set_ylabel("learning rate (dashed)")
    rates.set_ylim(bottom=0)
    return _png(figure)


def _measured_plot(log: Sequence[Mapping[str, float]]) -> bytes | None:
    if not log:
        return None
    figure, axes = _axes("step", "per cent, on the dev data")
    for name, label in (("eval_em", "EM"), ("eval_f1", "F1")):
        axes.plot([entry["step"] for entry in log], [entry[name] for entry in log], marker="o", label=label)
    axes.legend()
    return _png(figure)


def _lengths_plot(examples: Sequence[Example]) -> bytes:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    contexts, answers = figure.subplots(1, 2)
    contexts.hist([len(context) for context in {example.context for example in examples}], bins=30)
    contexts.set(xlabel="characters of a context", ylabel="contexts")
    lengths = [len(example.answers[0]) for example in examples if not example.is_impossible]
    answers.hist(lengths, bins=30)
    answers.set(xlabel="characters of an answer", ylabel="questions")
    return _png(figure)


def _reliability_plot(evaluation: Evaluation) -> bytes:
    figure, axes = _axes("score of the best answer", "share of exact matches")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    bins = evaluation.reliability
    axes.plot([one.score for one in bins], [one.precision for one in bins], marker="o")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), title=f"ECE {evaluation.ece:.3f}, {evaluation.questions} questions")
    return _png(figure)


def _coverage_plot(evaluation: Evaluation) -> bytes:
    figure, axes = _axes("share of questions answered, surest first", "share of exact matches among them")
    points = evaluation.coverage
    axes.plot([point.coverage for point in points], [point.precision for point in points], marker="o")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), title=f"AURC {evaluation.aurc:.3f}, {evaluation.questions} questions")
    return _png(figure)


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=across, ylabel=up)
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: Figure) -> bytes:
    """The same bytes for the same figure: a checkpoint's files have no time of their own."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return file.getvalue()
