"""Outputs of blocks in the middle: which ones are asked for, and in which shape they are handed out.

The conventions are timm's (`forward_intermediates`), with time as one more axis.
Shapes: B clips, L = T' H' W' tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from umt.errors import ConfigError
from umt.models.specs import Grid

Layout = Literal["NLC", "NCTHW"]


def block_indices(depth: int, indices: int | Sequence[int] | None) -> tuple[int, ...]:
    """Numbers of the blocks asked for, ascending and each once: None: all; n: the last n; else those, -1 the last.

    Raises `ConfigError` for blocks that do not exist.
    """
    if indices is None:
        return tuple(range(depth))
    if isinstance(indices, int):
        if not 1 <= indices <= depth:
            raise ConfigError(f"indices ({indices}) asks for the last {indices} of {depth} blocks. Use 1..{depth}.")
        return tuple(range(depth - indices, depth))
    for index in indices:
        if not -depth <= index < depth:
            raise ConfigError(f"indices: there is no block {index}. Use 0..{depth - 1}, or -{depth}..-1 from the end.")
    if not indices:
        raise ConfigError("indices is empty. Name a block, e.g. [-1] for the last.")
    return tuple(sorted({index % depth for index in indices}))


def arranged(tokens: Tensor, grid: Grid, layout: Layout) -> Tensor:
    """tokens (B, L, D) -> the same for "NLC"; (B, D, T', H', W'), contiguous, for "NCTHW"."""
    if layout == "NLC":
        return tokens
    return tokens.unflatten(1, grid).permute(0, 4, 1, 2, 3).contiguous()


def check_layout(layout: str, whole_clip: bool = True) -> None:
    """`ConfigError` for a layout that does not exist, or wants the grid where only some tokens are seen."""
    if layout not in get_args(Layout):
        raise ConfigError(f"output_fmt ({layout!r}) must be one of {', '.join(map(repr, get_args(Layout)))}.")
    if layout == "NCTHW" and not whole_clip:
        raise ConfigError("output_fmt 'NCTHW' needs all tokens of a clip: leave `visible` out, or use 'NLC'.")
