"""The pre-norm transformer block of the student and the classifier, and how it is run when memory is short."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from umt.layers.attention import Attention
from umt.layers.drop_path import DropPath

# Of the student, its decoders and the classifier. CLIP's is 1e-5 (umt/models/teachers/clip.py).
NORM_EPS = 1e-6


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between; dropout after the second only."""

    def __init__(self, width: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        return self.drop(self.fc2(self.act(self.fc1(x))))


class Block(nn.Module):
    """x += attn(norm1(x)); x += mlp(norm2(x)); with drop path, and with layer scale when `init_values` > 0.

    Layer scale: https://arxiv.org/abs/2103.17239; the UMT models have none.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        init_values: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads, attn_drop=attn_drop, proj_drop=drop)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)
        self.gamma_1: nn.Parameter | None = None
        self.gamma_2: nn.Parameter | None = None
        if init_values > 0:
            self.gamma_1 = nn.Parameter(torch.full((width,), init_values))
            self.gamma_2 = nn.Parameter(torch.full((width,), init_values))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        branch = self.attn(self.norm1(x))
        x = x + self.drop_path(branch if self.gamma_1 is None else self.gamma_1 * branch)
        branch = self.mlp(self.norm2(x))
        return x + self.drop_path(branch if self.gamma_2 is None else self.gamma_2 * branch)


def make_blocks(
    width: int,
    depth: int,
    heads: int,
    *,
    mlp_ratio: float = 4.0,
    drop: float = 0.0,
    attn_drop: float = 0.0,
    drop_path: float = 0.0,
    init_values: float = 0.0,
) -> nn.ModuleList:
    """`depth` blocks; drop path grows linearly from 0 in the first to `drop_path` in the last."""
    rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
    return nn.ModuleList(
        Block(
            width,
            heads,
            mlp_ratio=mlp_ratio,
            drop=drop,
            attn_drop=attn_drop,
            drop_path=rate,
            init_values=init_values,
        )
        for rate in rates
    )


def run_block(block: nn.Module, x: Tensor, recompute: bool) -> Tensor:
    """`block(x)`; with `recompute`, its activations are computed again in the backward pass instead of kept.

    Non-reentrant: works under DDP without `find_unused_parameters` and under `torch.compile`.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, x, use_reentrant=False)
    return block(x)
