"""Attention for training on a CPU computes what torch's own does, masks and gradients included."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from trainer.attention import batched_attention

SHAPE = (3, 4, 11, 8)  # [window, head, token, width]


def attended(function: str, mask: torch.Tensor | None) -> list[torch.Tensor]:
    """Outputs [window, token, head, width], and the gradients of query, key and value."""
    torch.manual_seed(0)
    parts = [torch.randn(SHAPE, requires_grad=True) for _ in range(3)]
    if function == "ours":
        outputs, weights = batched_attention(torch.nn.Identity(), *parts, mask)
        assert weights is None
    else:
        outputs = scaled_dot_product_attention(*parts, attn_mask=mask).transpose(1, 2)
    (outputs * torch.arange(outputs.numel()).view_as(outputs).cos()).sum().backward()
    return [outputs, *(part.grad for part in parts if part.grad is not None)]


@pytest.mark.parametrize("is_masked", [False, True])
def test_it_is_scaled_dot_product_attention(is_masked: bool) -> None:
    mask = torch.zeros(SHAPE[0], 1, 1, SHAPE[2]) if is_masked else None
    if mask is not None:
        mask[0, ..., 5:] = torch.finfo(torch.float32).min
    ours, torchs = attended("ours", mask), attended("torch's", mask)
    assert len(ours) == len(torchs) == 4
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other)
    if mask is not None:
        assert ours[2][0, :, 5:].abs().max() == 0, "what is masked learns nothing"


def test_dropout_takes_part_in_training_only() -> None:
    module = torch.nn.Identity()
    parts = [torch.randn(SHAPE) for _ in range(3)]
    without, _ = batched_attention(module.eval(), *parts, None, dropout=0.0)
    measured, _ = batched_attention(module.eval(), *parts, None, dropout=0.5)
    learned, _ = batched_attention(module.train(), *parts, None, dropout=0.5)
    torch.testing.assert_close(measured, without)
    assert not torch.allclose(learned, without)
