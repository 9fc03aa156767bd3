"""Pure functions from the state dict of a file to that of a model. None touches a model or prints.

Grids are (T', H', W') tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from umt.errors import CheckpointError
from umt.layers.pos_embed import Grid, resample_table, sinusoid_table

StateDict = dict[str, Tensor]


def strip_wrappers(state: StateDict) -> StateDict:
    """Without the prefixes that DDP (`module.`) and torch.compile (`_orig_mod.`) put before every name."""
    for prefix in ("module.", "_orig_mod.", "module."):
        if all(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def take_prefix(state: StateDict, prefix: str) -> tuple[StateDict, StateDict]:
    """(entries under `prefix` with it removed, the others)."""
    inside = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    return inside, {name: value for name, value in state.items() if not name.startswith(prefix)}


def take_rows(state: StateDict, rows: Sequence[int]) -> StateDict:
    """With `head.weight` and `head.bias` reduced to `rows`: class j of the result is class rows[j] of the file.

    Raises `CheckpointError` for a row that the head does not have.
    """
    have = state["head.weight"].shape[0]
    outside = [row for row in rows if not 0 <= row < have]
    if outside:
        raise CheckpointError(f"head row {outside[0]} does not exist: the file's head has rows 0..{have - 1}.")
    index = torch.tensor(rows)
    return {**state, "head.weight": state["head.weight"][index], "head.bias": state["head.bias"][index]}


def inflate_convolution(weight: Tensor, tubelet_size: int) -> Tensor:
    """weight (D, C, P, P) of an image model -> (D, C, tubelet, P, P), in the centre of zeros: one frame is seen."""
    inflated = weight.new_zeros(*weight.shape[:2], tubelet_size, *weight.shape[2:])
    inflated[:, :, tubelet_size // 2] = weight
    return inflated


def resample_tubelet(weight: Tensor, tubelet_size: int) -> Tensor:
    """weight (D, C, t, P, P) of a video model -> (D, C, tubelet_size, P, P), so that a still clip has the same tokens.

    Each new frame takes of each old one the share of time that they have in common: from 1 to 2 frames both get half
    (the inflation of I3D, https://arxiv.org/abs/1705.07750), from 2 to 1 the one gets the sum.
    """
    old = weight.shape[2]
    edges_old, edges_new = torch.arange(old + 1) / old, torch.arange(tubelet_size + 1) / tubelet_size
    ends = torch.minimum(edges_new[1:, None], edges_old[None, 1:])
    starts = torch.maximum(edges_new[:-1, None], edges_old[None, :-1])
    shares = (ends - starts).clamp(min=0) * old  # (new, old), columns sum to 1
    return torch.einsum("dcohw,no->dcnhw", weight.float(), shares).to(weight.dtype)


def resample_clip_positions(table: Tensor, target: tuple[int, int]) -> Tensor:
    """table (1 + n * n, D), class token first -> (1 + H' * W', D), bicubic without aligned corners.

    Raises `CheckpointError` if the file's grid is not square.
    """
    side = math.isqrt(table.shape[0] - 1)
    if side * side != table.shape[0] - 1:
        raise CheckpointError(f"positional_embedding has {table.shape[0]} rows, not 1 + a square grid.")
    grid = table[1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=target, mode="bicubic", align_corners=False)
    return torch.cat((table[:1].float(), grid.flatten(2)[0].transpose(0, 1)))


def sinusoid_grid(table: Tensor, candidates: Sequence[Grid], defined_on: Grid) -> Grid | None:
    """The first of `candidates` on whose tokens `table` (1, L, D) is the fixed sinusoid of `defined_on`, or None.

    The tolerance lets tables through that were saved in half precision.
    """
    width = table.shape[-1]
    channels = torch.arange(0, width, max(width // 16, 1))
    sinusoid = sinusoid_table(math.prod(defined_on), width)[..., channels]
    seen = table[..., channels].float()
    for grid in candidates:
        if torch.allclose(resample_table(sinusoid, defined_on, grid), seen, rtol=0, atol=5e-3):
            return grid
    return None


def square_grids(tokens: int) -> list[Grid]:
    """All (T', n, n) of so many tokens, from the finest."""
    sides = range(math.isqrt(tokens), 0, -1)
    return [(tokens // (side * side), side, side) for side in sides if tokens % (side * side) == 0]


def trained_grid(tokens: int, model_grid: Grid) -> Grid:
    """The grid that a trained table of `tokens` rows most likely has, seen from a model with `model_grid`.

    The model's own if the number fits, else one with the same frames, else one with the same (square) picture. Raises
    `CheckpointError` if none of these fits.
    """
    if tokens == math.prod(model_grid):
        return model_grid
    squares = square_grids(tokens)
    for likely in ([g for g in squares if g[0] == model_grid[0]], [g for g in squares if g[1:] == model_grid[1:]]):
        if likely:
            return likely[0]
    raise CheckpointError(
        f"pos_embed has {tokens} rows, and it is not clear on which grid of frames x rows x columns. "
        "Say so with source_grid=(T', H', W')."
    )
