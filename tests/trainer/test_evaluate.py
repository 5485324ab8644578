"""What an evaluation counts, with and without unanswerable questions."""

import random
from dataclasses import replace

import pytest

from qa_engine import Answer, Reading
from trainer.evaluate import RELIABILITY_BINS, asks_of, evaluate, question_type
from trainer.squad import Example

CONTEXT = "王羲之写了《兰亭序》。"
SCORES = {"auroc", "ece", "aurc"}


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
    assert evaluation.figures().keys() == {"questions", "em", "f1", "kept", "ece", "aurc"}


def test_where_some_have_none_abstaining_is_right_for_these_and_wrong_for_the_others() -> None:
    examples = [example("王羲之"), example("王羲之"), example("王羲之"), example(), example()]
    readings = [
        reading("王羲之"),
        reading("王羲之", no_answer_score=0.9),
        reading("王羲"),
        reading("兰亭序", no_answer_score=0.9),
        reading("兰亭序"),
    ]
    figures = evaluate(examples, readings).figures()
    assert {name: figures[name] for name in figures if name not in SCORES} == pytest.approx(
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
    figures = evaluate([example(), example()], [reading("王"), reading()]).figures()
    assert {name: figures[name] for name in figures if name not in SCORES} == {
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


def scored(probability: float, *, is_right: bool) -> tuple[Example, Reading]:
    """A question whose best answer has this probability."""
    return example("王羲之"), reading("王羲之" if is_right else "兰亭序", no_answer_score=1 - probability)


def test_auroc_is_the_share_of_pairs_that_the_no_answer_score_puts_in_order() -> None:
    examples = [example("王羲之"), example("王羲之"), example(), example()]
    scores = [0.1, 0.6, 0.5, 0.9]
    readings = [reading("王羲之", no_answer_score=one) for one in scores]
    assert evaluate(examples, readings).auroc == pytest.approx(3 / 4)
    assert evaluate(examples[:2], readings[:2]).auroc is None, "there is nothing to tell apart"


def test_scores_that_mean_what_they_say_have_no_calibration_error() -> None:
    honest = [scored(0.75, is_right=place % 4 != 0) for place in range(4 * RELIABILITY_BINS)]
    sure = [scored(0.95, is_right=is_right) for is_right in [True, False] * 30]
    assert evaluate(*zip(*honest, strict=True)).ece == pytest.approx(0)
    evaluation = evaluate(*zip(*sure, strict=True))
    assert evaluation.ece == pytest.approx(0.45)
    assert [one.questions for one in evaluation.reliability] == [60 // RELIABILITY_BINS] * RELIABILITY_BINS


def test_bins_hold_like_scores_and_equally_many_questions() -> None:
    draw = random.Random(0)
    probabilities = [draw.random() ** 3 for _ in range(307)]
    cases = [scored(one, is_right=draw.random() < one) for one in probabilities]
    bins = evaluate(*zip(*cases, strict=True)).reliability
    assert sum(one.questions for one in bins) == 307
    assert {one.questions for one in bins} == {20, 21}
    assert [one.score for one in bins] == sorted(one.score for one in bins)
    assert sum(one.questions * one.score for one in bins) == pytest.approx(sum(probabilities))


def test_the_best_span_of_a_question_without_an_answer_is_wrong_however_sure() -> None:
    evaluation = evaluate([example()], [reading("王羲之", no_answer_score=0.1)])
    assert evaluation.ece == pytest.approx(0.9)
    assert evaluation.aurc == 1


def test_coverage_grows_from_the_surest_answer_to_all_of_them() -> None:
    cases = [scored(0.9, is_right=True), scored(0.2, is_right=False), scored(0.8, is_right=True)]
    silent = (example("王羲之"), Reading((), 1.0, False, "a checkpoint"))  # an empty context: nothing was found
    evaluation = evaluate(*zip(*cases, silent, strict=True))
    points = [(point.coverage, point.precision, point.score) for point in evaluation.coverage]
    assert points == [
        (0.25, 1, pytest.approx(0.9)),
        (0.5, 1, pytest.approx(0.8)),
        (0.75, pytest.approx(2 / 3), pytest.approx(0.2)),
    ]
    assert evaluation.aurc == pytest.approx((0 + 0 + 1 / 3) / 3)


@pytest.mark.parametrize(
    ("questions", "expected"),
    [
        (["谁写了《兰亭序》？", "《蘭亭序》是誰寫的？", "哪位诗人是他的朋友？", "什麼人住在這裡？"], "who"),
        (["他何时出生？", "他是哪一年去世的？", "什么时候关门？", "這座橋在哪個世紀建成？", "几点开门？"], "when"),
        (["他住在哪里？", "會議在何處舉行？", "总部在哪个城市？", "工厂在哪？"], "where"),
        (["有多少人？", "一共有几层？", "他有多高？", "價格是多少？", "共有幾名學生？"], "how_many"),
        (["他为什么离开？", "為何關閉？", "停课的原因是什么？", "為甚麼會下雨？"], "why"),
        (["怎么去？", "如何報名？"], "how"),
        (["哪种颜色最好？", "哪個比較貴？", "他属于何种流派？"], "which"),
        (["他的职业是什么？", "這本書叫甚麼名字？", "他有何成就？"], "what"),
        (["他去过北京吗？", "是否免費？", "有没有停车场？"], "yes_no"),
        (["请说明理由。", "几乎全部", "嗎啡"], "other"),
    ],
)
def test_questions_are_told_apart_by_their_question_words(questions: list[str], expected: str) -> None:
    assert {question: question_type(question) for question in questions} == dict.fromkeys(questions, expected)


def test_figures_are_told_by_question_type_and_answer_length() -> None:
    examples = [
        replace(example("王羲之"), question="谁写的？"),
        replace(example("王羲之", "书法家王羲之"), question="誰寫的？"),
        replace(example("写了一篇后来非常有名的序"), question="他做了什么？"),
        replace(example(), question="谁？"),
    ]
    readings = [reading("王羲之"), reading("兰亭"), reading("写了一篇后来非常有名的序"), reading()]
    evaluation = evaluate(examples, readings)
    by_type = {name: (group.questions, group.em) for name, group in evaluation.by_question_type.items()}
    assert by_type == {"who": (3, pytest.approx(200 / 3)), "what": (1, 100)}
    by_length = {name: (group.questions, group.em) for name, group in evaluation.by_answer_length.items()}
    assert by_length == {"1-5": (2, 50), "11-20": (1, 100)}
