"""RandAugment's shears, shifts and rotations of whole clips; see `operations` for what a `Step` is.

As in PIL, an output pixel whose centre comes from outside the frame gets the fill, and taps outside repeat the border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from umt.data.transforms.operations import CUT_OFF, Box, grown
from umt.data.transforms.resize import Frames

FILL = 128  # what a warp uncovers
PAD = 2  # pixels that interpolation reads beyond the border


def weights(fractions: NDArray[np.float64], cubic: bool) -> NDArray[np.float32]:
    """(N,) -> (N, 4): of pixels -1, 0, 1, 2 for places between 0 and 1. PIL's cubic has the parameter -1."""
    d = fractions
    if cubic:
        taps = [-d + 2 * d**2 - d**3, 1 - 2 * d**2 + d**3, d + d**2 - d**3, -(d**2) + d**3]
    else:
        taps = [0 * d, 1 - d, d, 0 * d]
    return np.stack(taps, -1).astype(np.float32)


@dataclass(frozen=True)
class Slide:
    """Shear or shift: output pixel x of row y comes from x + slope * (y + 1/2) + share * W. `vertical`: columns slide.

    All pixels of a row are interpolated alike, by a filter of four taps.
    """

    slope: float
    share: float
    vertical: bool
    cubic: bool

    def needs(self, box: Box, height: int, width: int) -> Box:
        """All rows of the box, and what its first and last slide over."""
        if self.vertical:
            return _turned(self._needs(_turned(box), width, height))
        return self._needs(box, height, width)

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        """See `Step`."""
        if self.vertical:
            return _transposed(self._slide(_transposed(frames), _turned(at), _turned(box), height))
        return self._slide(frames, at, box, width)

    def _shifts(self, box: Box, width: int) -> NDArray[np.float64]:
        """How far each row of the box slides. A shift, where all slide alike, has one entry for all."""
        rows = np.arange(box.top, box.top + (box.height if self.slope else 1), dtype=np.float64)
        return self.slope * (rows + 0.5) + self.share * width

    def _needs(self, box: Box, height: int, width: int) -> Box:
        shifts = self._shifts(box, width)
        left, right = box.left + shifts.min() - 2, box.left + box.width + shifts.max() + 2
        return grown(box.top, left, box.top + box.height - 1, right, height, width)

    def _slide(self, frames: Frames, at: Box, box: Box, width: int) -> Frames:
        pad = PAD if at.left == 0 or at.left + at.width == width else 0  # inside a frame there is no border to repeat
        padded = _padded(frames, 0, pad)
        shifts = self._shifts(box, width)
        whole = np.floor(shifts)
        taps = weights(shifts - whole, self.cubic)[:, None]
        first = np.maximum(np.ceil(-shifts - 0.5), box.left)
        last = np.minimum(np.ceil(width - shifts - 0.5), box.left + box.width)
        spans = np.stack([first - box.left, last - box.left, first + whole - at.left + pad - 1], -1).astype(np.int64)
        out = np.empty((len(frames), box.height, box.width, 3), np.uint8)
        if spans[:, 0].any() or (spans[:, 1] < box.width).any():
            out.fill(FILL)
        for source, target, kernel, (start, stop, begin) in zip(
            self._lines(padded), self._lines(out), taps, spans.tolist(), strict=True
        ):
            if start < stop:
                strip = source[:, begin : begin + stop - start + 3]
                target[:, start:stop] = cv2.filter2D(strip, -1, kernel, anchor=(1, 0), delta=CUT_OFF)[:, 1:-2]
        return out

    def _lines(self, frames: Frames) -> Frames:
        """(T, H, W, 3) -> rows that slide alike: one from each frame (H, T, W, 3), or all (1, T * H, W, 3)."""
        return frames.swapaxes(0, 1) if self.slope else frames.reshape(1, -1, *frames.shape[2:])


@dataclass(frozen=True)
class Rotation:
    """Counter-clockwise about the centre of the frame, which keeps its size."""

    degrees: float
    cubic: bool

    def needs(self, box: Box, height: int, width: int) -> Box:
        """What the corners of the box come from."""
        corners = np.array([[x, y, 1] for y in (0, box.height - 1) for x in (0, box.width - 1)])
        x, y = self._matrix(box, height, width) @ corners.T
        return grown(y.min() - 2, x.min() - 2, y.max() + 3, x.max() + 3, height, width)

    def __call__(self, frames: Frames, at: Box, box: Box, height: int, width: int) -> Frames:
        """See `Step`."""
        matrix = self._matrix(box, height, width)
        columns, rows = np.arange(box.width), np.arange(box.height)[:, None]
        x, y = (row[0] * columns + row[2] + row[1] * rows for row in matrix)
        outside = ((x < -0.5) | (x >= width - 0.5) | (y < -0.5) | (y >= height - 0.5)).astype(np.uint8)
        matrix[:, 2] += PAD - at.left, PAD - at.top
        flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_CUBIC if self.cubic else cv2.INTER_LINEAR)
        fill = np.full((box.height, box.width, 3), FILL, np.uint8)
        out = np.empty((len(frames), box.height, box.width, 3), np.uint8)
        # The padded border and a constant beyond it keep what is outside from being interpolated.
        for source, target in zip(_padded(frames, PAD, PAD), out, strict=True):
            cv2.warpAffine(
                source, matrix, (box.width, box.height), dst=target, flags=flags, borderMode=cv2.BORDER_CONSTANT
            )
            cv2.copyTo(fill, outside, dst=target)
        return out

    def _matrix(self, box: Box, height: int, width: int) -> NDArray[np.float64]:
        """(2, 3): from (x, y, 1) in the box to the place in the frame; whole numbers are centres of pixels."""
        angle = math.radians(self.degrees)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        centre = np.array([width / 2, height / 2])
        start = turn @ (np.array([box.left, box.top]) + 0.5 - centre) + centre - 0.5
        return np.column_stack([turn, start])


def _turned(box: Box) -> Box:
    return Box(box.left, box.top, box.width, box.height)


def _padded(frames: Frames, rows: int, columns: int) -> Frames:
    """(T, H, W, 3) -> (T, H + 2 * rows, W + 2 * columns, 3): the border repeated."""
    if not rows and not columns:
        return frames
    out = np.empty((len(frames), frames.shape[1] + 2 * rows, frames.shape[2] + 2 * columns, 3), np.uint8)
    for source, target in zip(frames, out, strict=True):
        cv2.copyMakeBorder(source, rows, rows, columns, columns, cv2.BORDER_REPLICATE, dst=target)
    return out


def _transposed(frames: Frames) -> Frames:
    """(T, H, W, 3) -> (T, W, H, 3)."""
    out = np.empty((len(frames), frames.shape[2], frames.shape[1], 3), np.uint8)
    for source, target in zip(frames, out, strict=True):
        cv2.transpose(source, dst=target)
    return out
