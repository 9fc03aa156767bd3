"""Errors for clips that do not fit a model. Shapes only: nothing here waits for a device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from umt.errors import ConfigError


def check_video(video: Tensor, clip_shape: tuple[int, int, int]) -> None:
    """`ConfigError` unless video is (B, 3, *clip_shape) floating point; clip_shape is (frames, height, width)."""
    if video.ndim != 5 or video.shape[1] != 3 or tuple(video.shape[2:]) != clip_shape:
        raise ConfigError(
            f"the model takes clips (batch, 3, {', '.join(map(str, clip_shape))}) (channels, frames, height, width), "
            f"not {tuple(video.shape)}. Build it with the num_frames and image_size of your clips."
        )
    if not video.is_floating_point():
        raise ConfigError(f"the model takes normalised floating-point frames, not {video.dtype}. Normalise them first.")


def check_visible(video: Tensor, visible: Tensor, tokens: int) -> None:
    """`ConfigError` unless visible is (B, V) with 1 <= V <= tokens."""
    if visible.ndim != 2 or visible.shape[0] != video.shape[0] or not 1 <= visible.shape[1] <= tokens:
        raise ConfigError(
            f"visible must be (batch, V) token indices, 1 <= V <= {tokens}, not {tuple(visible.shape)} "
            f"for {video.shape[0]} clips."
        )


def resize_frames(video: Tensor, size: tuple[int, int]) -> Tensor:
    """video (B, 3, T, H, W) -> (B, 3, T, *size): bicubic without antialiasing, in float32, as a teacher sees a clip.

    The published students were trained so; a clip of the right size is returned as it is.
    """
    if tuple(video.shape[3:]) == size:
        return video
    with torch.autocast(video.device.type, enabled=False):
        frames = video.float().flatten(1, 2)
        frames = F.interpolate(frames, size=size, mode="bicubic", align_corners=False)
        return frames.unflatten(1, (video.shape[1], video.shape[2]))
