"""SQuAD, CMRC 2018 and DRCD files and `datasets` folders become checked examples, or errors that name their place."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_engine.checkpoints import sha256_of
from qa_engine.errors import DataError
from trainer.__main__ import main
from trainer.squad import Example, Span, load, load_all, split_off

CONTEXT = "王羲之写了《兰亭序》。后来王羲之的儿子王献之也成了书法家。"

QA = dict[str, Any]
Write = Callable[..., str]


def answer(text: str, start: int) -> dict[str, Any]:
    return {"text": text, "answer_start": start}


def qa(identity: str, *answers: dict[str, Any], question: str = "谁？", **more: Any) -> QA:
    return {"id": identity, "question": question, "answers": list(answers), **more}


def squad(*qas: QA, context: str = CONTEXT) -> dict[str, Any]:
    return {"version": "1.1", "data": [{"title": "书法", "paragraphs": [{"context": context, "qas": list(qas)}]}]}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a document as a JSON file; returns the file's path."""

    def write(document: Any, name: str = "data.json") -> str:
        path = tmp_path / name
        path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        return str(path)

    return write


def test_squad_1_1_is_read_as_it_stands(write: Write) -> None:
    path = write(squad(qa("a", answer("王羲之", 0)), qa("b", answer("王献之", 19), question="谁的儿子？")))
    data_set = load(path)
    assert data_set.examples == (
        Example("a", "谁？", CONTEXT, ("王羲之",), Span("王羲之", 0)),
        Example("b", "谁的儿子？", CONTEXT, ("王献之",), Span("王献之", 19)),
    )
    assert (data_set.report.questions, data_set.report.impossible, data_set.report.moved) == (2, 0, 0)
    assert not any(example.is_impossible for example in data_set.examples)


def test_the_source_of_a_file_can_be_told_again(write: Write) -> None:
    path = write(squad(qa("a", answer("王羲之", 0))), "家.json")
    source = load(path).source
    assert (source.name, source.sha256, source.questions) == ("家.json", sha256_of(Path(path)), 1)


@pytest.mark.parametrize("answers", [[], [answer("张旭", 0)]], ids=["no answers", "plausible answers"])
def test_squad_2_0_says_which_questions_have_no_answer(write: Write, answers: list[dict[str, Any]]) -> None:
    path = write(squad(qa("a", answer("王羲之", 0), is_impossible=False), qa("b", *answers, is_impossible=True)))
    data_set = load(path)
    assert [example.is_impossible for example in data_set.examples] == [False, True]
    assert data_set.examples[1] == Example("b", "谁？", CONTEXT, (), None)
    assert data_set.report.impossible == 1
    assert "1 without an answer" in str(data_set.report)


def test_squad_2_0_may_leave_answers_out_where_there_are_none(write: Write) -> None:
    path = write(squad({"id": "a", "question": "谁？", "is_impossible": True}))
    assert load(path).examples[0].is_impossible


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_answer_says_that_there_is_none(write: Write, text: str) -> None:
    data_set = load(write(squad(qa("a", answer(text, -1)), qa("b", answer(text, -1), answer("王羲之", 0)))))
    assert [example.answers for example in data_set.examples] == [(), ("王羲之",)]
    assert data_set.examples[0].is_impossible
    assert data_set.report.impossible == 1


def test_cmrc_keeps_every_reference_and_places_the_first_that_stands(write: Write) -> None:
    references = [answer("王右军", -1), answer("儿子王献之", -1), answer("王献之", 19)]
    data_set = load(write(squad(qa("DEV_0_QUERY_0", *references))))
    assert data_set.examples[0].answers == ("王右军", "儿子王献之", "王献之")
    assert data_set.examples[0].span == Span("王献之", 19)
    assert data_set.report.moved == 0


def test_drcd_answers_may_carry_ids(write: Write) -> None:
    context = "臺北市立動物園於1914年創立於圓山。"
    document = squad(qa("1001-10-1", {"id": "1", **answer("1914年", 8)}), context=context)
    document["data"][0] |= {"id": "1001"}
    document["data"][0]["paragraphs"][0] |= {"id": "1001-10"}
    assert load(write(document)).examples == (Example("1001-10-1", "谁？", context, ("1914年",), Span("1914年", 8)),)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "excel.json"
    path.write_text(json.dumps(squad(qa("a", answer("王羲之", 0)))), encoding="utf-8-sig")
    assert len(load(str(path)).examples) == 1


