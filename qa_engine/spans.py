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

    def __len__(self) -> int:
        return len(self.null_scores)


def best_spans(
    start_scores: Tensor,  # [window, token]
    end_scores: Tensor,  # [window, token]
    is_context: Tensor,  # [window, token] bool
    *,
    max_answer_tokens: int,
    length_weight: float = 0.0,
    count: int,
) -> TokenSpans:
    """The `count` best pairs (start, end) of each window with start ≤ end < start + max_answer_tokens, in the context.

    A pair's score is less by `length_weight` × the logarithm of its tokens: before anything is read, an answer twice
    as long is taken to be 2 ** length_weight times less likely. Of the pairs that share a start or an end only the best
    is kept: the others say the same with a word more or less, and would leave no room for other answers. The null
    score of a window is that of its first token ([CLS]).
    """
    start_scores, end_scores = start_scores.float(), end_scores.float()
    starts = start_scores.masked_fill(~is_context, -torch.inf)
    ends = end_scores.masked_fill(~is_context, -torch.inf)
    ends_by_length = pad(ends, (0, max_answer_tokens - 1), value=-torch.inf).unfold(1, max_answer_tokens, 1)
    ends_by_length = ends_by_length - length_weight * torch.arange(1, max_answer_tokens + 1, device=ends.device).log()
    best_ends, lengths = ends_by_length.max(-1)  # [window, token], for the span that starts there
    scores = starts + best_ends
    last = torch.arange(starts.shape[1], device=starts.device) + lengths
    last = last.clamp_(max=starts.shape[1] - 1)  # beyond the window all is -inf
    best_of_end = torch.full_like(scores, -torch.inf).scatter_reduce_(1, last, scores, "amax")
    scores = scores.masked_fill(scores < best_of_end.gather(1, last), -torch.inf)
    scores, start_tokens = scores.topk(min(count, scores.shape[1]), 1)
    return TokenSpans(scores, start_tokens, last.gather(1, start_tokens), start_scores[:, 0] + end_scores[:, 0])
