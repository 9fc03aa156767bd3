"""Pixels to tokens. The weight has the shape of a Conv3d, for the checkpoints' sake; the work is one matrix product.

Shapes: B clips, C channels, T frames, H x W pixels, P = C * tubelet * patch * patch pixels of a token, D width,
L = T' * H' * W' tokens in the order time, row, column; V visible tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def patchify(video: Tensor, size: tuple[int, int, int], visible: Tensor | None = None) -> Tensor:
    """video (B, C, T, H, W), cut into boxes of `size` (frames, rows, columns) -> pixels of all tokens (B, L, P).

    With `visible` (B, V) int64 -> (B, V, P): the other tokens' pixels are never touched, and the count is known
    beforehand, so nothing waits for the device.
    """
    frames, rows, columns = size
    # (B, C, T', frames, H', rows, W', columns), a view
    boxes = video.unflatten(4, (-1, columns)).unflatten(3, (-1, rows)).unflatten(2, (-1, frames))
    if visible is None:
        return boxes.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
    grid_h, grid_w = boxes.shape[4], boxes.shape[6]
    sample = torch.arange(visible.shape[0], device=visible.device)[:, None]
    t, y, x = visible // (grid_h * grid_w), visible // grid_w % grid_h, visible % grid_w
    return boxes[sample, :, t, :, y, :, x].flatten(2)  # the indexed axes come first: (B, V, C, frames, rows, columns)


class PatchEmbed(nn.Module):
    """Boxes of pixels -> tokens. State dict: `proj.weight` (D, C, tubelet, patch, patch) and `proj.bias`."""

    def __init__(
        self, width: int, patch_size: int, tubelet_size: int = 1, channels: int = 3, bias: bool = True
    ) -> None:
        super().__init__()
        size = (tubelet_size, patch_size, patch_size)
        self.size = size
        # Holds the parameters and torch's default initialisation of a convolution; its own forward is never called.
        self.proj = nn.Conv3d(channels, width, kernel_size=size, stride=size, bias=bias)

    def forward(self, video: Tensor, visible: Tensor | None = None) -> Tensor:
        """video (B, C, T, H, W) -> tokens (B, L, D); with `visible` (B, V) int64 only those: (B, V, D)."""
        return F.linear(patchify(video, self.size, visible), self.proj.weight.flatten(1), self.proj.bias)
