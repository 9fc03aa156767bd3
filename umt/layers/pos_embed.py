"""Fixed position tables: one sinusoid over all tokens of a clip, resampled in space and time to other grids.

The table is one-dimensional over the flat index t * H' * W' + y * W' + x, not separable. A grid is (T', H', W') tokens.
Formula: https://arxiv.org/abs/1706.03762, section 3.5.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int, int]


def sinusoid_table(positions: int, width: int) -> Tensor:
    """(1, positions, width) float32, on the CPU: sine (channel j even) or cosine of p / 10000^(2 (j // 2) / width).

    Computed in float64 and rounded once, as the published weights saw it.
    """
    channel = np.arange(width)
    angle = np.arange(positions)[:, None] / np.power(10000.0, 2 * (channel // 2) / width)
    table = np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))
    return torch.from_numpy(table.astype(np.float32))[None]


def resample_table(table: Tensor, source: Grid, target: Grid) -> Tensor:
    """table (1, L, D) on the grid `source` -> (1, L', D) on `target`: bicubic in space, then linear in time.

    Neither aligns corners; an axis that keeps its length is left bit for bit as it is.
    """
    if source == target:
        return table
    width = table.shape[-1]
    table = table.reshape(*source, width)
    if source[1:] != target[1:]:
        table = F.interpolate(table.permute(0, 3, 1, 2), size=target[1:], mode="bicubic", align_corners=False)
        table = table.permute(0, 2, 3, 1)
    if source[0] != target[0]:
        series = table.reshape(source[0], -1).transpose(0, 1)[None]  # (1, H' W' D, T')
        series = F.interpolate(series, size=target[0], mode="linear", align_corners=False)
        table = series[0].transpose(0, 1)
    return table.reshape(1, math.prod(target), width).contiguous()


def position_table(width: int, grid: Grid, defined_on: Grid) -> Tensor:
    """The sinusoid over the tokens of `defined_on`, resampled to `grid`: (1, T' H' W', width) float32.

    It lies on torch's current default device, as parameters made with it do.
    """
    device = torch.get_default_device()
    if device.type == "meta":  # a model of which only names and shapes are wanted
        return torch.empty(1, math.prod(grid), width)
    with torch.device("cpu"):
        table = resample_table(sinusoid_table(math.prod(defined_on), width), defined_on, grid)
    return table.to(device)
