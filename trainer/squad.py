"""SQuAD 1.1/2.0, CMRC 2018 and DRCD files, or data sets of the Hub → checked examples.

An answer that does not stand at its `answer_start` is looked for; what cannot be found is counted, never guessed.
Knows characters only; tokens are the business of `features`.
"""

import json
import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qa_engine.checkpoints import DataSource, sha256_of
from qa_engine.errors import DataError

log = logging.getLogger(__name__)

HUB_PREFIX = "hf:"


@dataclass(frozen=True)
class Span:
    """An answer at its place: `context[start:start + len(text)] == text`."""

    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class Example:
    """A question on a context. `answers` are its references as written; `span` is where the first one stands.

    No references at all: the context does not say. References but no span: none of them stands in the context, which
    makes the example good for measuring but not for training.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    span: Span | None

    @property
    def is_impossible(self) -> bool:
        return not self.answers


@dataclass
class DataReport:
    """What was found in one source."""

    name: str
    questions: int = 0
    impossible: int = 0
    moved: int = 0
    lost: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.questions} questions"]
        if self.impossible:
            parts.append(f"{self.impossible} without an answer")
        if self.moved:
            parts.append(f"{self.moved} answers moved to where they stand")
        if self.lost:
            parts.append(f"{len(self.lost)} not to train on: their answer is not in the context {_some(self.lost)}")
        if self.empty:
            parts.append(f"{len(self.empty)} left out: the question is empty {_some(self.empty)}")
        return ", ".join(parts)


def _some(ids: Sequence[str]) -> str:
    return f"({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})"


@dataclass(frozen=True)
class DataSet:
    """Examples of one source with what is to be known of it."""

    examples: tuple[Example, ...]
    report: DataReport
    source: DataSource


def load(source: str) -> DataSet:
    """Read a JSON file, or with `hf:name[:split]` a Hub data set (or a local `datasets` folder) with SQuAD's columns.

    Raises DataError that names file, entry and what was expected.
    """
    if source.startswith(HUB_PREFIX):
        return _load_hub(source)
    path = Path(source)
    report = DataReport(path.name)
    document = _document(source)
    examples = tuple(_examples(_entries(document, source), report, source))
    return DataSet(examples, report, DataSource(name=path.name, sha256=sha256_of(path), questions=len(examples)))


def load_contexts(source: str) -> list[str]:
    """The contexts of a JSON file in SQuAD's layout, each once, whatever is asked about them, or nothing.

    Raises DataError that names file, entry and what was expected.
    """
    contexts = dict[str, None]()
    for a, article in enumerate(_field(_document(source), "data", list, source)):
        for p, paragraph in enumerate(_field(article, "paragraphs", list, f"{source}: data[{a}]")):
            contexts[_field(paragraph, "context", str, f"{source}: data[{a}].paragraphs[{p}]")] = None
    return list(contexts)


def read_text(source: str) -> str:
    """A UTF-8 file's text; raises DataError where there is none."""
    try:
        return Path(source).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: is not UTF-8 at byte {error.start}: save it as UTF-8") from error


def _document(source: str) -> Any:
    try:
        return json.loads(read_text(source))
    except json.JSONDecodeError as error:
        raise DataError(f"{source}: is not JSON: line {error.lineno}: {error.msg}") from error


def load_all(sources: Sequence[str]) -> list[DataSet]:
    """Read several sources and log what each holds."""
    data_sets = [load(source) for source in sources]
    for data_set in data_sets:
        log.info("%s", data_set.report)
    return data_sets


