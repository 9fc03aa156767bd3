"""Stochastic depth: a residual branch is left out for a whole sample. Paper: https://arxiv.org/abs/1603.09382."""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes the branch of each sample with probability `rate` in training; what is kept is divided by `1 - rate`."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x (B, ...) -> the same shape. The draw comes from torch's generator of x's device."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * kept.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"
