"""Resizing whole clips, and the crops of validation and testing.

Frames are (T, H, W, 3) uint8. Validation and testing resize as the original does, with OpenCV's bilinear filter on
uint8 without antialiasing: PIL's and torch's antialiased filters differ from it by up to 67 grey levels, and published
accuracies were measured with this one.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from umt.errors import ConfigError

Frames = NDArray[np.uint8]


def resize(frames: Frames, height: int, width: int, *, mirrored: bool = False) -> Frames:
    """(T, H, W, 3) -> (T, height, width, 3), bilinear, no antialiasing, then mirrored left to right if asked.

    The same array if there is nothing to do.
    """
    if frames.shape[1:3] == (height, width):
        return flip(frames) if mirrored else frames
    out = np.empty((len(frames), height, width, 3), np.uint8)
    for source, target in zip(frames, out, strict=True):
        cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
        if mirrored:
            cv2.flip(target, 1, dst=target)
    return out


def short_side_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) once the short side is `short_side`; the long side keeps the ratio, rounded down."""
    if height < width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


def resize_short_side(frames: Frames, short_side: int) -> Frames:
    """Resizes so that the shorter side has `short_side` pixels."""
    height, width = frames.shape[1:3]
    if min(height, width) == short_side:
        return frames
    return resize(frames, *short_side_shape(height, width, short_side))


def flip(frames: Frames) -> Frames:
    """Mirrors every frame, left to right."""
    out = np.empty(frames.shape, np.uint8)
    for source, target in zip(frames, out, strict=True):
        cv2.flip(source, 1, dst=target)
    return out


def centre_crop(frames: Frames, size: int) -> Frames:
    """The central size x size pixels; a border of an odd number of pixels is halved with rounding to even."""
    height, width = frames.shape[1:3]
    if size > min(height, width):
        raise ConfigError(
            f"--input_size ({size}) must not exceed --short_side_size ({min(height, width)}). "
            f"Raise the short side, e.g. --short_side_size {size}."
        )
    top, left = round((height - size) / 2), round((width - size) / 2)
    return frames[:, top : top + size, left : left + size]


def crop_offsets(height: int, width: int, size: int, num_crops: int) -> list[tuple[int, int]]:
    """(top, left) of `num_crops` square crops spread evenly along the longer side; a single one is in its centre.

    Across the shorter side, which the original always crops in full, they are in the centre. A square frame is cropped
    along its height, so with `size` equal to its side all crops are the same.
    """
    along = max(height, width) - size
    across = (min(height, width) - size) // 2
    if num_crops == 1:
        places = [along // 2]
    else:
        places = [int(k * (along / (num_crops - 1))) for k in range(num_crops)]
    return [(across, place) if height < width else (place, across) for place in places]


def multi_crop(frames: Frames, size: int, num_crops: int) -> Iterator[Frames]:
    """Views (T, size, size, 3) of `frames` at `crop_offsets`; nothing is copied."""
    height, width = frames.shape[1:3]
    for top, left in crop_offsets(height, width, size, num_crops):
        yield frames[:, top : top + size, left : left + size]
