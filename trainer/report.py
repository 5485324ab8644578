"""What a training leaves for people: the model card beside the weights, in the Hub's format."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from qa_engine.checkpoints import Manifest

_CARD = """\
---
language: zh
library_name: transformers
pipeline_tag: question-answering
base_model: {base}
metrics: [exact_match, f1]
tags: [duwen, extractive-qa]
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
*refused*: questions without one that got none; both at the no-answer threshold of {threshold:.3f}.

## Trained on

{data}

```console
{command}
```

With torch {torch} and transformers {transformers}. `manifest.json` holds all of this for programs, and every file's
sha256.
"""
_COLUMNS = ("questions", "em", "f1", "answerable_em", "answerable_f1", "kept", "refused")


@dataclass(frozen=True)
class ModelCard:
    """A checkpoint's README.md: what its manifest knows, and `about`, what only a person can tell."""

    manifest: Manifest
    about: str | None

    def write(self, folder: Path) -> None:
        """Write README.md into the checkpoint's folder."""
        (folder / "README.md").write_text(str(self), encoding="utf-8")

    def __str__(self) -> str:
        manifest = self.manifest
        return _CARD.format(
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
            data=_table(
                ("data", "questions", "sha256"),
                [(source.name, str(source.questions), f"`{source.sha256[:16]}…`") for source in manifest.data],
            ),
            command=manifest.command,
            torch=version("torch"),
            transformers=version("transformers"),
        )


def _figure(column: str, value: float | None) -> str:
    if value is None:
        return "–"
    return str(round(value)) if column == "questions" else f"{value:.1f}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
