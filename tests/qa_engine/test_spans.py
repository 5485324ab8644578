"""The best spans are those that a plain search over all pairs of all windows finds."""

import math
from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qa_engine.spans import best_spans

Tables = tuple[Tensor, Tensor, Tensor]
score = st.integers(-50, 50).map(float)  # sums are exact, and ties are common


@st.composite
def tables(draw: st.DrawFn) -> Tables:
    """Start scores, end scores, mask: some windows shorter than others, padded with -inf as the reader does."""
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
        starts[row, length:] = ends[row, length:] = -torch.inf
        first = draw(st.integers(1, length))
        mask[row, first : draw(st.integers(first, length))] = True
    return starts, ends, mask


def all_pairs(starts: Tensor, ends: Tensor, mask: Tensor, max_answer_tokens: int) -> dict[tuple[int, int, int], float]:
    """(window, start, end) → score, by the definition."""
    windows, width = starts.shape
    return {
        (window, start, end): float(starts[window, start] + ends[window, end])
        for window, start, end in product(range(windows), range(width), range(width))
        if mask[window, start] and mask[window, end] and start <= end < start + max_answer_tokens
    }


@settings(deadline=None, max_examples=150)
@given(tables(), st.integers(1, 12), st.integers(1, 100))
def test_the_best_pairs_over_all_windows_are_found(scores: Tables, max_answer_tokens: int, count: int) -> None:
    found = best_spans(*scores, max_answer_tokens=max_answer_tokens, count=count)
    pairs = all_pairs(*scores, max_answer_tokens)
    assert found.scores.tolist() == sorted(pairs.values(), reverse=True)[:count]
    spans = list(zip(found.windows.tolist(), found.start_tokens.tolist(), found.end_tokens.tolist(), strict=True))
    assert len(set(spans)) == len(spans)
    assert [pairs[span] for span in spans] == found.scores.tolist()


@settings(deadline=None)
@given(tables())
def test_the_null_score_is_that_of_the_window_that_is_least_sure_of_nothing(scores: Tables) -> None:
    starts, ends, _ = scores
    expected = min(float(starts[window, 0] + ends[window, 0]) for window in range(len(starts)))
    assert best_spans(*scores, max_answer_tokens=5, count=5).null_score == expected


def test_scores_of_windows_are_compared_as_they_are() -> None:
    """A softmax within each window would prefer the second, which is surer within itself but lower."""
    starts = torch.tensor([[0.0, 9.0, 8.9], [0.0, 5.0, -9.0]])
    mask = torch.tensor([[False, True, True]] * 2)
    found = best_spans(starts, starts, mask, max_answer_tokens=1, count=2)
    assert found.windows.tolist() == [0, 0]


def test_scores_of_half_precision_are_added_in_full() -> None:
    scores = torch.tensor([[0.0, 256.0, 1.0]], dtype=torch.bfloat16)
    found = best_spans(scores, scores, torch.tensor([[False, True, True]]), max_answer_tokens=2, count=4)
    assert found.scores.tolist() == [512.0, 257.0, 2.0]


def test_a_context_without_tokens_has_no_spans() -> None:
    scores = torch.zeros(1, 4)
    found = best_spans(scores, scores, torch.zeros(1, 4, dtype=torch.bool), max_answer_tokens=64, count=10)
    assert len(found.scores) == len(found.windows) == len(found.start_tokens) == len(found.end_tokens) == 0
    assert math.isfinite(found.null_score)
