"""Traditional and Simplified: which script a text is in, and questions put into the one of their context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_engine import Reader
from qa_engine.scripts import Script, folded, in_script, script_of

TRADITIONAL = "臺灣的總統府位於臺北市，於一九一九年完工。"
SIMPLIFIED = "台湾的总统府位于台北市，于一九一九年完工。"


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (TRADITIONAL, Script.TRADITIONAL),
        (SIMPLIFIED, Script.SIMPLIFIED),
        ("皇后在公里之外，台上有人。", None),  # 后, 里 and 台 exist in both
        ("一二三", None),
        ("How tall is he?", None),
        ("", None),
        ("这本书引用了「國」一个字，说的是别的。", Script.SIMPLIFIED),
    ],
)
def test_the_script_is_told_by_the_characters_that_only_one_has(text: str, script: Script | None) -> None:
    assert script_of(text) is script


@pytest.mark.parametrize(
    ("context", "question", "asked"),
    [
        (TRADITIONAL, "总统府在哪里？", "總統府在哪裡？"),
        (SIMPLIFIED, "總統府在哪裡？", "总统府在哪里？"),
        (TRADITIONAL, "總統府在哪裡？", "總統府在哪裡？"),
        (SIMPLIFIED, "总统府在哪里？", "总统府在哪里？"),
        ("一二三。", "總統府？", "總統府？"),
        (TRADITIONAL, "Who? 3 + 4", "Who? 3 + 4"),
        ("頭髮很長。", "谁的头发？", "誰的頭髮？"),
    ],
)
def test_a_question_is_put_into_the_script_of_its_context_only_where_they_differ(
    context: str, question: str, asked: str
) -> None:
    assert in_script(question, script_of(context)) == asked


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load()


def test_a_reader_answers_across_scripts_with_the_text_s_own_words(reader: Reader) -> None:
    for context, question in ((TRADITIONAL, "总统府是哪一年完工的？"), (SIMPLIFIED, "總統府是哪一年完工的？")):
        answer = reader.read(question, context).best
        assert answer
        assert answer.text == "一九一九年"
        assert context[answer.start : answer.end] == answer.text


def test_the_script_of_the_question_changes_no_answer(reader: Reader) -> None:
    one, other = (reader.read(question, TRADITIONAL) for question in ("總統府位於哪裡？", "总统府位于哪里？"))
    assert one == other


@given(st.text())
def test_folding_keeps_every_offset(text: str) -> None:
    assert len(folded(text)) == len(text)


@given(st.text(), st.text())
def test_any_text_can_be_asked_in_any_script(context: str, question: str) -> None:
    in_script(question, script_of(context)).encode("utf-8", "surrogatepass")


def test_script_width_and_case_are_folded() -> None:
    assert folded("ＡＢｃ１２３臺灣（甲）") == "abc123台湾(甲)"
