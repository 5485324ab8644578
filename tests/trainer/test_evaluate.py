"""What an evaluation counts, with and without unanswerable questions."""

import pytest

from qa_engine import Answer, Reading
from trainer.evaluate import asks_of, evaluate
from trainer.squad import Example

CONTEXT = "王羲之写了《兰亭序》。"


def example(*answers: str, identity: str = "1") -> Example:
    return Example(identity, "谁？", CONTEXT, answers, None)


def reading(text: str = "", *, no_answer_score: float = 0.2, threshold: float = 0.5) -> Reading:
    answers = (Answer(text, 0, len(text), 1 - no_answer_score),) if text else ()
    return Reading(answers, no_answer_score, bool(text) and no_answer_score < threshold, "a checkpoint")


def test_examples_are_asked_as_they_stand() -> None:
    (ask,) = asks_of([example("王羲之")])
    assert (ask.question, ask.context, ask.top_k) == ("谁？", CONTEXT, 1)


def test_em_and_f1_are_per_cent_over_all_questions() -> None:
    examples = [example("王羲之"), example("王羲之"), example("王羲之"), example("《兰亭序》", "兰亭")]
    readings = [reading("王羲之"), reading("王羲"), reading(), reading("兰亭")]
    figures = evaluate(examples, readings).figures()
    assert figures["questions"] == 4
    assert figures["em"] == pytest.approx(50)
    assert figures["f1"] == pytest.approx(100 * (1 + 0.8 + 0 + 1) / 4)


def test_where_every_question_has_an_answer_an_unsure_one_counts() -> None:
    examples = [example("王羲之"), example("兰亭序")]
    readings = [reading("王羲之", no_answer_score=0.9), reading("兰亭序")]
    evaluation = evaluate(examples, readings)
    assert (evaluation.em, evaluation.f1) == (100, 100)
    assert evaluation.kept == 50, "that the reader would have abstained is told all the same"
    assert evaluation.figures().keys() == {"questions", "em", "f1", "kept"}


def test_where_some_have_none_abstaining_is_right_for_these_and_wrong_for_the_others() -> None:
    examples = [example("王羲之"), example("王羲之"), example("王羲之"), example(), example()]
    readings = [
        reading("王羲之"),
        reading("王羲之", no_answer_score=0.9),
        reading("王羲"),
        reading("兰亭序", no_answer_score=0.9),
        reading("兰亭序"),
    ]
    assert evaluate(examples, readings).figures() == pytest.approx(
        {
            "questions": 5,
            "em": 100 * 2 / 5,
            "f1": 100 * (1 + 0 + 0.8 + 1 + 0) / 5,
            "answerable_em": 100 * 1 / 3,
            "answerable_f1": 100 * 1.8 / 3,
            "kept": 100 * 2 / 3,
            "refused": 100 * 1 / 2,
        }
    )


def test_only_unanswerable_questions_can_be_measured_too() -> None:
    assert evaluate([example(), example()], [reading("王"), reading()]).figures() == {
        "questions": 2,
        "em": 50,
        "f1": 50,
        "refused": 50,
    }


def test_examples_of_several_files_may_share_an_id() -> None:
    examples = [example("王羲之", identity="1"), example("兰亭序", identity="1")]
    readings = [reading("王羲之"), reading("王羲之")]
    assert evaluate(examples, readings).em == 50
    assert evaluate([example("王羲之", identity="1"), example(identity="1")], readings).questions == 2
    assert evaluate([example("王羲之", identity="1"), example(identity="1")], readings).em == 50


def test_readings_that_do_not_match_the_examples_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        evaluate([example("王羲之"), example("王羲之")], [reading("王羲之")])