def test_several_files_stay_apart_and_each_is_reported(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    first = write(squad(qa("1", answer("王羲之", 0))), "first.json")
    second = write(squad(qa("1", answer("王献之", 19)), qa("2", is_impossible=True)), "second.json")
    with caplog.at_level(logging.INFO):
        data_sets = load_all([first, second])
    assert [[example.id for example in one.examples] for one in data_sets] == [["1"], ["1", "2"]]
    assert caplog.messages == ["first.json: 1 questions", "second.json: 2 questions, 1 without an answer"]


@pytest.mark.parametrize(
    ("said", "stands"),
    [(0, 0), (1, 0), (6, 0), (7, 13), (12, 13), (14, 13), (-1, 0), (9999, 13)],
    ids=lambda value: str(value),
)
def test_an_answer_is_moved_to_the_nearest_occurrence(write: Write, said: int, stands: int) -> None:
    data_set = load(write(squad(qa("a", answer("王羲之", said)))))
    assert data_set.examples[0].span == Span("王羲之", stands)
    assert data_set.report.moved == (said != stands)


@given(
    context=st.text("甲乙丙", min_size=1, max_size=20), text=st.text("甲乙丙", min_size=1, max_size=3), said=st.data()
)
@settings(deadline=None)
def test_no_occurrence_is_nearer_than_the_one_that_is_taken(
    tmp_path_factory: pytest.TempPathFactory, context: str, text: str, said: st.DataObject
) -> None:
    start = said.draw(st.integers(-2, len(context) + 2))
    path = tmp_path_factory.getbasetemp() / "nearest.json"
    path.write_text(json.dumps(squad(qa("a", answer(text, start)), context=context)), encoding="utf-8")
    span = load(str(path)).examples[0].span
    distances = [abs(place - start) for place in range(len(context)) if context[place : place + len(text)] == text]
    if not distances:
        assert span is None
    else:
        assert span is not None
        assert context[span.start : span.end] == text
        assert abs(span.start - start) == min(distances)


def test_starts_count_characters_also_beyond_the_basic_plane(write: Write) -> None:
    context = "𠮷野家👨‍👩‍👧开在東京。"
    data_set = load(write(squad(qa("a", answer("東京", context.index("東京"))), context=context)))
    assert data_set.report.moved == 0
    span = data_set.examples[0].span
    assert span is not None
    assert context[span.start : span.end] == "東京"


@pytest.mark.parametrize("text", ["张旭", "王羲 之"])
def test_an_answer_that_stands_nowhere_is_counted_and_has_no_place(write: Write, text: str) -> None:
    path = write(squad(qa("here", answer("王羲之", 0)), qa("nowhere", answer(text, 0))))
    data_set = load(path)
    lost = data_set.examples[1]
    assert lost.span is None
    assert not lost.is_impossible, "its answer is not known, which is not the same as known to be missing"
    assert data_set.report.lost == ["nowhere"]
    assert "1 not to train on: their answer is not in the context (nowhere)" in str(data_set.report)


def test_empty_questions_are_left_out_and_counted(write: Write) -> None:
    blanks = ["", " ", "\u3000\t\n"]
    empty = [qa(f"empty-{number}", answer("王羲之", 0), question=blank) for number, blank in enumerate(blanks)]
    more = qa("empty-3", answer("王羲之", 0), question="")
    data_set = load(write(squad(*empty, more, qa("a", answer("王羲之", 0)))))
    assert [example.id for example in data_set.examples] == ["a"]
    assert data_set.report.questions == data_set.source.questions == 1
    assert "4 left out: the question is empty (empty-0, empty-1, empty-2, …)" in str(data_set.report)


GOOD = qa("a", answer("王羲之", 0))


def without(name: str) -> QA:
    return {key: value for key, value in GOOD.items() if key != name}


def paragraph(**fields: Any) -> dict[str, Any]:
    return {"data": [{"paragraphs": [fields]}]}


MALFORMED: list[tuple[str, Any, tuple[str, ...]]] = [
    ("a list at the top", [GOOD], ("expected an object with 'data'", "found list")),
    ("a string at the top", "text", ("expected an object with 'data'", "found str")),
    ("no data", {"version": "1.1"}, ("'data' is missing",)),
    ("data is an object", {"data": {}}, ("'data' should be list, found dict",)),
    ("an article is a list", {"data": [[]]}, ("data[0]", "'paragraphs'", "found list")),
    ("no paragraphs", {"data": [{"paragraphs": []}, {}]}, ("data[1]", "'paragraphs' is missing")),
    ("no context", paragraph(qas=[GOOD]), ("data[0].paragraphs[0]", "'context' is missing")),
    ("context is null", paragraph(context=None, qas=[]), ("paragraphs[0]", "'context' should be str, found NoneType")),
    ("no qas", paragraph(context=CONTEXT), ("data[0].paragraphs[0]", "'qas' is missing")),
    ("a qa is a string", squad(GOOD, "谁？"), ("qas[1]", "expected an object", "found str")),  # type: ignore[arg-type]
    ("no question", squad(without("question")), ("paragraphs[0].qas[0]", "'question' is missing")),
    ("question is a number", squad(qa("a", question=7)), ("qas[0]",)),  # type: ignore[arg-type]
    ("no answers field", squad(GOOD, without("answers") | {"id": "b"}), ("qas[1]", "'answers' is missing")),
    ("no answers", squad(qa("a")), ("qas[0]", "has no answers", '"is_impossible": true')),
    ("answers is an object", squad(without("answers") | {"answers": {}}), ("qas[0]", "'answers' should be list")),
    ("an answer is a string", squad(without("answers") | {"answers": ["王羲之"]}), ("qas[0].answers", "found str")),
    ("an answer without text", squad(without("answers") | {"answers": [{"answer_start": 0}]}), ("'text' is missing",)),
    (
        "an answer without start",
        squad(without("answers") | {"answers": [{"text": "王"}]}),
        ("'answer_start' is missing",),
    ),
    ("start is a string", squad(qa("a", {"text": "王", "answer_start": "0"})), ("qas[0]", "should be int, found str")),
    ("start is a boolean", squad(qa("a", {"text": "王", "answer_start": True})), ("should be int, found bool",)),
    ("start is a fraction", squad(qa("a", {"text": "王", "answer_start": 0.5})), ("should be int, found float",)),
    (
        "is_impossible is a string",
        squad(GOOD | {"is_impossible": "false"}),
        ("qas[0]", "'is_impossible' should be bool"),
    ),
    ("two questions of one id", squad(GOOD, GOOD), ("qas[1]", "id 'a'", "paragraphs[0].qas[0]")),
    ("no question at all", {"data": []}, ("holds no questions",)),
    ("empty questions only", squad(GOOD | {"question": ""}), ("holds no questions",)),
]


@pytest.mark.parametrize(("document", "named"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_a_malformed_file_is_refused_by_file_entry_and_expectation(
    write: Write, document: Any, named: tuple[str, ...]
) -> None:
    path = write(document)
    with pytest.raises(DataError) as refused:
        load(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for part in named:
        assert part in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"data": [\n  oops]}', "is not JSON: line 2: Expecting value"),
        (b"", "is not JSON: line 1"),
        ("{}王".encode("gb18030"), "is not UTF-8 at byte 2"),
    ],
)
def test_what_is_not_json_in_utf_8_is_refused_by_its_place(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="^" + str(path) + ": " + expected):
        load(str(path))


@pytest.mark.parametrize("name", ["nothing.json", "folder"])
def test_what_cannot_be_opened_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"cannot be read: (No such file|Is a directory)"):
        load(str(tmp_path / name))


