"""Calibration is fitted on what was held back: known scales are found again, the threshold keeps its promise."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_engine import Ask
from qa_engine.checkpoints import Calibration
from qa_engine.reader import Candidates
from trainer.calibrate import FEWEST_QUESTIONS, KEPT_SHARE, fit, fit_scale, fit_threshold, off_topic
from trainer.squad import Example

CONTEXT = "王羲之和谢安写了很多字。"
RIGHT, WRONG = (0, 3), (4, 6)


def example(*answers: str, context: str = CONTEXT, question: str = "谁？", identity: str = "1") -> Example:
    return Example(identity, question, context, answers, None)


def candidates(spans: list[tuple[int, int]], scores: list[float], null_score: float) -> Candidates:
    return Candidates(
        Ask("谁？", CONTEXT), np.array(spans).reshape(-1, 2), np.array(scores), null_score, "a checkpoint"
    )


def drawn(count: int, temperature: float, bias: float = 0.0, seed: int = 0) -> tuple[list[Example], list[Candidates]]:
    """Questions whose best span is right as often as its probability with this temperature and bias says."""
    draw = random.Random(seed)
    examples, found = [], []
    for _ in range(count):
        scores = sorted((draw.gauss(0, 3) for _ in range(4)), reverse=True)
        spans = [RIGHT, (7, 8), (8, 9), (9, 10)]
        one = candidates(spans, scores, draw.gauss(-2, 2))
        calibration = Calibration(temperature=temperature, bias=bias)
        is_right = draw.random() < one.reading(calibration).answers[0].score
        examples.append(example("王羲之" if is_right else "谢安"))
        found.append(one)
    return examples, found


@pytest.mark.parametrize(("temperature", "bias"), [(0.5, 0.0), (1.0, 0.7), (3.0, -0.7)])
def test_the_temperature_and_bias_that_answers_were_drawn_with_are_found_again(temperature: float, bias: float) -> None:
    found = fit_scale(*drawn(6000, temperature, bias))
    assert found is not None
    assert found[0] == pytest.approx(temperature, rel=0.15)
    assert found[1] == pytest.approx(bias, abs=0.15)


def test_a_fitted_scale_makes_probabilities_mean_what_they_say() -> None:
    fitted = fit(*drawn(3000, 3.0), [], Calibration())
    assert fitted.ece is not None
    before, after = fitted.ece
    assert before > 0.15
    assert after < 0.04


@pytest.mark.parametrize("answer", ["王羲之", "谢安"])
def test_no_scale_is_fitted_where_all_are_right_or_all_wrong(answer: str) -> None:
    _, found = drawn(200, 1.0)
    assert fit_scale([example(answer)] * 200, found) is None


score = st.floats(0, 1).map(lambda number: round(number, 9))  # between two of them there is a number
scores = st.lists(st.one_of(score, st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=60)


@given(answerable=scores, impossible=scores)
@settings(deadline=None)
def test_no_threshold_refuses_more_and_keeps_as_many_as_it_must(
    answerable: list[float], impossible: list[float]
) -> None:
    def kept(threshold: float) -> float:
        return sum(score < threshold for score in answerable) / len(answerable)

    def refused(threshold: float) -> float:
        return sum(score >= threshold for score in impossible) / len(impossible)

    threshold = fit_threshold(np.array(answerable), np.array(impossible))
    assert 0 <= threshold <= 1
    every = [*answerable, *impossible, 0.0, 1.0]
    others = {*every, *(min(1.0, float(np.nextafter(score, 2))) for score in every)}
    able = [other for other in others if kept(other) >= KEPT_SHARE]
    if able:
        assert kept(threshold) >= KEPT_SHARE
        assert refused(threshold) >= max(refused(other) for other in able)
    else:
        assert kept(threshold) == max(kept(other) for other in others)


def test_a_threshold_between_two_heaps_lies_in_the_middle_of_the_gap() -> None:
    assert fit_threshold(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == pytest.approx(0.5)


def sure(count: int, null_score: float) -> list[Candidates]:
    return [candidates([RIGHT], [0.0], null_score + place / 1000) for place in range(count)]


def test_off_topic_pairs_give_a_threshold_where_all_questions_have_answers() -> None:
    count = FEWEST_QUESTIONS
    examples = [example("王羲之" if place % 4 else "谢安") for place in range(count)]
    fitted = fit(examples, sure(count, -3), sure(count, 3), Calibration(no_answer_threshold=0.01))
    assert fitted.is_threshold_fitted
    assert (fitted.kept, fitted.refused) == (100, 100)
    assert 0.05 < fitted.calibration.no_answer_threshold < 0.95
    assert "keeps 100.0 % of the questions with an answer and refuses 100.0 % of those without" in str(fitted)


def test_too_few_held_back_questions_change_nothing() -> None:
    base = Calibration(temperature=1.7, no_answer_threshold=0.3)
    examples, found = drawn(FEWEST_QUESTIONS - 1, 3.0)
    fitted = fit(examples, found, sure(200, 3), base)
    assert fitted.calibration == base
    assert not fitted.is_scale_fitted
    assert "not calibrated" in str(fitted)
    assert "--hold_back" in str(fitted)
    assert fit([], [], [], base).calibration == base


def test_without_unanswerable_questions_the_threshold_stays_the_bases() -> None:
    examples, found = drawn(200, 3.0)
    fitted = fit(examples, found, [], Calibration(no_answer_threshold=0.3))
    assert fitted.is_scale_fitted
    assert fitted.calibration.no_answer_threshold == 0.3


def test_an_empty_context_is_an_unanswerable_question_and_breaks_nothing() -> None:
    examples, found = drawn(200, 2.0)
    empty = candidates([], [], 0.0)
    with_empty = fit([*examples, example()], [*found, empty], [empty] * 100, Calibration())
    assert (with_empty.calibration.temperature, with_empty.calibration.bias) == fit_scale(examples, found)
    assert with_empty.refused == 100


def on_many_contexts(count: int) -> list[Example]:
    """Every third question has no answer."""
    places = range(count)
    return [
        example(
            *([f"{place}号"] if place % 3 else []),
            context=f"第{place}段，{place}号。",
            question=f"{place}？",
            identity=str(place),
        )
        for place in places
    ]


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_off_topic_pairs_join_a_question_to_a_context_that_does_not_hold_its_answer(count: int) -> None:
    examples = on_many_contexts(30)
    pairs = off_topic(examples, count, seed=3)
    assert len(pairs) == len({(pair.id, pair.context) for pair in pairs}) == count
    answers = {f"{one.id}/off-topic": (one.context, one.answers) for one in examples}
    for pair in pairs:
        context, texts = answers[pair.id]
        assert texts, "only what could be answered becomes unanswerable"
        assert pair.is_impossible
        assert pair.span is None
        assert pair.context != context
        assert not any(text in pair.context for text in texts)
    assert max((len(list(some)) for _, some in itertools.groupby(sorted(pair.id for pair in pairs))), default=0) <= 2


def test_a_question_that_is_asked_of_many_texts_is_off_topic_on_none_of_these() -> None:
    venues = [example(f"{price}元", context=f"门票{price}元。", question="门票多少钱？") for price in range(30, 60)]
    assert off_topic(venues, 20, seed=0) == []
    others = [example("王羲之"), example("张旭", context="张旭写过草书。", question="谁写过草书？")]
    pairs = off_topic([*venues, *others], 40, seed=0)
    assert {pair.context for pair in pairs if pair.question == "门票多少钱？"} == {one.context for one in others}


def test_off_topic_pairs_depend_on_the_seed_alone() -> None:
    examples = on_many_contexts(30)
    assert off_topic(examples, 15, seed=1) == off_topic(examples, 15, seed=1) != off_topic(examples, 15, seed=2)


@pytest.mark.parametrize(
    "examples",
    [[], [example("王羲之")] * 3, [example("的", context="的一"), example("的", context="一的")]],
    ids=["nothing", "a single context", "answers that stand everywhere"],
)
def test_where_no_pair_can_be_made_there_is_none(examples: list[Example]) -> None:
    assert off_topic(examples, 5, seed=0) == []
