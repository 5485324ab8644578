"""From what users say to examples: where an answer stands, what most hold for right, a file that is trained on."""

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import BotError
from bot.learning import MARKS, examples, export, located
from bot.store import Judgement, Verdict
from trainer.squad import load

TEXT = "甲身高180厘米，乙身高180厘米，丙身高１７５ＣＭ。臺灣與日本。"
FIRST, SECOND = (3, 8), (12, 17)
seconds = count()


def said(
    user_id: int,
    verdict: Verdict,
    span: tuple[int, int] | None = None,
    *,
    given: tuple[int, int] | None = FIRST,
    question: str = "乙有多高？",
    context: str = TEXT,
) -> Judgement:
    at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=next(seconds))
    return Judgement(context, question, user_id, verdict, given, given if verdict is Verdict.RIGHT else span, at)


@pytest.mark.parametrize(
    ("words", "near", "found"),
    [
        ("180厘米", 0, FIRST),
        ("180厘米", 14, SECOND),
        (" 180厘米。\n", 14, SECOND),
        ("“180厘米”", 0, FIRST),
        ("乙身高180厘米，丙", 0, (9, 19)),
        ("175cm。", 0, (21, 26)),
        ("台湾", 0, (27, 29)),
        ("臺灣", 0, (27, 29)),
        ("190厘米", 0, None),
        ("", 0, None),
        ("。。", 0, None),
    ],
)
def test_words_are_found_next_to_the_given_answer_whatever_their_script_and_width(
    words: str, near: int, found: tuple[int, int] | None
) -> None:
    assert TEXT[slice(*FIRST)] == TEXT[slice(*SECOND)] == "180厘米"
    assert located(TEXT, words, near) == found


@given(st.text(), st.text(), st.text().map(lambda words: words.strip(MARKS)).filter(bool))
def test_words_of_the_text_are_found_where_they_stand(before: str, after: str, words: str) -> None:
    text = before + words + after
    assert located(text, words, len(before)) == (len(before), len(before + words))


def test_what_most_users_hold_for_right_wins() -> None:
    [example] = examples(
        [said(1, Verdict.RIGHT), said(2, Verdict.WRONG, SECOND), said(3, Verdict.WRONG, SECOND), said(4, Verdict.WRONG)]
    )
    assert example.span == SECOND


def test_a_draw_and_a_mere_thumb_down_teach_nothing() -> None:
    assert examples([said(1, Verdict.RIGHT), said(2, Verdict.WRONG, SECOND)]) == []
    assert examples([said(1, Verdict.WRONG)]) == []
    assert examples([said(1, Verdict.RIGHT), said(2, Verdict.WRONG)]) == []


def test_the_last_word_of_a_user_counts_once() -> None:
    [example] = examples([said(1, Verdict.RIGHT), said(1, Verdict.RIGHT), said(1, Verdict.WRONG, SECOND)])
    assert example.span == SECOND


def test_that_the_text_does_not_say_can_be_taught() -> None:
    [example] = examples([said(1, Verdict.ABSENT)])
    assert example.span is None


def test_fewer_users_than_asked_for_teach_nothing() -> None:
    both = [said(1, Verdict.WRONG, SECOND), said(2, Verdict.WRONG, SECOND)]
    assert len(examples(both, min_agreement=2)) == 1
    assert examples(both, min_agreement=3) == []
    assert examples(both[:1], min_agreement=2) == []


def test_one_question_on_one_text_is_one_example_with_a_stable_id() -> None:
    ways = ["乙有多高？", "乙有多高", "乙有多高?", " 乙有多高？ "]
    judged = [said(user, Verdict.WRONG, SECOND, question=way) for user, way in enumerate(ways)]
    [example] = examples(judged)
    [same] = examples(judged[:1])
    assert example.id == same.id
    other = examples([said(1, Verdict.WRONG, SECOND), said(1, Verdict.RIGHT, context=TEXT + "。")])
    assert len({one.id for one in other}) == 2


def test_the_trainer_takes_the_file_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "corrections.json"
    judged = [said(1, Verdict.WRONG, SECOND), said(1, Verdict.ABSENT, question="丁有多高？")]
    assert export(judged, file) == 2
    data = load(str(file))
    assert [(one.question, one.answers, one.span and one.span.start) for one in data.examples] == [
        ("丁有多高？", (), None),
        ("乙有多高？", ("180厘米",), SECOND[0]),
    ]
    assert data.report.moved == 0
    assert [path.name for path in tmp_path.iterdir()] == ["corrections.json"]


def test_nothing_to_write_and_nowhere_to_write_are_told(tmp_path: Path) -> None:
    with pytest.raises(BotError, match="nothing to export"):
        export([], tmp_path / "corrections.json")
    with pytest.raises(BotError, match=r"Cannot write .*corrections\.json"):
        export([said(1, Verdict.RIGHT)], tmp_path / "no" / "corrections.json")
