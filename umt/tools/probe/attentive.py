"""Attentive probes: one learnt query looks at all tokens of a clip, then an MLP and a linear layer.

The probe of V-JEPA (https://arxiv.org/abs/2404.08471, section 4.1): cross-attention, residual to the query, MLP with
residual, linear. With a single query the keys need not be computed: q (W x) = (W^T q) x, and the values not before they
are averaged: sum a (W x) = W sum(a x). So a probe costs a token n products of its width instead of 2 D, and many
probes fit in one pass. Shapes: H settings, B clips, L tokens, D width (c), n attention heads, d = D / n, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from umt.layers.block import NORM_EPS
from umt.randomness import key
from umt.tools.probe.heads import Training

LRS = (0.0003, 0.001, 0.003, 0.01, 0.03)
WEIGHT_DECAYS = (0.01, 0.1)
HEAD_WIDTH = 64


class AttentiveHeads(nn.Module):
    """H probes over the same tokens, all with the same first weights."""

    def __init__(
        self, width: int, heads: int, classes: int, *, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.attention_heads = max(width // HEAD_WIDTH, 1) if width % HEAD_WIDTH == 0 else 1
        draws = torch.Generator().manual_seed(key(seed, "attentive"))

        def matrix(rows: int, columns: int) -> nn.Parameter:
            bound = (6 / (rows + columns)) ** 0.5
            first = torch.empty(1, rows, columns).uniform_(-bound, bound, generator=draws)
            return nn.Parameter(first.repeat(heads, 1, 1).to(device))

        def vector(size: int, value: float = 0.0) -> nn.Parameter:
            return nn.Parameter(torch.full((heads, size), value, device=device))

        query = torch.empty(1, width).normal_(std=0.02, generator=draws)
        self.query = nn.Parameter(query.repeat(heads, 1).to(device))
        self.q, self.k, self.v, self.out = (matrix(width, width) for _ in range(4))
        self.q_bias, self.v_bias, self.out_bias = (vector(width) for _ in range(3))
        self.norm_weight, self.norm_bias = vector(width, 1.0), vector(width)
        self.fc1, self.fc2 = matrix(4 * width, width), matrix(width, 4 * width)
        self.fc1_bias, self.fc2_bias = vector(4 * width), vector(width)
        self.weight = nn.Parameter(torch.zeros(heads, classes, width, device=device))
        self.bias = vector(classes)

    def attend(self, tokens: Tensor) -> Tensor:
        """tokens (B, L, D), normalised -> what each query gathers (B, H, D), before `out`."""
        width, n = tokens.shape[-1], self.attention_heads
        query = torch.einsum("hed,hd->he", self.q, self.query) + self.q_bias
        query, keys, values = (rearrange(x, "h (n d) ... -> h n d ...", n=n) for x in (query, self.k, self.v))
        into = rearrange(torch.einsum("hnd,hndc->hnc", query, keys), "h n c -> c (h n)")  # queries as tokens see them
        scores = rearrange(tokens @ into * (width // n) ** -0.5, "b l q -> b q l")  # (B, H n, L)
        seen = rearrange(scores.softmax(-1) @ tokens, "b (h n) c -> b h n c", n=n)
        return rearrange(torch.einsum("bhnc,hndc->bhnd", seen, values), "b h n d -> b h (n d)") + self.v_bias

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, L, D) -> logits (B, H, K). A norm without affine comes first: the matrices would absorb one."""
        tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=NORM_EPS)
        x = self.query + _apply(self.attend(tokens), self.out, self.out_bias)
        y = F.layer_norm(x, x.shape[-1:], eps=NORM_EPS) * self.norm_weight + self.norm_bias
        x = x + _apply(F.gelu(_apply(y, self.fc1, self.fc1_bias)), self.fc2, self.fc2_bias)
        return _apply(x, self.weight, self.bias)


def _apply(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (B, H, D), weight (H, E, D), bias (H, E) -> (B, H, E)."""
    return torch.einsum("bhd,hed->bhe", x, weight) + bias


def training(rows: int, epochs: int | None = None) -> Training:
    """AdamW for 20 epochs as in V-JEPA, of small data longer: at least 300 steps."""
    batch = max(min(64, rows // 8), 1)
    return Training("adamw", epochs or max(20, -(-300 * batch // rows)), batch)
