"""Attention for training on a CPU: two batched products and a softmax, in the precision that comes in.

For heads as narrow as BERT's (32 wide here) a CPU is slower with torch's fused attention than with the plain one of
transformers (1.2 times), and with this one a whole step takes three quarters of the time of the latter (12 layers ×
384, 16 × 256 tokens, bfloat16, two cores). Registered with transformers by name, so that any BERT-type model can use
it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

BATCHED = "batched"


def batched_attention(
    module: torch.nn.Module,
    query: Tensor,  # [window, head, token, width]
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # [window, 1, token, token] what is added to the scores
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The heads' outputs [window, token, head, width], and no weights: scaled dot products (Vaswani et al. 2017)."""
    windows, heads, tokens, width = query.shape
    queries, keys, values = (part.reshape(windows * heads, tokens, width) for part in (query, key, value))
    scores = torch.bmm(queries * (scaling or width**-0.5), keys.transpose(1, 2))
    if attention_mask is not None:
        scores = (scores.view(windows, heads, tokens, tokens) + attention_mask.to(scores.dtype)).view_as(scores)
    with torch.autocast(scores.device.type, enabled=False):  # it would turn all scores into float32 and back
        shares = drop(scores.softmax(-1), dropout, module.training)
    outputs = torch.bmm(shares, values).view(windows, heads, tokens, width)
    return outputs.transpose(1, 2).contiguous(), None


AttentionInterface.register(BATCHED, batched_attention)
AttentionMaskInterface.register(BATCHED, eager_mask)
