"""Self-attention in the two parameter layouts that the weights come in: the video models' and CLIP's.

Both compute softmax(q k^T / sqrt(d)) v with `attend`, which stores no attention matrix but in one case.
Shapes: B sequences, L tokens, D width, h heads, d = D / h.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT_ON_CPU = 1024  # tokens up to which a CPU may hold L x L scores a head in bf16: 2 MB


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """qkv (B, L, 3 D), laid out as (3, heads, d) along the last axis -> q, k, v, each (B, h, L, d)."""
    batch, length, triple = qkv.shape
    q, k, v = qkv.view(batch, length, 3, heads, triple // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def merge_heads(x: Tensor) -> Tensor:
    """x (B, h, L, d) -> (B, L, h d)."""
    return x.transpose(1, 2).flatten(2)


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """q, k, v (B, h, L, d) -> softmax(q k^T / sqrt(d)) v, (B, h, L, d); `dropout` is that of the attention weights."""
    if q.dtype == torch.bfloat16 and q.device.type == "cpu" and not dropout and q.shape[2] <= SHORT_ON_CPU:
        # torch's fused kernel for CPUs works in float32 inside and takes twice as long as native bf16 products.
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


class LinearWithBias(nn.Linear):
    """A linear layer without a bias of its own, which is given one: two of three biases of qkv are trained.

    The module is called, and not its weight used, so that forward hooks, LoRA wrappers and parametrisations see it.
    """

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (..., D), bias (E,) -> (..., E)."""
        return F.linear(x, self.weight, bias)


class Attention(nn.Module):
    """Attention of the video models: one qkv matrix without bias, and biases for q and v only.

    A bias on k would add the same number to every score of a query and cancel in the softmax, so there is none
    (BEiT, https://arxiv.org/abs/2106.08254).
    """

    def __init__(self, width: int, heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.attn_drop = attn_drop
        self.qkv = LinearWithBias(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        q, k, v = split_heads(self.qkv(x, bias), self.heads)
        out = attend(q, k, v, self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(merge_heads(out)))


class ClipAttention(nn.Module):
    """Attention of CLIP's towers, with the parameter names of `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        q, k, v = split_heads(F.linear(x, self.in_proj_weight, self.in_proj_bias), self.heads)
        return self.out_proj(merge_heads(attend(q, k, v)))

    def forward_with_first_row(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, L, D) -> the same as `forward`, and the first token's attention averaged over heads (B, L), float32.

        Only that one row of the L x L matrix is computed in addition to the fused attention.
        """
        q, k, v = split_heads(F.linear(x, self.in_proj_weight, self.in_proj_bias), self.heads)
        out = self.out_proj(merge_heads(attend(q, k, v)))
        scores = (q[:, :, :1] * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, h, 1, L)
        return out, scores.float().softmax(dim=-1).mean(dim=1).squeeze(1)
