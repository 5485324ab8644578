"""What users say of answers → examples to train on: where the right answer stands, and what most users hold for right.

Values and texts in, a SQuAD 2.0 file out. Who may judge, and which chats' texts may teach, is decided by the handlers
and the store; `trainer` reads the file and knows nothing of the bot.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bot.errors import BotError
from bot.store import Judgement, Verdict
from qa_engine.scripts import folded

MARKS = " \t\r\n\u3000。，、；：！？"
EDGES = MARKS + ".,;:!?“”‘’「」『』\"'（）()《》"
"""What people write around an answer: marks are never a part of it, quotes and brackets may be."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Example:
    """A question with its right answer, `context[start:end]`; no span where the context does not say."""

    id: str
    context: str
    question: str
    span: Span | None


def located(context: str, words: str, near: int) -> Span | None:
    """Where `words` stand in `context`: the occurrence nearest to character `near`; None where there is none.

    Sought without the marks around them, then without quotes and brackets; first as they are, then whatever their
    script, width and case.
    """
    for sought in (words.strip(MARKS), words.strip(EDGES)):
        for form in (str, folded):
            if starts := list(_occurrences(form(context), form(sought))):
                start = min(starts, key=lambda start: abs(start - near))
                return start, start + len(sought)
    return None


def examples(judgements: Iterable[Judgement], min_agreement: int = 1) -> list[Example]:
    """One example for each question on a text, however often and in however many chats it was asked.

    The answer is the one that most users hold for right; a mere 👎 is a vote against the one that was given. Left out
    is what fewer than `min_agreement` users agree on, and what is a draw.
    """
    by_question: dict[tuple[str, str], list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        by_question[judgement.context, folded(judgement.question.strip(EDGES))].append(judgement)
    found = []
    for (context, asked), said in sorted(by_question.items()):
        agreed = _agreed(said, min_agreement)
        if agreed is not None:
            number = sha256(f"{context}\0{asked}".encode()).hexdigest()[:16]
            found.append(Example(number, context, said[0].question, agreed.span))
    return found


def export(judgements: Iterable[Judgement], file: Path, min_agreement: int = 1) -> int:
    """Write the examples as a SQuAD 2.0 file, whole or not at all, and return their number.

    Raises BotError when there is none to write, or the file cannot be written.
    """
    taught = examples(judgements, min_agreement)
    if not taught:
        raise BotError(
            "There is nothing to export: no answer was judged or corrected in a chat that lets its texts teach "
            "(/privacy), or not by enough users (--min-agreement), or not since --since."
        )
    unnamed = file.with_name(f".{file.name}.part")
    try:
        unnamed.write_text(json.dumps(_squad(taught), ensure_ascii=False, indent=1), encoding="utf-8")
        unnamed.replace(file)
    except OSError as error:
        raise BotError(f"Cannot write {file}: {error.strerror}. Name a file in a folder that exists.") from error
    return len(taught)


@dataclass(frozen=True)
class _Held:
    """What is held for right: a span, or, without one, that the context does not say."""

    span: Span | None


def _agreed(said: Iterable[Judgement], min_agreement: int) -> _Held | None:
    """What most users hold for right, each by the last thing that they said."""
    last = {judgement.user_id: judgement for judgement in sorted(said, key=lambda judgement: judgement.at)}
    votes: dict[_Held, int] = defaultdict(int)
    for judgement in last.values():
        if judgement.verdict is Verdict.ABSENT or judgement.span:
            votes[_Held(judgement.span)] += 1
        else:
            votes[_Held(judgement.given)] -= 1
    first, second = [*sorted(votes.items(), key=lambda vote: vote[1], reverse=True), (_Held(None), 0)][:2]
    return first[0] if first[1] >= max(1, min_agreement) and first[1] > second[1] else None


def _occurrences(text: str, sought: str) -> Iterator[int]:
    place = text.find(sought) if sought else -1
    while place >= 0:
        yield place
        place = text.find(sought, place + 1)


def _squad(taught: Iterable[Example]) -> dict[str, Any]:
    by_context: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for example in taught:
        start, end = example.span or (0, 0)
        answers = [{"text": example.context[start:end], "answer_start": start}] if example.span else []
        by_context[example.context].append(
            {"id": example.id, "question": example.question, "is_impossible": not answers, "answers": answers}
        )
    paragraphs = [{"context": context, "qas": qas} for context, qas in by_context.items()]
    return {"version": "v2.0", "data": [{"title": "corrections", "paragraphs": paragraphs}]}
