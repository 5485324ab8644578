"""Attention on a CPU: window by window, so that the scores of one stay in its cache, and none for the padding.

For heads as narrow as a small BERT's (32 wide), torch's fused attention takes almost half of a forward pass there.
Registered with transformers by name; `fastest` says for which models it is, in reading and in training.
"""

import threading
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout as drop
from torch.nn.functional import pad
from transformers import AttentionInterface, PretrainedConfig
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

WINDOW_BY_WINDOW = "window_by_window"
PLAIN_ENCODERS = {"bert", "camembert", "distilbert", "electra", "ernie", "roberta", "xlm-roberta"}
"""Every token attends to every other of its window: no causal, sliding or shared heads, no bias for positions."""
_kept = threading.local()


def fastest(config: PretrainedConfig, *, on_cpu: bool) -> str | None:
    """The `attn_implementation` to load such a model with; None leaves it to transformers."""
    is_plain = config.model_type in PLAIN_ENCODERS and not getattr(config, "is_decoder", False)
    return WINDOW_BY_WINDOW if on_cpu and is_plain else None


def window_by_window(
    module: torch.nn.Module,
    query: Tensor,  # [window, head, token, width]
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # [window, token] false behind a window's end; None where nothing is padded
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The heads' outputs [window, token, head, width], and no weights: scaled dot products (Vaswani et al. 2017).

    Padding stands at the end. Its outputs are zeros.
    """
    windows, heads, tokens, width = query.shape
    lengths = [tokens] * windows if attention_mask is None else attention_mask.sum(1).tolist()
    query = query * (scaling or width**-0.5)
    shared = None if torch.is_grad_enabled() else _scratch(heads * tokens * tokens, query.dtype)
    outputs = []
    for queries, keys, values, length in zip(query, key, value, lengths, strict=True):
        place = None if shared is None else shared[: heads * length * length].view(heads, length, length)
        scores = torch.bmm(queries[:, :length], keys[:, :length].transpose(1, 2), out=place)
        with torch.autocast(scores.device.type, enabled=False):  # it would turn all scores into float32 and back
            shares = drop(torch.softmax(scores, -1, out=place), dropout, module.training)
        found = torch.bmm(shares, values[:, :length]).transpose(0, 1)
        outputs.append(pad(found, (0, 0, 0, 0, 0, tokens - length)))
    return torch.stack(outputs), None


def _scratch(size: int, dtype: torch.dtype) -> Tensor:
    """Memory of this thread for `size` numbers, whatever they were: a new piece would cost more than what it is for."""
    kept: Tensor | None = getattr(_kept, "numbers", None)
    if kept is None or kept.numel() < size or kept.dtype != dtype:
        with torch.inference_mode(False):  # what is made in that mode could not be written to outside
            kept = _kept.numbers = torch.empty(size, dtype=dtype)
    return kept[:size]


AttentionInterface.register(WINDOW_BY_WINDOW, window_by_window)
AttentionMaskInterface.register(WINDOW_BY_WINDOW, flash_attention_mask)
