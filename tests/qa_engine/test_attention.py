"""Attention window by window computes what torch's own does, padding and gradients included."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForQuestionAnswering

from qa_engine.attention import PLAIN_ENCODERS, WINDOW_BY_WINDOW, fastest, window_by_window

SHAPE = (3, 4, 11, 8)  # [window, head, token, width]
SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def attended(function: str, lengths: list[int] | None) -> list[torch.Tensor]:
    """Outputs [window, token, head, width], and the gradients of query, key and value; zeros for the padding."""
    torch.manual_seed(0)
    parts = [torch.randn(SHAPE, requires_grad=True) for _ in range(3)]
    is_token = torch.arange(SHAPE[2]) < torch.tensor(lengths or [SHAPE[2]] * SHAPE[0])[:, None]  # [window, token]
    if function == "ours":
        outputs, weights = window_by_window(torch.nn.Identity(), *parts, is_token if lengths else None)
        assert weights is None
    else:
        outputs = scaled_dot_product_attention(*parts, attn_mask=is_token[:, None, None]).transpose(1, 2)
        outputs = outputs * is_token[:, :, None, None]
    (outputs * torch.arange(outputs.numel()).view_as(outputs).cos()).sum().backward()
    return [outputs, *(part.grad for part in parts if part.grad is not None)]


@pytest.mark.parametrize("lengths", [None, [11, 5, 8]])
def test_it_is_scaled_dot_product_attention(lengths: list[int] | None) -> None:
    ours, torchs = attended("ours", lengths), attended("torch's", lengths)
    assert len(ours) == len(torchs) == 4
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_in_reading_windows_share_memory_and_nothing_else(mode: type[torch.no_grad]) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(SHAPE) for _ in range(3)]
    is_token = torch.arange(SHAPE[2]) < torch.tensor([11, 5, 8])[:, None]
    learned, _ = window_by_window(torch.nn.Identity(), *parts, is_token)
    for dtype, apart in ((torch.float32, 1e-6), (torch.bfloat16, 0.03)):
        with mode():
            read, _ = window_by_window(torch.nn.Identity(), *(part.to(dtype) for part in parts), is_token)
        torch.testing.assert_close(read.float(), learned, rtol=0, atol=apart)


def test_dropout_takes_part_in_training_only() -> None:
    module = torch.nn.Identity()
    parts = [torch.randn(SHAPE) for _ in range(3)]
    without, _ = window_by_window(module.eval(), *parts, None, dropout=0.0)
    measured, _ = window_by_window(module.eval(), *parts, None, dropout=0.5)
    learned, _ = window_by_window(module.train(), *parts, None, dropout=0.5)
    torch.testing.assert_close(measured, without)
    assert not torch.allclose(learned, without)


@pytest.mark.parametrize("model_type", sorted(PLAIN_ENCODERS))
def test_every_model_that_it_is_for_answers_as_with_torchs_own(model_type: str) -> None:
    config = AutoConfig.for_model(model_type, **SMALL)
    assert fastest(config, on_cpu=True) == WINDOW_BY_WINDOW
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_config(config).eval()
    input_ids = torch.randint(5, 50, (2, 12))
    is_token = torch.arange(12) < torch.tensor([[12], [7]])
    found = []
    for implementation in ("sdpa", WINDOW_BY_WINDOW):
        model.set_attn_implementation(implementation)
        with torch.inference_mode():
            output = model(input_ids=input_ids, attention_mask=is_token.long())
        found.append(torch.stack([output.start_logits, output.end_logits])[:, is_token])
    torch.testing.assert_close(*found)


def test_other_models_keep_the_attention_of_transformers() -> None:
    assert fastest(AutoConfig.for_model("bert"), on_cpu=False) is None
    assert fastest(AutoConfig.for_model("bert", is_decoder=True), on_cpu=True) is None
    assert fastest(AutoConfig.for_model("modernbert"), on_cpu=True) is None
