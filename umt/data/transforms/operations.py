"""RandAugment's operations on whole clips by OpenCV, held to those on PIL images, which timm calls frame by frame.

An operation is a `Step`: it makes the pixels of a box from those pixels of its input that they depend on. `apply` walks
back from the box that is needed and so computes nothing outside it: the result is the box cut out of whole frames, to
the bit except for rotations. A test (`tests/data/transforms/test_operations.py`) limits the distance from PIL, in grey
levels of 255 at any magnitude: inverting, posterizing, solarizing and equalizing are equal; the others differ by at
most 1, except rotations of decoded video (`warps`), by at most 2 on 99.8 % of the pixels: OpenCV's cubic kernel has
the parameter -0.75 and PIL's -1.

Letters: T frames of H x W pixels. Shapes of frames are (T, H, W, 3), uint8, RGB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
    for step, at, needed in zip(steps, boxes, boxes[1:], strict=False):
        frames = step(frames, at, needed, height, width)
    return frames


def cut(frames: Frames, at: Box, box: Box) -> Frames:
    """A view of `box` in `frames`, which themselves are the box `at`."""
    top, left = box.top - at.top, box.left - at.left
    return frames[:, top : top + box.height, left : left + box.width]


def whole(box: Box, height: int, width: int) -> Box:
    """`Step.needs` of an operation that looks at all pixels of a frame."""
    return Box(0, 0, height, width)


def grown(top: float, left: float, bottom: float, right: float, height: int, width: int) -> Box:
    """Rows top..bottom and columns left..right, both ends included, within the frame; never empty."""
    first, last = min(max(math.floor(top), 0), height - 1), max(min(math.ceil(bottom), height - 1), 0)
    begin, end = min(max(math.floor(left), 0), width - 1), max(min(math.ceil(right), width - 1), 0)
    return Box(first, begin, max(last - first, 0) + 1, max(end - begin, 0) + 1)


def brightness(factor: float) -> NDArray[np.float32]:
    """(3, 4), see `Linear`: each level times `factor`."""
    return _linear(factor * np.eye(3), 0)


def saturation(factor: float) -> NDArray[np.float32]:
    """(3, 4), see `Linear`: each pixel away from its own grey by `factor`; 0 is grey."""
    return _linear(factor * np.eye(3) + (1 - factor) * LUMA, 0)


def contrast(frames: Frames, factor: float) -> NDArray[np.float32]:
    """(T, H, W, 3) -> (T, 3, 4), see `Linear`: each pixel away from the mean grey of its frame by `factor`."""
    means = np.floor([LUMA @ cv2.mean(frame)[:3] + 0.5 for frame in frames])
    return _linear(np.broadcast_to(factor * np.eye(3), (len(frames), 3, 3)), (1 - factor) * means[:, None])


def autocontrast(frames: Frames) -> NDArray[np.float32]:
    """(T, H, W, 3) -> (T, 3, 4), see `Linear`: each channel of a frame is stretched to 0..255, a flat one stays."""
    low, high = frames.min(1).min(1).astype(np.float64), frames.max(1).max(1)
    scale = np.where(high > low, 255 / np.maximum(high - low, 1), 1)
    return _linear(scale[..., None] * np.eye(3), np.where(high > low, -low * scale, 0))


def _linear(weights: NDArray[np.float64], constant: NDArray[np.float64] | float) -> NDArray[np.float32]:
    """(..., 3, 3) and (..., 3) -> (..., 3, 4), which cuts off as PIL does."""
    matrix = np.empty((*weights.shape[:-1], 4), np.float32)
    matrix[..., :3], matrix[..., 3] = weights, constant + CUT_OFF
    return matrix


@dataclass(frozen=True)
class Linear:
    """Each channel becomes a weighted sum of red, green, blue and 1.

    `weights`: (3, 4), or a function of all pixels, (T, H, W, 3) -> (T, 3, 4).
    """

    weights: NDArray[np.float32] | Callable[[Frames], NDArray[np.float32]]

    def needs(self, box: Box, height: int, width: int) -> Box:
        """See `Step`."""
        return whole(box, height, width) if callable(self.weights) else box

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        """See `Step`."""
        weights = self.weights(frames) if callable(self.weights) else self.weights
        frames = cut(frames, at, box)
        out = np.empty(frames.shape, np.uint8)
        for source, target, matrix in zip(frames, out, np.broadcast_to(weights, (len(frames), 3, 4)), strict=True):
            cv2.transform(source, matrix, dst=target)
        return out


class Pointwise:
    """An operation that changes each level by itself, in the same way everywhere."""

    def needs(self, box: Box, height: int, width: int) -> Box:
        """See `Step`."""
        return box

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        """See `Step`."""
        frames = cut(frames, at, box)
        out = np.empty(frames.shape, np.uint8)
        for source, target in zip(frames, out, strict=True):
            self.change(source, target)
        return out

    def change(self, source: Frames, target: Frames) -> None:
        """(h, w, 3): from one frame to another."""
        raise NotImplementedError


@dataclass(frozen=True)
class Posterize(Pointwise):
    """Keeps the upper `bits` of each level; 0, which Pillow 13 refuses, leaves black."""

    bits: int

    def change(self, source: Frames, target: Frames) -> None:
        np.bitwise_and(source, np.uint8(0xFF00 >> min(self.bits, 8) & 0xFF), out=target)


@dataclass(frozen=True)
class Solarize(Pointwise):
    """Inverts levels from `threshold` on; with 0 all."""

    threshold: int

    def change(self, source: Frames, target: Frames) -> None:
        cv2.threshold(source, self.threshold - 1, 255, cv2.THRESH_BINARY, dst=target)
        cv2.bitwise_xor(source, target, dst=target)


@dataclass(frozen=True)
class SolarizeAdd(Pointwise):
    """Raises levels below 128 by `add`."""

    add: int

    def change(self, source: Frames, target: Frames) -> None:
        cv2.threshold(source, 127, self.add, cv2.THRESH_BINARY_INV, dst=target)
        cv2.add(source, target, dst=target)


@dataclass(frozen=True)
class Equalize:
    """Makes the levels of each channel of a frame evenly frequent."""

    needs = staticmethod(whole)

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        """See `Step`."""
        tables = equalize_tables(frames)
        frames = cut(frames, at, box)
        out = np.empty(frames.shape, np.uint8)
        for source, target, table in zip(frames, out, tables, strict=True):
            cv2.LUT(source, table[None], dst=target)
        return out


def equalize_tables(frames: Frames) -> NDArray[np.uint8]:
    """(T, H, W, 3) -> (T, 256, 3): a level becomes the share of darker pixels, by PIL's whole numbers."""
    counts = [
        [cv2.calcHist([frame], [channel], None, [256], [0, 256]).ravel() for channel in range(3)] for frame in frames
    ]
    histogram = np.array(counts, np.int64)  # (T, 3, 256)
    total = np.cumsum(histogram, -1)
    brightest = np.argmax(total == total[..., -1:], -1)[..., None]
    step = (total[..., -1:] - np.take_along_axis(histogram, brightest, -1)) // 255
    even = (step // 2 + total - histogram) // np.maximum(step, 1)
    tables = np.where(step > 0, np.minimum(even, 255), np.arange(256)).astype(np.uint8)
    return np.ascontiguousarray(tables.swapaxes(1, 2))


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
