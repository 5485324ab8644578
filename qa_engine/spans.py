"""Start and end scores → each window's best spans, over a whole batch at once. Tensor functions only.

Knows nothing of text: token positions come in, token positions go out, on the device where the scores are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class TokenSpans:
    """The best spans of every window, best first. Positions are those in the window; `end_tokens` are inclusive.

    Where a window has fewer spans than columns, the scores of the rest are -inf.
    """

    scores: Tensor  # [window, span] start score + end score, less what the length costs
    start_tokens: Tensor  # [window, span]
    end_tokens: Tensor  # [window, span]
    null_scores: Tensor  # [window] the score of "this window does not say"


def best_spans(
    start_scores: Tensor,  # [window, token]
    end_scores: Tensor,  # [window, token]
    is_context: Tensor,  # [window, token] bool
    *,
    max_answer_tokens: int,
    length_weight: float = 0.0,
    count: int,
) -> TokenSpans:
    """The `count` best spans of each window that do not overlap: the best one, the best of those beside it, and so on.

    A span is a pair with start ≤ end < start + max_answer_tokens in the context. Its score is less by `length_weight`
    × the logarithm of its tokens: before anything is read, an answer twice as long is taken to be 2 ** length_weight
    times less likely. Spans that overlap a better one say the same with a word more or less, and are left out. The null
    score of a window is that of its first token ([CLS]).
    """
    start_scores, end_scores = start_scores.float(), end_scores.float()
    tokens = start_scores.shape[1]
    max_answer_tokens = min(max_answer_tokens, tokens)
    starts = start_scores.masked_fill(~is_context, -torch.inf)
    ends = end_scores.masked_fill(~is_context, -torch.inf)
    ends_by_length = pad(ends, (0, max_answer_tokens - 1), value=-torch.inf).unfold(1, max_answer_tokens, 1)
    lengths = torch.arange(1, max_answer_tokens + 1, device=ends.device)
    scores = starts[:, :, None] + ends_by_length - length_weight * lengths.log()  # [window, start, length]
    first = torch.arange(tokens, device=ends.device)[:, None]  # [start, 1]
    last = first + lengths - 1  # [start, length]
    found = []
    for _ in range(min(count, tokens)):
        best, place = scores.flatten(1).max(1)
        start, length = place // max_answer_tokens, place % max_answer_tokens + 1
        end = start + length - 1
        found.append((best, start, end))
        scores.masked_fill_((first <= end[:, None, None]) & (last >= start[:, None, None]), -torch.inf)
    span_scores, span_starts, span_ends = (torch.stack(column, 1) for column in zip(*found, strict=True))
    return TokenSpans(span_scores, span_starts, span_ends, start_scores[:, 0] + end_scores[:, 0])
