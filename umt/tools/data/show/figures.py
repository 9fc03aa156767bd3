"""Pictures of the page as data URIs: strips of frames with their numbers and masks, and histograms.

No text of a list is drawn here, only numbers: names are the page's to escape.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from umt import drawing
from umt.drawing import INK, Frames

BAR, SECOND = "#2b8fd6", "#e0862f"
_POINTS = 8  # of the numbers at an axis
_SIDE, _GAP, _LINE = 160, 6, 20  # pixels: height of a frame, between two, of a line of numbers
_ACROSS = 8  # frames side by side
Picture = NDArray[np.uint8]


def strip(rows: Sequence[Frames], numbers: Sequence[int]) -> Picture:
    """Rows of T frames (T, H, W, 3), one below the other, `numbers` above each frame -> (h, w, 4)."""
    count, height, width = rows[0].shape[:3]
    wide = max(round(_SIDE * width / height), 1)
    across = min(count, _ACROSS)
    lines = -(-count // across)
    tall = _LINE + len(rows) * (_SIDE + _GAP)
    picture = np.zeros((lines * tall, across * (wide + _GAP) - _GAP, 4), np.uint8)
    for t, number in enumerate(numbers):
        top, left = t // across * tall, t % across * (wide + _GAP)
        _write(picture, str(number), left, top + _LINE - 6)
        for r, row in enumerate(rows):
            y = top + _LINE + r * (_SIDE + _GAP)
            shrinks = height > _SIDE
            how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
            picture[y : y + _SIDE, left : left + wide, :3] = cv2.resize(row[t], (wide, _SIDE), interpolation=how)
            picture[y : y + _SIDE, left : left + wide, 3] = 255
    return picture


def _write(picture: Picture, text: str, left: int, baseline: int) -> None:
    stroke = np.zeros(picture.shape[:2], np.uint8)
    cv2.putText(stroke, text, (left, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 255, 1, cv2.LINE_AA)
    here = stroke > 0
    picture[here] = (0x80, 0x86, 0x8F, 0)
    picture[..., 3] |= stroke


def webp(picture: Picture) -> str:
    """(h, w, 4) RGBA -> a data URI, about a tenth of the size of PNG for filmed frames."""
    done, encoded = cv2.imencode(".webp", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_WEBP_QUALITY, 85])
    assert done
    return drawing.data_uri(encoded.tobytes(), "webp")


def classes(counts: NDArray[np.int64]) -> str:
    """Videos of each class, in the order of the labels and in that of their numbers."""
    figure, ((left, right),) = drawing.figure(1, 2, (10, 2.6))
    drawing.dress(left, "videos of each class, by label", points=_POINTS)
    left.bar(np.arange(len(counts)), counts, width=0.9 if len(counts) < 100 else 1.0, color=BAR)
    left.set_xlabel("label", color=INK, fontsize=9)
    drawing.dress(right, "the same, from the largest class to the smallest", points=_POINTS)
    right.fill_between(np.arange(len(counts)), np.sort(counts)[::-1], step="mid", color=BAR, alpha=0.35)
    right.step(np.arange(len(counts)), np.sort(counts)[::-1], where="mid", color=BAR)
    right.set_xlabel("rank", color=INK, fontsize=9)
    for axis in (left, right):
        axis.set_ylim(bottom=0)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return drawing.data_uri(drawing.save(figure))


def histograms(columns: Sequence[tuple[str, Sequence[float]]]) -> str:
    """One small histogram for each (title, values)."""
    figure, (axes,) = drawing.figure(1, len(columns), (10, 2.4))
    for axis, (title, values) in zip(axes, columns, strict=True):
        drawing.dress(axis, title, points=_POINTS)
        axis.hist(values, bins=min(30, max(len(set(values)), 3)), color=BAR)
        axis.yaxis.get_major_locator().set_params(integer=True)
    return drawing.data_uri(drawing.save(figure))


def sizes(pairs: Sequence[tuple[int, int]]) -> str:
    """Width against height: a dot for each size, larger where there are more."""
    unique, counts = np.unique(np.array(pairs), axis=0, return_counts=True)
    figure, ((axis,),) = drawing.figure(1, 1, (4.4, 2.8))
    drawing.dress(axis, "width and height in pixels", points=_POINTS)
    axis.scatter(unique[:, 0], unique[:, 1], s=20 + 180 * counts / counts.max(), color=SECOND, alpha=0.7, linewidths=0)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.margins(0.15)
    return drawing.data_uri(drawing.save(figure))
