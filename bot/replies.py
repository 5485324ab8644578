"""Answers as Telegram messages: values in, a string of Telegram's HTML out.

Everything here is pure. Telegram counts a message's length in UTF-16 units after the tags are taken out,
Python counts code points; a text is cut here between two visible characters, and before it is escaped, so
that no cut ever splits a tag, an entity or a character. Which reply is due is left to the handlers, its
language to `bot.texts`.
"""

import html
import re
from dataclasses import dataclass

import regex

from bot.texts import Texts
from qa_engine import Answer

MAX_MESSAGE_UNITS = 4096
"""Telegram's limit: UTF-16 units of a message once its entities are parsed."""

MAX_VALUE_UNITS = 300
MAX_ANSWER_UNITS = 1000
MAX_UNITS_BESIDE_ANSWER = 200

_ELLIPSIS = "…"
_UNCARRIABLE = re.compile("[\0\ud800-\udfff]")
_SENTENCE_END = re.compile(r"[。！？!?；…]+[」』”’）》】〉)\]]*|[\r\n]+")
_VISIBLE_CHARACTER = regex.compile(r"\X")  # grapheme clusters, Unicode annex 29


@dataclass(frozen=True)
class Evidence:
    """The sentence that an answer stands in, in three parts, each no longer than is shown.

    `before + answer + after` is a piece of the context, apart from a "…" where it was cut.
    """

    before: str
    answer: str
    after: str


def units(text: str) -> int:
    """The length of `text` as Telegram counts it, in UTF-16 units."""
    return len(text) + sum(character > "\uffff" for character in text)


def readable(text: str) -> str:
    """`text` with a U+FFFD for each NUL and each lone surrogate: Telegram and databases cannot carry them.

    One character for one, so that offsets stay what they were.
    """
    return _UNCARRIABLE.sub("\ufffd", text)


def cut(text: str, max_units: int) -> str:
    """`text`, or as much of its beginning as leaves room for the "…" that shows the cut."""
    if len(text) <= max_units and units(text) <= max_units:
        return text
    room = max_units - units(_ELLIPSIS)
    end = 0
    for character in _VISIBLE_CHARACTER.finditer(text[: room + 1]):
        room -= units(character.group())
        if room < 0:
            break
        end = character.end()
    return text[:end] + _ELLIPSIS


def cut_beginning(text: str, max_units: int) -> str:
    """`text`, or as much of its end as leaves room for the "…" that shows the cut."""
    if len(text) <= max_units and units(text) <= max_units:
        return text
    room = max_units - units(_ELLIPSIS)
    tail = text[-room - 1 :]
    start = len(tail)
    for character in reversed(list(_VISIBLE_CHARACTER.finditer(tail))):
        room -= units(character.group())
        if room < 0:
            break
        start = character.start()
    return _ELLIPSIS + tail[start:]


def fill(template: str, **values: str | int) -> str:
    """A sentence of the bot with its `{values}` in place: texts cut to `MAX_VALUE_UNITS` and escaped.

    The template is the bot's own HTML and goes out as it is.
    """
    shown = {name: _value(value) if isinstance(value, str) else value for name, value in values.items()}
    return template.format_map(shown)


def quote(text: str) -> str:
    """The beginning of `text` as a block quote."""
    return f"<blockquote>{_value(text)}</blockquote>"


def percent(probability: float) -> str:
    """A probability in whole per cent, but never "0%" or "100%": no reader is that sure."""
    if probability < 0.01:
        return "<1%"
    return ">99%" if probability > 0.99 else f"{probability:.0%}"


def answer_found(texts: Texts, context: str, answer: Answer) -> str:
    """The answer, its confidence, and the sentence of `context` that it stands in, the answer highlighted."""
    evidence = sentence_around(context, answer.start, answer.end)
    shown = _escape(evidence.answer)
    confidence = fill(texts.gettext("Confidence: {confidence}"), confidence=percent(answer.score))
    return (
        f"<b>{shown}</b>\n{confidence}\n\n"
        f"<blockquote>{_escape(evidence.before)}<b><u>{shown}</u></b>{_escape(evidence.after)}</blockquote>"
    )


def no_answer(texts: Texts) -> str:
    """That the paragraph does not say, and how one might ask instead."""
    return texts.gettext(
        "<b>The answer is not in the paragraph</b>\n\n"
        "I only answer with words that stand there. Perhaps it says so in other words: name the person "
        "or thing in full, ask for one thing at a time, or use the paragraph's own words."
    )


def sentence_around(context: str, start: int, end: int) -> Evidence:
    """The sentence around `context[start:end]`: from the sentence or line end before it to the one after it.

    At most `MAX_UNITS_BESIDE_ANSWER` are kept on either side, and `MAX_ANSWER_UNITS` of the answer.
    """
    first = max(0, start - MAX_UNITS_BESIDE_ANSWER - 1)
    last = end + MAX_UNITS_BESIDE_ANSWER + 1
    for sentence_end in _SENTENCE_END.finditer(context, first, start):
        first = sentence_end.end()
    # From the answer's last character on: an answer may itself end the sentence.
    if sentence_end_after := _SENTENCE_END.search(context, max(start, end - 1), last):
        last = sentence_end_after.end()
    return Evidence(
        before=cut_beginning(context[first:start], MAX_UNITS_BESIDE_ANSWER).lstrip(),
        answer=cut(context[start:end], MAX_ANSWER_UNITS),
        after=cut(context[end:last], MAX_UNITS_BESIDE_ANSWER).rstrip(),
    )


def _value(text: str) -> str:
    return _escape(cut(text, MAX_VALUE_UNITS))


def _escape(text: str) -> str:
    return html.escape(readable(text), quote=False)
