"""Start and end scores → the best spans, over all windows of a context at once. Tensor functions only.

Knows nothing of text: token positions come in, token positions go out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class TokenSpans:
    """The best spans of one context, best first. Positions are those in the window; `end_tokens` are inclusive."""

    scores: Tensor  # [span] start score + end score
    windows: Tensor  # [span]
    start_tokens: Tensor  # [span]
    end_tokens: Tensor  # [span]
    null_score: float  # the score of "the context does not say"


def best_spans(
    start_scores: Tensor,  # [window, token]
    end_scores: Tensor,  # [window, token]
    is_context: Tensor,  # [window, token] bool
    *,
    max_answer_tokens: int,
    count: int,
) -> TokenSpans:
    """The `count` best pairs (start, end) with start ≤ end < start + max_answer_tokens inside the context.

    Scores of different windows are compared as they are: a softmax within each would make the window without the
    answer as sure as the one that has it. The null score of a window is that of its first token ([CLS]); a context
    does not say only if none of its windows says, so its null score is their minimum (Devlin et al. 2019, SQuAD 2.0).
    """
    start_scores, end_scores = start_scores.float(), end_scores.float()
    starts = start_scores.masked_fill(~is_context, -torch.inf)
    ends = end_scores.masked_fill(~is_context, -torch.inf)
    ends_by_length = pad(ends, (0, max_answer_tokens - 1), value=-torch.inf).unfold(1, max_answer_tokens, 1)
    pairs = starts.unsqueeze(-1) + ends_by_length  # [window, token, length - 1]
    scores, places = pairs.flatten().topk(min(count, pairs.numel()))
    places = places[scores > -torch.inf]
    windows, start_tokens, lengths = torch.unravel_index(places, pairs.shape)
    null_score = (start_scores[:, 0] + end_scores[:, 0]).min()
    return TokenSpans(scores[: len(places)], windows, start_tokens, start_tokens + lengths, float(null_score))
