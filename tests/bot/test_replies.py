"""Replies are valid Telegram HTML within Telegram's limits, whatever stands in contexts and answers."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from bot.replies import (
    MAX_ANSWER_UNITS,
    MAX_MESSAGE_UNITS,
    MAX_UNITS_BESIDE_ANSWER,
    answer_found,
    button_label,
    confidence_in_words,
    cut,
    cut_beginning,
    fill,
    percent,
    place_of,
    quote,
    readable,
    sentence_around,
    units,
)
from bot.store import Author, Candidate, Context, Question
from bot.texts import CHINESE, ENGLISH, texts_in
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


def asked(context: str, *candidates: Candidate, is_answered: bool = True) -> Question:
    kept = Context(1, 1, context, Author(1, "Li"), None, datetime.now(UTC))
    return Question(1, kept, "谁？", is_answered, candidates)


@given(contexts_with_a_span(), st.floats(0, 1), st.sampled_from([CHINESE, ENGLISH]), st.booleans(), st.booleans())
@example(("&" * 5000, 0, 5000), 0.0, CHINESE, True, False)
@example(("😀" * 5000, 2000, 4500), 1.0, ENGLISH, True, True)
def test_an_answer_is_valid_html_within_telegram_s_limit(
    span: tuple[str, int, int], score: float, language: str, is_wide: bool, is_answered: bool
) -> None:
    question = asked(span[0], Candidate(span[1], span[2], score), is_answered=is_answered)
    message = answer_found(texts_in(language), question, is_wide=is_wide)
    assert 0 < units(plain_text(message)) <= MAX_MESSAGE_UNITS
    message.encode()


@given(any_text.filter(bool), st.text(max_size=50), long_text)
def test_a_short_answer_is_shown_in_full_twice(answer: str, before: str, after: str) -> None:
    context = before + answer + after
    question = asked(context, Candidate(len(before), len(before + answer), 0.9))
    message = plain_text(answer_found(ZH, question))
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


def test_what_is_not_the_given_answer_says_so_above_it() -> None:
    two = (Candidate(0, 1, 0.6), Candidate(2, 3, 0.3))
    assert answer_found(ZH, asked("甲。乙。", *two)).startswith("<b>甲</b>")
    assert answer_found(ZH, asked("甲。乙。", *two), 1).startswith("<i>其他答案（2/2）</i>\n<b>乙</b>")
    assert answer_found(ZH, asked("甲。乙。", *two, is_answered=False)).startswith(
        "<i>猜测（1/2）：段落里可能没有答案</i>\n"
    )


def test_more_of_the_text_holds_the_sentences_around() -> None:
    question = asked("前一句。他在湖人队。后一句。", Candidate(6, 9, 0.9))
    assert "前一句" not in answer_found(ZH, question)
    assert "前一句。他在<b><u>湖人队</u></b>。后一句。" in answer_found(ZH, question, is_wide=True)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("答案", "第 1 段"),
        ("\n\n  \n答案", "第 1 段"),
        ("一。\n\n二。\r\n\u3000\n答案。\n四。", "第 3 段"),
        ("一。\n答案\n三。", "第 2 段"),
    ],
)
def test_the_place_counts_lines_that_are_not_blank(text: str, place: str) -> None:
    assert place_of(ZH, asked(text).context, text.index("答案")) == place


def test_in_a_file_with_pages_the_place_is_the_page() -> None:
    context = replace(asked("第一页。\n第二页有答案。").context, page_starts=(0, 5))
    assert place_of(ZH, context, 0) == "第 1 页"
    assert place_of(ZH, context, 9) == "第 2 页"


@pytest.mark.parametrize(("score", "words"), [(0.95, "高（95%）"), (0.5, "中等（50%）"), (0.001, "低（&lt;1%）")])
def test_confidence_is_told_in_a_word_and_per_cent(score: float, words: str) -> None:
    assert confidence_in_words(ZH, score) == f"置信度：{words}"


@given(any_text)
def test_a_button_carries_one_short_line(text: str) -> None:
    label = button_label(text)
    assert units(label) <= 40
    assert "\n" not in label
    label.encode()