@pytest.mark.parametrize("arguments", [["--train"], ["evaluate", "--data"]], ids=["train", "evaluate"])
def test_a_malformed_file_ends_the_command_with_one_line(
    write: Write, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(squad(without("question")), "bad.json")
    assert main([*arguments, path]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: {path}: data[0].paragraphs[0].qas[0]: 'question' is missing; expected SQuAD's layout"]
    assert "Traceback" not in captured.err


ROWS: dict[str, list[Any]] = {
    "id": ["a", "b", "c"],
    "context": [CONTEXT] * 3,
    "question": ["谁？", "谁的儿子？", "哪一年？"],
    "answers": [
        {"text": ["王羲之"], "answer_start": [12]},
        {"text": ["张旭"], "answer_start": [0]},
        {"text": [], "answer_start": []},
    ],
}


def test_a_saved_hub_data_set_is_read(tmp_path: Path) -> None:
    Dataset.from_dict(ROWS).save_to_disk(tmp_path / "saved")
    data_set = load(f"hf:{tmp_path / 'saved'}")
    assert data_set.examples == (
        Example("a", "谁？", CONTEXT, ("王羲之",), Span("王羲之", 13)),
        Example("b", "谁的儿子？", CONTEXT, ("张旭",), None),
        Example("c", "哪一年？", CONTEXT, (), None),
    )
    report = data_set.report
    assert (report.questions, report.moved, report.lost, report.impossible) == (3, 1, ["b"], 1)
    assert data_set.source.questions == 3
    assert data_set.source.sha256


def test_the_split_of_a_hub_data_set_can_be_named(tmp_path: Path) -> None:
    rows = Dataset.from_dict(ROWS)
    DatasetDict({"train": rows.select([0]), "trial": rows.select([1, 2])}).save_to_disk(tmp_path / "saved")
    source = f"hf:{tmp_path / 'saved'}"
    assert [example.id for example in load(source).examples] == ["a"]
    assert [example.id for example in load(f"{source}:trial").examples] == ["b", "c"]
    with pytest.raises(DataError, match=r"saved:test: cannot be loaded.*test"):
        load(f"{source}:test")


def test_a_hub_data_set_without_squads_columns_is_refused_by_what_it_has(tmp_path: Path) -> None:
    Dataset.from_dict({"id": ["a"], "text": ["王羲之"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        DataError, match=r"has columns \['id', 'text'\]; expected .*'answers', 'context', 'id', 'question'"
    ):
        load(f"hf:{tmp_path / 'saved'}")


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("question", None, "'question' should be str, found NoneType"),
        ("context", None, "'context' should be str, found NoneType"),
        ("answers", ["王羲之"], "'answers' should be dict, found list"),
        ("answers", {"text": ["王羲之"], "answer_start": [0, 1]}, "1 texts and 2 starts"),
        ("answers", {"text": [7], "answer_start": [0]}, "'text' should be str, found int"),
    ],
)
def test_a_malformed_row_of_a_hub_data_set_is_named(tmp_path: Path, column: str, value: Any, expected: str) -> None:
    row = {name: values[0] for name, values in ROWS.items()} | {column: value}
    Dataset.from_list([row]).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError) as refused:
        load(f"hf:{tmp_path / 'saved'}")
    assert "row 0" in str(refused.value)
    assert expected in str(refused.value)


def test_a_hub_name_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be loaded: "):
        load(f"hf:{tmp_path / 'empty'}")


def examples_on(contexts: list[str]) -> list[Example]:
    return [Example(str(number), "谁？", context, ("王",), None) for number, context in enumerate(contexts)]


@given(st.lists(st.text("甲乙丙丁", max_size=2), max_size=40), st.floats(0, 1), st.integers(0, 5))
@settings(deadline=None)
def test_splitting_off_keeps_every_example_once_and_whole_contexts_together(
    contexts: list[str], share: float, seed: int
) -> None:
    examples = examples_on(contexts)
    rest, held_back = split_off(examples, share, seed)
    assert sorted(rest + held_back, key=lambda one: int(one.id)) == examples
    assert not {one.context for one in rest} & {one.context for one in held_back}
    largest = max((contexts.count(context) for context in contexts), default=0)
    assert share * len(examples) <= len(held_back) <= share * len(examples) + largest


def test_splitting_off_depends_on_the_seed_and_on_nothing_else() -> None:
    examples = examples_on([f"第{number // 3}段" for number in range(90)])
    again = split_off(list(reversed(examples)), 0.2, seed=1)
    held_back = split_off(examples, 0.2, seed=1)[1]
    assert {one.id for one in held_back} == {one.id for one in again[1]}
    assert {one.id for one in held_back} != {one.id for one in split_off(examples, 0.2, seed=2)[1]}
