"""RandAugment's operations on whole clips by look-up tables and OpenCV, held to PIL's, which timm calls frame by frame.

An operation is a `Step`: it makes the pixels of a box from those pixels of its input that they depend on. `apply` walks
back from the box that is wanted and so computes nothing beside it: what it gives is, up to rounding, the box cut out of
whole frames. `tests/data/transforms/test_operations.py` holds the distance from PIL, in grey levels of 255, at any
magnitude: tables equal (contrast: 1 where the mean is a tie), blends, shears and shifts at most 1, rotations of decoded
video at most 2 on 99.8 % of the pixels (OpenCV's cubic kernel has the parameter -0.75, PIL's -1).

Letters: T frames of H x W pixels. Shapes of frames are (T, H, W, 3), uint8, RGB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from umt.data.transforms.resize import Frames

# PIL cuts off where OpenCV rounds; the 1/1024 keeps what is a whole number but for float32's error.
CUT_OFF = -0.5 + 1 / 1024
LUMA = np.array([19595, 38470, 7471]) / 65536  # PIL's grey, ITU-R 601


class Box(NamedTuple):
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Step(Protocol):
    """One operation with everything about it drawn."""

    def needs(self, box: Box, height: int, width: int) -> Box:
        """The part of its input, whole frames of `height` x `width`, on which `box` of its output depends."""

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        """Pixels `at` of its input, which hold `needs(box)`, -> pixels `box` of its output. `frames` is not changed."""


def apply(steps: Sequence[Step], frames: Frames, box: Box) -> Frames:
    """(T, H, W, 3) -> (T, box.height, box.width, 3): `steps` on whole frames, then `box` cut out of them."""
    height, width = frames.shape[1:3]
    boxes = [box]
    for step in reversed(steps):
        boxes.append(step.needs(boxes[-1], height, width))
    boxes.reverse()
    frames = cut(frames, Box(0, 0, height, width), boxes[0])
    for step, at, wanted in zip(steps, boxes, boxes[1:], strict=False):
        frames = step(frames, at, wanted, height, width)
    return frames


def cut(frames: Frames, at: Box, box: Box) -> Frames:
    """A view of `box` in `frames`, which lie `at` that place themselves."""
    top, left = box.top - at.top, box.left - at.left
    return frames[:, top : top + box.height, left : left + box.width]


def whole(box: Box, height: int, width: int) -> Box:
    """`Step.needs` of what looks at all pixels of a frame."""
    return Box(0, 0, height, width)


def grown(top: float, left: float, bottom: float, right: float, height: int, width: int) -> Box:
    """Rows top..bottom and columns left..right, both ends included, within the frame; never empty."""
    first, last = min(max(math.floor(top), 0), height - 1), max(min(math.ceil(bottom), height - 1), 0)
    begin, end = min(max(math.floor(left), 0), width - 1), max(min(math.ceil(right), width - 1), 0)
    return Box(first, begin, max(last - first, 0) + 1, max(end - begin, 0) + 1)


def lookup(frames: Frames, tables: Sequence[NDArray[np.uint8]]) -> Frames:
    """A table (256,) or (256, 3) for each frame."""
    out = np.empty(frames.shape, np.uint8)
    for source, target, table in zip(frames, out, tables, strict=True):
        cv2.LUT(source, table if table.ndim == 1 else table[None], dst=target)
    return out


# Tables: (256,) for all channels, (256, 3) for each.


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers cut off to whole ones, as PIL does, within 0..255."""
    return np.clip(values, 0, 255).astype(np.uint8)


def blend_table(start: int, factor: float) -> NDArray[np.uint8]:
    """Each grey level x becomes start + factor * (x - start), in PIL's float32."""
    return _bytes(np.float32(start) + np.float32(factor) * (np.arange(256, dtype=np.float32) - np.float32(start)))


def solarize_table(threshold: int) -> NDArray[np.uint8]:
    """Levels from `threshold` on are inverted."""
    levels = np.arange(256)
    return _bytes(np.where(levels < threshold, levels, 255 - levels))


