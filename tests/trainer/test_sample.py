"""The sample data set keeps what its card says.

Reads the JSON files directly: whether the trainer can read them is for the tests of `trainer.squad`.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "trainer" / "sample"
SPLITS = ("train", "dev")
TO_LEARN = (
    "everyday",
    "everyday-2",
    "everyday-3",
    "encyclopaedia",
    "encyclopaedia-2",
    "encyclopaedia-3",
    "encyclopaedia-4",
    "encyclopaedia-plain",
    "encyclopaedia-traditional",
    "encyclopaedia-traditional-2",
    "encyclopaedia-traditional-3",
    "encyclopaedia-traditional-4",
    "encyclopaedia-traditional-plain",
    "about",
)
TO_CALIBRATE = ("calibration", "calibration-2")
FILES = (*SPLITS, *TO_LEARN, *TO_CALIBRATE)

MAX_ANSWER_CHARACTERS = 40
SHARED_RUN_CHARACTERS = 12
PHRASE_CHARACTERS = 16  # 列为全国重点文物保护单位 stands in many articles, and says nothing


@dataclass(frozen=True)
class Question:
    id: str
    text: str
    answers: tuple[tuple[int, str], ...]  # (start in characters, text)
    is_impossible: bool


@dataclass(frozen=True)
class Paragraph:
    context: str
    questions: tuple[Question, ...]


def paragraphs(split: str) -> list[Paragraph]:
    document = json.loads((SAMPLE / f"{split}.json").read_text(encoding="utf-8"))
    assert document["version"] == "v2.0"
    return [
        Paragraph(
            context=paragraph["context"],
            questions=tuple(
                Question(
                    id=qa["id"],
                    text=qa["question"],
                    answers=tuple((answer["answer_start"], answer["text"]) for answer in qa["answers"]),
                    is_impossible=qa["is_impossible"],
                )
                for qa in paragraph["qas"]
            ),
        )
        for article in document["data"]
        for paragraph in article["paragraphs"]
    ]


def questions(split: str) -> list[Question]:
    return [question for paragraph in paragraphs(split) for question in paragraph.questions]


def runs(text: str, characters: int = SHARED_RUN_CHARACTERS) -> set[str]:
    """All substrings of so many characters."""
    return {text[start : start + characters] for start in range(len(text) - characters + 1)}


def everything_written() -> list[str]:
    return [
        text
        for split in SPLITS
        for paragraph in paragraphs(split)
        for text in (paragraph.context, *(question.text for question in paragraph.questions))
    ]


@pytest.mark.parametrize("split", FILES)
def test_every_answer_stands_where_its_start_says(split: str) -> None:
    misplaced = [
        (question.id, text)
        for paragraph in paragraphs(split)
        for question in paragraph.questions
        for start, text in question.answers
        if not text or paragraph.context[start : start + len(text)] != text
    ]
    assert misplaced == []


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_short_and_carry_no_space_or_stop_at_their_edges(split: str) -> None:
    edge = re.compile(r"^[\s，。、；：！？,.;:!?]|[\s，。、；：！？,.;:!?]$")
    loose = [
        (question.id, text)
        for question in questions(split)
        for _, text in question.answers
        if len(text) > MAX_ANSWER_CHARACTERS or edge.search(text)
    ]
    assert loose == []


@pytest.mark.parametrize(("split", "most_answers"), [("train", 1), ("dev", 3)])
def test_a_question_has_distinct_answers_unless_it_is_impossible(split: str, most_answers: int) -> None:
    for question in questions(split):
        assert question.is_impossible == (not question.answers), question.id
        assert len(question.answers) <= most_answers, question.id
        assert len(set(question.answers)) == len(question.answers), question.id


def test_ids_are_unique_and_name_split_paragraph_and_question() -> None:
    seen = [question.id for split in SPLITS for question in questions(split)]
    expected = [
        f"sample-{split}-{paragraph_number:03d}-{question_number}"
        for split in SPLITS
        for paragraph_number, paragraph in enumerate(paragraphs(split), start=1)
        for question_number, _ in enumerate(paragraph.questions, start=1)
    ]
    assert seen == expected


@pytest.mark.parametrize(("split", "fewest_paragraphs", "fewest_questions"), [("train", 36, 150), ("dev", 12, 50)])
def test_there_is_enough_to_learn_from_and_to_measure(
    split: str, fewest_paragraphs: int, fewest_questions: int
) -> None:
    assert len(paragraphs(split)) >= fewest_paragraphs
    assert len(questions(split)) >= fewest_questions


@pytest.mark.parametrize("split", SPLITS)
def test_about_a_fifth_of_the_questions_is_unanswerable(split: str) -> None:
    share = sum(question.is_impossible for question in questions(split)) / len(questions(split))
    assert 0.17 <= share <= 0.23


@pytest.mark.parametrize("split", FILES)
def test_the_card_tells_the_true_counts(split: str) -> None:
    impossible = sum(question.is_impossible for question in questions(split))
    row = f"| `{split}.json` | {len(paragraphs(split)):,} | {len(questions(split)):,} | {impossible} |"
    assert row in (SAMPLE / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("split", FILES)
def test_no_paragraph_is_asked_the_same_question_twice(split: str) -> None:
    for paragraph in paragraphs(split):
        repeated = [text for text, n in Counter(q.text for q in paragraph.questions).items() if n > 1]
        assert repeated == []


def test_no_two_paragraphs_share_a_passage() -> None:
    held_by = Counter(run for split in SPLITS for paragraph in paragraphs(split) for run in runs(paragraph.context))
    assert [run for run, n in held_by.items() if n > 1] == []


def test_paragraphs_have_the_length_of_a_message() -> None:
    lengths = [len(paragraph.context) for split in SPLITS for paragraph in paragraphs(split)]
    assert min(lengths) >= 120
    assert max(lengths) <= 450


def test_simplified_and_traditional_latin_and_emoji_are_all_there() -> None:
    contexts = [paragraph.context for split in SPLITS for paragraph in paragraphs(split)]
    assert sum("這" in c or "為" in c or "於" in c for c in contexts) >= 6
    assert sum("这" in c or "为" in c or "们" in c for c in contexts) >= 20
    assert sum(bool(re.search(r"[A-Za-z]{4,}", c)) for c in contexts) >= 6
    assert sum(bool(re.search(r"[\U0001F300-\U0001FAFF]", c)) for c in contexts) >= 4


def test_nothing_of_the_demo_is_in_the_data() -> None:
    demo_runs = runs((ROOT / "bot" / "demo.txt").read_text(encoding="utf-8"))
    assert demo_runs
    others = [paragraph.context for name in (*TO_LEARN, *TO_CALIBRATE) for paragraph in paragraphs(name)]
    assert [text for text in [*everything_written(), *others] if runs(text) & demo_runs] == []


def test_texts_to_measure_and_to_calibrate_on_are_not_among_those_to_learn_from() -> None:
    document = json.loads((ROOT / "benchmarks" / "everyday.json").read_text(encoding="utf-8"))
    measured = [paragraph["context"] for article in document["data"] for paragraph in article["paragraphs"]]
    assert len(measured) == 20
    apart = [*measured, *(paragraph.context for name in ("dev", *TO_CALIBRATE) for paragraph in paragraphs(name))]
    learned = [paragraph.context for name in ("train", *TO_LEARN) for paragraph in paragraphs(name)]
    learned_runs = {run for context in learned for run in runs(context, PHRASE_CHARACTERS)}
    assert [context for context in apart if runs(context, PHRASE_CHARACTERS) & learned_runs] == []


@pytest.mark.parametrize("word", ["詹姆斯", "NBA", "篮球", "籃球", "图书馆", "圖書館"])
def test_the_subjects_of_the_demo_stay_unseen(word: str) -> None:
    assert [text for text in everything_written() if word in text] == []
