"""Attention in both parameter layouts, against the softmax written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umt.layers.attention import SHORT_ON_CPU, Attention, ClipAttention, attend


def written_out(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """qkv (B, L, 3 D) -> softmax attention output (B, L, D) and its matrix (B, h, L, L)."""
    batch, length, triple = qkv.shape
    q, k, v = qkv.reshape(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    matrix = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    return (matrix @ v).transpose(1, 2).reshape(batch, length, triple // 3), matrix


def test_attention_is_the_softmax_written_out() -> None:
    attention = Attention(24, 3)
    nn.init.normal_(attention.q_bias)
    nn.init.normal_(attention.v_bias)
    x = torch.randn(2, 7, 24)
    bias = torch.cat((attention.q_bias, torch.zeros(24), attention.v_bias))
    expected = attention.proj(written_out(attention.qkv(x) + bias, 3)[0])
    torch.testing.assert_close(attention(x), expected)


def test_clip_attention_is_multihead_attention_with_its_weights() -> None:
    reference = nn.MultiheadAttention(24, 3, batch_first=True)
    attention = ClipAttention(24, 3)
    attention.load_state_dict(reference.state_dict())
    x = torch.randn(2, 7, 24)
    expected, matrix = reference(x, x, x)
    out, row = attention.forward_with_first_row(x)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(attention(x), expected)
    torch.testing.assert_close(row, matrix[:, 0])


def test_attention_dropout_rests_in_evaluation() -> None:
    attention = Attention(24, 3, attn_drop=0.5, proj_drop=0.5)
    x = torch.randn(2, 7, 24)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


@pytest.mark.parametrize("length", [7, 197, SHORT_ON_CPU + 1])
def test_attention_in_bf16_is_attention_within_its_rounding(length: int) -> None:
    q, k, v = torch.randn(3, 1, 2, length, 16).bfloat16()
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    # Scores up to about 8 are rounded to 8 bits: 1/64 off, so weights within 2 %; outputs are means of values near 1.
    torch.testing.assert_close(attend(q, k, v).double(), expected, rtol=0.02, atol=0.02)