def solarize_add_table(add: int, threshold: int = 128) -> NDArray[np.uint8]:
    """Levels below `threshold` are raised by `add`."""
    levels = np.arange(256)
    return _bytes(np.where(levels < threshold, levels + add, levels))


def posterize_table(bits: int) -> NDArray[np.uint8]:
    """The upper `bits` of each level; 0, which Pillow 13 refuses, leaves black."""
    return _bytes(np.arange(256) & (0xFF00 >> min(bits, 8)))


def autocontrast_table(frame: Frames) -> NDArray[np.uint8]:
    """(H, W, 3) -> (256, 3): the darkest level of each channel becomes 0, the brightest 255."""
    low = frame.min(0).min(0).astype(np.int64)
    high = frame.max(0).max(0).astype(np.int64)
    scale = 255.0 / np.maximum(high - low, 1)
    stretched = _bytes(np.arange(256)[:, None] * scale + -low * scale)
    return np.where(high > low, stretched, np.arange(256, dtype=np.uint8)[:, None])


def equalize_table(frame: Frames) -> NDArray[np.uint8]:
    """(H, W, 3) -> (256, 3): each channel's levels become evenly frequent."""
    table = np.empty((256, 3), np.uint8)
    for channel in range(3):
        counts = cv2.calcHist([frame], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        present = np.flatnonzero(counts)
        step = (counts.sum() - counts[present[-1]]) // 255
        before = np.cumsum(counts) - counts
        table[:, channel] = _bytes((step // 2 + before) // step if step else np.arange(256))
    return table


def contrast_table(frame: Frames, factor: float) -> NDArray[np.uint8]:
    """(H, W, 3) -> (256,): away from the mean grey of the frame."""
    return blend_table(int(LUMA @ np.array(cv2.mean(frame)[:3]) + 0.5), factor)


@dataclass(frozen=True)
class Table:
    """One table for all frames."""

    table: NDArray[np.uint8]

    def needs(self, box: Box, height: int, width: int) -> Box:
        return box

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        return lookup(cut(frames, at, box), [self.table] * len(frames))


@dataclass(frozen=True)
class TablePerFrame:
    """A table for each frame, made from all its pixels."""

    make: Callable[[Frames], NDArray[np.uint8]]

    needs = staticmethod(whole)

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        return lookup(cut(frames, at, box), [self.make(frame) for frame in frames])


@dataclass(frozen=True)
class Saturation:
    """Each pixel away from its own grey by `factor`; 0 is grey."""

    factor: float

    def needs(self, box: Box, height: int, width: int) -> Box:
        return box

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        matrix = np.empty((3, 4), np.float32)
        matrix[:, :3] = self.factor * np.eye(3) + (1 - self.factor) * LUMA
        matrix[:, 3] = CUT_OFF
        frames = cut(frames, at, box)
        out = np.empty(frames.shape, np.uint8)
        for source, target in zip(frames, out, strict=True):
            cv2.transform(source, matrix, dst=target)
        return out


@dataclass(frozen=True)
class Sharpness:
    """Each pixel away from the mean of its 3 x 3 neighbours, itself counted five times, by `factor`; 0 is blurred.

    The outermost pixels of a frame stay as they are.
    """

    factor: float

    def needs(self, box: Box, height: int, width: int) -> Box:
        return grown(box.top - 1, box.left - 1, box.top + box.height, box.left + box.width, height, width)

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        kernel = np.full((3, 3), (1 - self.factor) / 13, np.float32)
        kernel[1, 1] = 5 * (1 - self.factor) / 13 + self.factor
        out = np.empty(frames.shape, np.uint8)
        for source, target in zip(frames, out, strict=True):
            cv2.filter2D(source, -1, kernel, dst=target, delta=CUT_OFF, borderType=cv2.BORDER_REPLICATE)
        bottom, right = height - 1 - at.top, width - 1 - at.left
        for edge in (0 - at.top, bottom):
            if 0 <= edge < at.height:
                out[:, edge] = frames[:, edge]
        for edge in (0 - at.left, right):
            if 0 <= edge < at.width:
                out[:, :, edge] = frames[:, :, edge]
        return cut(out, at, box)