def split_off(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(the rest, about `share` of the examples): whole contexts move, so that no context is in both."""
    by_context: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_context[example.context].append(example)
    contexts = sorted(by_context)
    random.Random(seed).shuffle(contexts)
    held_back: list[Example] = []
    while contexts and len(held_back) < share * len(examples):
        held_back += by_context.pop(contexts.pop())
    return [example for context in by_context for example in by_context[context]], held_back


@dataclass(frozen=True)
class _Entry:
    where: str
    id: str
    question: str
    context: str
    texts: tuple[str, ...]
    starts: tuple[int, ...]


def _entries(document: Any, source: str) -> Iterator[_Entry]:
    """Walk SQuAD's JSON and check each field on the way."""
    for a, article in enumerate(_field(document, "data", list, source)):
        for p, paragraph in enumerate(_field(article, "paragraphs", list, f"{source}: data[{a}]")):
            where = f"{source}: data[{a}].paragraphs[{p}]"
            context = _field(paragraph, "context", str, where)
            for q, qa in enumerate(_field(paragraph, "qas", list, where)):
                yield _entry(qa, context, f"{where}.qas[{q}]")


def _entry(qa: Any, context: str, at: str) -> _Entry:
    question = _field(qa, "question", str, at)
    impossible = "is_impossible" in qa and _field(qa, "is_impossible", bool, at)
    answers = [] if impossible else _field(qa, "answers", list, at)
    if not impossible and not answers:
        raise DataError(f'{at}: has no answers; expected one, or "is_impossible": true')
    texts = [_field(answer, "text", str, f"{at}.answers") for answer in answers]
    starts = [_field(answer, "answer_start", int, f"{at}.answers") for answer in answers]
    said = [place for place, text in enumerate(texts) if text.strip()]  # an empty one says that there is none
    return _Entry(
        at,
        str(qa.get("id", at)),
        question,
        context,
        tuple(texts[place] for place in said),
        tuple(starts[place] for place in said),
    )


def _field(holder: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(holder, dict):
        raise DataError(f"{where}: expected an object with {name!r}, found {type(holder).__name__}")
    if name not in holder:
        raise DataError(f"{where}: {name!r} is missing; expected SQuAD's layout")
    if type(holder[name]) is not kind:  # a bool is an int to isinstance
        raise DataError(f"{where}: {name!r} should be {kind.__name__}, found {type(holder[name]).__name__}")
    return holder[name]


def _examples(entries: Iterator[_Entry], report: DataReport, source: str) -> Iterator[Example]:
    seen: dict[str, str] = {}
    for entry in entries:
        if entry.id in seen:
            raise DataError(f"{entry.where}: id {entry.id!r} stands at {seen[entry.id]} already; ids must differ")
        seen[entry.id] = entry.where
        if not entry.question.strip():
            report.empty.append(entry.id)
            continue
        report.questions += 1
        report.impossible += not entry.texts
        span, moved = _place(entry)
        if entry.texts and span is None:
            report.lost.append(entry.id)
        report.moved += moved
        yield Example(entry.id, entry.question, entry.context, entry.texts, span)
    if not report.questions:
        raise DataError(f"{source}: holds no questions")


def _place(entry: _Entry) -> tuple[Span | None, bool]:
    """The first reference that stands in the context, and whether it had to be moved to the nearest occurrence."""
    for text, start in zip(entry.texts, entry.starts, strict=True):
        if text and start >= 0 and entry.context.startswith(text, start):
            return Span(text, start), False
    for text, start in zip(entry.texts, entry.starts, strict=True):
        places = list(_occurrences(entry.context, text))
        if places:
            return Span(text, min(places, key=lambda place: abs(place - start))), True
    return None, False


def _occurrences(context: str, text: str) -> Iterator[int]:
    place = context.find(text) if text else -1
    while place >= 0:
        yield place
        place = context.find(text, place + 1)


def _load_hub(source: str) -> DataSet:
    from datasets import Dataset, load_dataset, load_from_disk

    name, _, split = source.removeprefix(HUB_PREFIX).partition(":")
    split = split or "train"
    try:
        if Path(name).is_dir():
            loaded = load_from_disk(name)
            rows = loaded if isinstance(loaded, Dataset) else loaded[split]
        else:
            rows = load_dataset(name, split=split)
    except Exception as error:  # datasets, its file systems and its network raise whatever they like
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{source}: cannot be loaded: {type(error).__name__}: {reason}") from error
    expected = {"id", "question", "context", "answers"}
    if not expected <= set(rows.column_names):
        raise DataError(f"{source}: has columns {sorted(rows.column_names)}; expected {sorted(expected)} as in squad")
    report = DataReport(source)
    examples = tuple(_examples(_hub_entries(rows, source), report, source))
    return DataSet(examples, report, DataSource(name=source, sha256=str(rows._fingerprint), questions=len(examples)))


def _hub_entries(rows: Sequence[Mapping[str, Any]], source: str) -> Iterator[_Entry]:
    """Rows in the layout of a file, so that they are checked as strictly. No answers: the context does not say."""
    for number, row in enumerate(rows):
        at = f"{source}: row {number}"
        answers = _field(row, "answers", dict, at)
        texts, starts = (_field(answers, name, list, f"{at}.answers") for name in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise DataError(f"{at}: 'answers' holds {len(texts)} texts and {len(starts)} starts; expected as many")
        pairs = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        qa = {"id": row["id"], "question": row["question"], "answers": pairs, "is_impossible": not pairs}
        yield _entry(qa, _field(row, "context", str, at), at)
