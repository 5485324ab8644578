"""Replies are valid Telegram HTML within Telegram's limits, whatever stands in contexts and answers."""

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from bot.replies import (
    MAX_ANSWER_UNITS,
    MAX_MESSAGE_UNITS,
    MAX_UNITS_BESIDE_ANSWER,
    answer_found,
    cut,
    cut_beginning,
    fill,
    percent,
    quote,
    readable,
    sentence_around,
    units,
)
from bot.texts import CHINESE, ENGLISH, texts_in
from qa_engine import Answer
from tests.system.bot_api_server import plain_text

ZH = texts_in(CHINESE)
FAMILY = "👨‍👩‍👧‍👦"

any_text = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=["Cs"]),
        st.sampled_from(["<", ">", "&", "b", "/", "。", "？", "」", "\n", "\0", "\u0301", "\u200d", "👧", "🇨", "🇳"]),
    )
)
long_text = st.builds(str.__mul__, any_text, st.integers(1, 400))


@st.composite
def contexts_with_a_span(draw: st.DrawFn) -> tuple[str, int, int]:
    context = draw(long_text.filter(bool))
    start = draw(st.integers(0, len(context) - 1))
    end = draw(st.integers(start + 1, len(context)))
    return context, start, end


def answer_at(context: str, start: int, end: int, score: float = 0.9) -> Answer:
    return Answer(context[start:end], start, end, score)


@given(contexts_with_a_span(), st.floats(0, 1), st.sampled_from([CHINESE, ENGLISH]))
@example(("&" * 5000, 0, 5000), 0.0, CHINESE)
@example(("😀" * 5000, 2000, 4500), 1.0, ENGLISH)
def test_an_answer_is_valid_html_within_telegram_s_limit(
    span: tuple[str, int, int], score: float, language: str
) -> None:
    message = answer_found(texts_in(language), span[0], answer_at(*span, score))
    assert 0 < units(plain_text(message)) <= MAX_MESSAGE_UNITS
    message.encode()


@given(any_text.filter(bool), st.text(max_size=50), long_text)
def test_a_short_answer_is_shown_in_full_twice(answer: str, before: str, after: str) -> None:
    context = before + answer + after
    message = plain_text(answer_found(ZH, context, answer_at(context, len(before), len(before + answer))))
    assert message.startswith(readable(cut(answer, MAX_ANSWER_UNITS)) + "\n")
    assert message.count(readable(cut(answer, MAX_ANSWER_UNITS))) >= 2


@given(contexts_with_a_span())
def test_evidence_is_the_text_around_the_answer(span: tuple[str, int, int]) -> None:
    context, start, end = span
    evidence = sentence_around(context, start, end)
    assert context[:start].endswith(evidence.before.removeprefix("…")) or context[:start].endswith(evidence.before)
    assert context[end:].startswith(evidence.after.removesuffix("…")) or context[end:].startswith(evidence.after)
    assert units(evidence.before) <= MAX_UNITS_BESIDE_ANSWER
    assert units(evidence.after) <= MAX_UNITS_BESIDE_ANSWER


@pytest.mark.parametrize(
    ("context", "answer", "sentence"),
    [
        ("前一句。他在湖人队。后一句。", "湖人队", "他在湖人队。"),
        ("他在湖人队", "湖人队", "他在湖人队"),
        ("真的？！他在湖人队……后一句。", "湖人队", "他在湖人队……"),
        ("他问：“是谁？”她说：“是小明。”然后走了。", "小明", "她说：“是小明。”"),
        ("第一行\n\n　　他在湖人队\r\n第三行", "湖人队", "他在湖人队"),
        ("前。整句都是。后。", "整句都是。", "整句都是。"),
        ("问句吗？跨过。两句的答案，后。", "跨过。两句", "跨过。两句的答案，后。"),
        ("小数3.5不是句号，他在湖人队；后一句。", "湖人队", "小数3.5不是句号，他在湖人队；"),
    ],
)
def test_a_sentence_ends_at_chinese_marks_and_line_ends(context: str, answer: str, sentence: str) -> None:
    start = context.index(answer)
    evidence = sentence_around(context, start, start + len(answer))
    assert evidence.before + evidence.answer + evidence.after == sentence


def test_a_long_sentence_is_cut_visibly_around_the_answer() -> None:
    context = "甲" * 900 + "答案" + "乙" * 900
    evidence = sentence_around(context, 900, 902)
    assert evidence.before == "…" + "甲" * (MAX_UNITS_BESIDE_ANSWER - 1)
    assert evidence.after == "乙" * (MAX_UNITS_BESIDE_ANSWER - 1) + "…"


@given(long_text, st.integers(1, 60))
@example(FAMILY * 9, 30)
@example("e" + "\u0301" * 99, 20)
def test_a_cut_is_visible_within_the_limit_and_between_two_characters(text: str, max_units: int) -> None:
    for shown, kept in (
        (cut(text, max_units), cut(text, max_units)[:-1]),
        (cut_beginning(text, max_units), cut_beginning(text, max_units)[1:]),
    ):
        assert units(shown) <= max_units
        if units(text) <= max_units:
            assert shown == text
        else:
            assert "…" in (shown[0], shown[-1])
            assert text.startswith(kept) or text.endswith(kept)
    if units(text) > max_units:
        boundaries = {0, *(match.end() for match in regex.finditer(r"\X", text))}
        assert len(cut(text, max_units)) - 1 in boundaries


@given(long_text, any_text)
def test_values_in_a_sentence_are_escaped_and_bounded(long: str, short: str) -> None:
    message = fill("<b>{long}</b> and {short}: {number:,}", long=long, short=short, number=1234567)
    assert units(plain_text(message)) <= MAX_MESSAGE_UNITS
    assert plain_text(message).endswith(": 1,234,567")
    assert plain_text(quote(long)) == readable(cut(long, 300))


@given(any_text)
def test_readable_text_can_be_carried_and_keeps_its_offsets(text: str) -> None:
    shown = readable(text)
    shown.encode()
    assert "\0" not in shown
    assert len(shown) == len(text)


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(0, "<1%"), (0.009, "<1%"), (0.01, "1%"), (0.5, "50%"), (0.99, "99%"), (0.996, ">99%"), (1, ">99%")],
)
def test_confidence_is_never_nothing_and_never_certain(probability: float, shown: str) -> None:
    assert percent(probability) == shown


@given(st.text())
def test_units_are_what_utf_16_needs(text: str) -> None:
    assert units(text) == len(text.encode("utf-16-le")) // 2
