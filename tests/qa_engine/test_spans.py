"""The best spans of a window are those that a plain search over all of its pairs finds."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qa_engine.spans import TokenSpans, best_spans

Tables = tuple[Tensor, Tensor, Tensor]
Pairs = dict[tuple[int, int], float]
score = st.integers(-50, 50).map(float)  # sums are exact, and ties are common


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    """Start scores, end scores, mask: some windows shorter than others, as the reader pads them."""
    windows, width = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    starts, ends = (
        torch.tensor(
            draw(st.lists(st.lists(score, min_size=width, max_size=width), min_size=windows, max_size=windows))
        )
        for _ in range(2)
    )
    mask = torch.zeros(windows, width, dtype=torch.bool)
    for row in range(windows):
        length = draw(st.integers(1, width))
        first = draw(st.integers(1, length))
        mask[row, first : draw(st.integers(first, length))] = True
    return starts, ends, mask


def all_pairs(starts: Tensor, ends: Tensor, mask: Tensor, max_answer_tokens: int) -> Pairs:
    """(start, end) → score of one window, by the definition."""
    return {
        (start, end): float(starts[start] + ends[end])
        for start, end in product(range(len(starts)), repeat=2)
        if mask[start] and mask[end] and start <= end < start + max_answer_tokens
    }


def found_in(spans: TokenSpans, window: int) -> Pairs:
    columns = (spans.start_tokens[window], spans.end_tokens[window], spans.scores[window])
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    found = {(start, end): total for start, end, total in rows if total > float("-inf")}
    assert [total for _, _, total in rows] == sorted((total for _, _, total in rows), reverse=True)
    assert len(found) == sum(total > float("-inf") for _, _, total in rows)
    return found


@settings(deadline=None, max_examples=150)
@given(tables(), st.integers(1, 12))
def test_the_best_span_is_found_then_the_best_beside_it_and_so_on(scores: Tables, max_answer_tokens: int) -> None:
    spans = best_spans(*scores, max_answer_tokens=max_answer_tokens, count=99)
    for window, rows in enumerate(zip(*scores, strict=True)):
        pairs = all_pairs(*rows, max_answer_tokens)
        for (start, end), total in found_in(spans, window).items():
            assert pairs[start, end] == total == max(pairs.values())
            pairs = {pair: value for pair, value in pairs.items() if pair[1] < start or pair[0] > end}
        assert not pairs


@settings(deadline=None)
@given(tables(), st.integers(1, 4))
def test_of_many_the_best_are_kept(scores: Tables, count: int) -> None:
    some = best_spans(*scores, max_answer_tokens=5, count=count)
    all_of_them = best_spans(*scores, max_answer_tokens=5, count=99)
    assert some.scores.tolist() == all_of_them.scores[:, :count].tolist()


@settings(deadline=None)
@given(tables())
def test_a_window_s_null_score_is_that_of_its_first_token(scores: Tables) -> None:
    starts, ends, _ = scores
    spans = best_spans(*scores, max_answer_tokens=5, count=5)
    assert spans.null_scores.tolist() == (starts[:, 0] + ends[:, 0]).tolist()


def test_of_two_answers_with_one_score_the_long_span_that_joins_them_does_not_hide_one() -> None:
    starts = torch.tensor([[0.0, 9.0, -9.0, -9.0, 7.0, -9.0]])  # 早上 九点 至 晚上 九点
    ends = torch.tensor([[0.0, -9.0, 9.0, -9.0, -9.0, 8.0]])
    mask = torch.tensor([[False, True, True, True, True, True]])
    found = found_in(best_spans(starts, ends, mask, max_answer_tokens=5, count=2), 0)
    assert found == {(1, 2): 18.0, (4, 5): 15.0}


def test_a_word_more_or_less_is_no_other_answer() -> None:
    starts = torch.tensor([[0.0, 9.0, 8.0, -9.0, 5.0, -9.0]])
    ends = torch.tensor([[0.0, -9.0, 9.0, 8.0, -9.0, 5.0]])
    mask = torch.tensor([[False, True, True, True, True, True]])
    found = found_in(best_spans(starts, ends, mask, max_answer_tokens=4, count=2), 0)
    assert found == {(1, 2): 18.0, (4, 5): 10.0}


def test_a_longer_answer_has_to_be_the_better_by_what_its_length_costs() -> None:
    starts = torch.tensor([[0.0, 5.0, -9.0, -9.0, -9.0]])
    ends = torch.tensor([[0.0, 5.0, -9.0, -9.0, 6.0]])
    mask = torch.tensor([[False, True, True, True, True]])
    for weight, best in ((0.0, (1, 4)), (0.7, (1, 4)), (0.8, (1, 1))):  # a token more costs ln 4 × weight
        found = found_in(best_spans(starts, ends, mask, max_answer_tokens=9, length_weight=weight, count=1), 0)
        assert list(found) == [best]
        assert found[best] == pytest.approx(11.0 - weight * math.log(4) if best == (1, 4) else 10.0)


def test_scores_of_half_precision_are_added_in_full() -> None:
    scores = torch.tensor([[0.0, 256.0, 1.0]], dtype=torch.bfloat16)
    spans = best_spans(scores, scores, torch.tensor([[False, True, True]]), max_answer_tokens=1, count=4)
    assert spans.scores[0, :2].tolist() == [512.0, 2.0]


def test_a_window_without_context_tokens_has_no_spans() -> None:
    scores = torch.zeros(1, 4)
    spans = best_spans(scores, scores, torch.zeros(1, 4, dtype=torch.bool), max_answer_tokens=64, count=10)
    assert found_in(spans, 0) == {}
    assert spans.null_scores.tolist() == [0.0]
