"""From uint8 frames to the normalised floats that models are fed, on the device where the frames are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from umt.imagenet import MEAN, STD


def normalize(video: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """uint8 (B, 3, T, H, W) or (3, T, H, W), RGB -> float32 of the same shape, (x / 255 - mean) / std per channel."""
    if video.dtype != torch.uint8:
        raise TypeError(f"normalize takes uint8 frames, not {video.dtype}")
    out = video.to(torch.float32).div_(255)
    for channel, (shift, scale) in enumerate(zip(mean, std, strict=True)):
        # In place with Python numbers: no constant tensor has to travel to the device.
        out.select(-4, channel).sub_(shift).div_(scale)
    return out
