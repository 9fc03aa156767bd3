"""What a model offers to those who take features of its layers: `umt extract`, `umt probe`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from umt.models.specs import Grid


@runtime_checkable
class HasFeatures(Protocol):
    """A module with blocks over tokens. A model of another family offers the same, and every tool can take from it."""

    head_input: str  # name of the module whose output a head is fed; "" without a head

    def feature_blocks(self) -> nn.ModuleList:
        """The blocks in order; their outputs are tokens (B, L, D), or (B T', N, D) with each frame apart."""
        ...

    def feature_grid(self, num_frames: int) -> Grid:
        """(T', H', W') tokens of a clip of so many frames."""
        ...

    def forward_all(self, video: Tensor) -> Tensor:
        """Runs every block on video (B, 3, T, H, W), so that hooks see what leaves each of them."""
        ...
