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

from bot.store import Context, Question
from bot.texts import N_, Texts

MAX_MESSAGE_UNITS = 4096
"""Telegram's limit: UTF-16 units of a message once its entities are parsed."""

MAX_VALUE_UNITS = 300
MAX_ANSWER_UNITS = 1000
MAX_UNITS_BESIDE_ANSWER = 200
MAX_UNITS_BESIDE_ANSWER_WIDE = 700
MAX_BUTTON_UNITS = 40

CONFIDENCE = ((0.8, N_("high")), (0.5, N_("fair")), (0.0, N_("low")))
"""From which probability on a word stands for it."""

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


def place_of(texts: Texts, context: Context, start: int) -> str:
    """Where in `context` the character `start` stands, in words: the number of its page, or else of its paragraph."""
    if page := context.page_at(start):
        return fill(texts.gettext("Page {number:,}"), number=page)
    before = context.text[: start + 1]
    number = sum(not line.isspace() for line in before.splitlines() if line)
    return fill(texts.gettext("Paragraph {number:,}"), number=max(1, number))


def confidence_in_words(texts: Texts, probability: float) -> str:
    """How sure the reader is: a word, and the probability in per cent."""
    word = next(word for least, word in CONFIDENCE if probability >= least)
    return fill(
        texts.gettext("Confidence: {word} ({confidence})"), word=texts.gettext(word), confidence=percent(probability)
    )


def answer_found(texts: Texts, question: Question, index: int = 0, *, is_wide: bool = False) -> str:
    """Candidate `index` of the question, the sentence that it stands in, its place, and how sure the reader is.

    `is_wide`: with more of the text around it. What is not the answer that was given says so above it.
    """
    context, candidate = question.context, question.candidates[index]
    around = text_around if is_wide else sentence_around
    evidence = around(context.text, candidate.start, candidate.end)
    shown = _escape(evidence.answer)
    facts = f"{place_of(texts, context, candidate.start)} · {confidence_in_words(texts, candidate.score)}"
    return (
        f"{_rank(texts, question, index)}<b>{shown}</b>\n\n"
        f"<blockquote>{_escape(evidence.before)}<b><u>{shown}</u></b>{_escape(evidence.after)}</blockquote>\n"
        f"{facts}"
    )


def _rank(texts: Texts, question: Question, index: int) -> str:
    if not question.is_answered and len(question.candidates) == 1:
        text = texts.gettext("A guess: the paragraph probably does not say")
    elif not question.is_answered:
        text = texts.gettext("A guess, {number} of {count}: the paragraph probably does not say")
    elif index > 0:
        text = texts.gettext("Answer {number} of {count}")
    else:
        return ""
    return f"<i>{fill(text, number=index + 1, count=len(question.candidates))}</i>\n"


def no_answer(texts: Texts) -> str:
    """That the paragraph does not say, and how one might ask instead."""
    return texts.gettext(
        "<b>The answer is not in the paragraph</b>\n\n"
        "I only answer with words that stand there. Perhaps it says so in other words: name the person "
        "or thing in full, ask for one thing at a time, or use the paragraph's own words."
    )


def correction_kept(texts: Texts, context: str, start: int, end: int) -> str:
    """That `context[start:end]` is kept as the right answer, shown where it stands."""
    evidence = sentence_around(context, start, end)
    thanks = texts.gettext("Thank you. This is kept as the right answer:")
    return (
        f"{thanks}\n"
        f"<blockquote>{_escape(evidence.before)}<b><u>{_escape(evidence.answer)}</u></b>{_escape(evidence.after)}"
        "</blockquote>"
    )


def button_label(text: str) -> str:
    """`text` on a button: one short line, which Telegram takes as it is."""
    return cut(" ".join(readable(text).split()), MAX_BUTTON_UNITS)


def sentence_around(context: str, start: int, end: int) -> Evidence:
    """The sentence around `context[start:end]`: from the sentence or line end before it to the one after it.

    At most `MAX_UNITS_BESIDE_ANSWER` are kept on either side, and `MAX_ANSWER_UNITS` of the answer.
    """
    room = MAX_UNITS_BESIDE_ANSWER
    first, last = max(0, start - room - 1), end + room + 1
    for sentence_end in _SENTENCE_END.finditer(context, first, start):
        first = sentence_end.end()
    # From the answer's last character on: an answer may itself end the sentence.
    if sentence_end_after := _SENTENCE_END.search(context, max(start, end - 1), last):
        last = sentence_end_after.end()
    return _evidence(context, first, start, end, last, room)


def text_around(context: str, start: int, end: int) -> Evidence:
    """As much of the text on either side of `context[start:end]` as MAX_UNITS_BESIDE_ANSWER_WIDE allows."""
    room = MAX_UNITS_BESIDE_ANSWER_WIDE
    return _evidence(context, max(0, start - room - 1), start, end, end + room + 1, room)


def _evidence(context: str, first: int, start: int, end: int, last: int, room: int) -> Evidence:
    return Evidence(
        before=cut_beginning(context[first:start], room).lstrip(),
        answer=cut(context[start:end], MAX_ANSWER_UNITS),
        after=cut(context[end:last], room).rstrip(),
    )


def _value(text: str) -> str:
    return _escape(cut(text, MAX_VALUE_UNITS))


def _escape(text: str) -> str:
    return html.escape(readable(text), quote=False)
