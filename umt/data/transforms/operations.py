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


def lookup(frames: Frames, tables: NDArray[np.uint8]) -> Frames:
    """`tables` (256,) for all frames, (T, 256) one for each, or (T, 256, 3) one for each channel of each."""
    out = np.empty(frames.shape, np.uint8)
    each = np.broadcast_to(tables, (len(frames), 256)) if tables.ndim == 1 else tables[:, None]
    for source, target, table in zip(frames, out, each, strict=True):
        cv2.LUT(source, table, dst=target)
    return out


LEVELS = np.arange(256)


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers cut off to whole ones, as PIL does, within 0..255."""
    return np.clip(values, 0, 255).astype(np.uint8)


def blend_table(start: NDArray[np.int64] | int, factor: float) -> NDArray[np.uint8]:
    """(...) -> (..., 256): each level x becomes start + factor * (x - start), in PIL's float32."""
    first = np.asarray(start, np.float32)[..., None]
    return _bytes(first + np.float32(factor) * (LEVELS.astype(np.float32) - first))


def solarize_table(threshold: int) -> NDArray[np.uint8]:
    """Levels from `threshold` on are inverted."""
    return _bytes(np.where(threshold > LEVELS, LEVELS, 255 - LEVELS))


def solarize_add_table(add: int, threshold: int = 128) -> NDArray[np.uint8]:
    """Levels below `threshold` are raised by `add`."""
    return _bytes(np.where(threshold > LEVELS, LEVELS + add, LEVELS))


def posterize_table(bits: int) -> NDArray[np.uint8]:
    """The upper `bits` of each level; 0, which Pillow 13 refuses, leaves black."""
    return _bytes(LEVELS & (0xFF00 >> min(bits, 8)))


def autocontrast_tables(frames: Frames) -> NDArray[np.uint8]:
    """(T, H, W, 3) -> (T, 256, 3): the darkest level of each channel of a frame becomes 0, the brightest 255."""
    low = frames.min(1).min(1).astype(np.int64)[:, None]
    high = frames.max(1).max(1).astype(np.int64)[:, None]
    scale = 255.0 / np.maximum(high - low, 1)
    stretched = _bytes(LEVELS[:, None] * scale + -low * scale)
    return np.where(high > low, stretched, LEVELS[:, None].astype(np.uint8))


def equalize_tables(frames: Frames) -> NDArray[np.uint8]:
    """(T, H, W, 3) -> (T, 256, 3): the levels of each channel of a frame become evenly frequent."""
    counts = [
        [cv2.calcHist([frame], [channel], None, [256], [0, 256]).ravel() for channel in range(3)] for frame in frames
    ]
    found = np.array(counts, np.int64)  # (T, 3, 256)
    total = np.cumsum(found, -1)
    brightest = np.argmax(total == total[..., -1:], -1)[..., None]
    step = (total[..., -1:] - np.take_along_axis(found, brightest, -1)) // 255
    even = (step // 2 + total - found) // np.maximum(step, 1)
    return np.ascontiguousarray(_bytes(np.where(step > 0, even, LEVELS)).swapaxes(1, 2))


def contrast_tables(frames: Frames, factor: float) -> NDArray[np.uint8]:
    """(T, H, W, 3) -> (T, 256): away from the mean grey of a frame."""
    means = np.array([cv2.mean(frame)[:3] for frame in frames])
    return blend_table((means @ LUMA + 0.5).astype(np.int64), factor)


@dataclass(frozen=True)
class Table:
    """One table for all frames."""

    table: NDArray[np.uint8]

    def needs(self, box: Box, height: int, width: int) -> Box:
        return box

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        return lookup(cut(frames, at, box), self.table)


@dataclass(frozen=True)
class TablePerFrame:
    """A table for each frame, made from all its pixels: (T, H, W, 3) -> (T, 256) or (T, 256, 3)."""

    make: Callable[[Frames], NDArray[np.uint8]]

    needs = staticmethod(whole)

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        return lookup(cut(frames, at, box), self.make(frames))


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
