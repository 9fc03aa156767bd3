"""Linear probes: one linear layer on standardised features, all settings from one pass.

Standardising is what a BatchNorm without affine does before the linear layer of MAE's linear probing
(https://arxiv.org/abs/2111.06377, appendix A.1); since the features are frozen, its statistics are those of the
training rows, exactly. Shapes: H settings, B samples, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from umt.tools.probe.heads import Setting, Training
from umt.tools.probe.table import Table

LRS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
WEIGHT_DECAYS = (0.0, 0.001, 0.01)
DEVIATION = 1e-4  # added to a feature's standard deviation: one that never changes says nothing


class LinearHeads(nn.Module):
    """H linear layers over the same standardised features. They begin at zero, so no draw decides anything."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Table, heads: int, classes: int) -> None:
        """`features`: the training rows (N, D), whose mean and deviation standardise all others."""
        super().__init__()
        mean, deviation = features.moments()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation + DEVIATION)
        self.weight = nn.Parameter(torch.zeros(heads, features.shape[-1], classes, device=features.device))
        self.bias = nn.Parameter(torch.zeros(heads, classes, device=features.device))

    def forward(self, rows: Tensor) -> Tensor:
        """rows (B, D) -> logits (B, H, K)."""
        return torch.einsum("bd,hdk->bhk", (rows - self.mean) / self.deviation, self.weight) + self.bias


def grid(lrs: Sequence[float], weight_decays: Sequence[float]) -> list[Setting]:
    """Every learning rate with every weight decay."""
    return [Setting(lr, decay) for lr in lrs for decay in weight_decays]


def training(rows: int, epochs: int | None = None) -> Training:
    """SGD for 100 epochs; of small data longer (1000 steps), of large shorter (20 000 steps, at least 10 epochs)."""
    batch = max(min(256, rows // 8), 1)
    usual = max(10, min(100, -(-20_000 * batch // rows)))
    return Training("sgd", epochs or max(usual, -(-1000 * batch // rows)), batch)
