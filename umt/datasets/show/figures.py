"""Pictures of the page as data URIs: strips of frames with their numbers and masks, and histograms.

Backgrounds are transparent and lines of middle brightness, so that a picture reads on a light page and on a dark one.
No text of a list is drawn here, only numbers: names are the page's to escape.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from umt.data.decoders import Frames

INK, BAR, SECOND = "#80868f", "#2b8fd6", "#e0862f"
_SIDE, _GAP, _LINE = 160, 6, 20  # pixels: height of a frame, between two, of a line of numbers
_ACROSS = 8  # frames side by side
Picture = NDArray[np.uint8]


def masked(frames: Frames, visible: NDArray[np.bool_]) -> Frames:
    """frames (T, H, W, 3), visible (T, h, w) -> the frames with the patches that the student does not see greyed."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(frames.shape[1:3], visible.shape[1:], strict=True))
    seen = visible[:, rows[:, None], columns[None]][..., None]
    hidden = 96 + 0.16 * (frames.mean(-1, keepdims=True) - 96)
    return np.where(seen, frames, hidden).astype(np.uint8)


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
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()


def classes(counts: NDArray[np.int64]) -> str:
    """Videos of each class, in the order of the labels and in that of their numbers."""
    figure, (left, right) = _figure(2, (10, 2.6))
    _dress(left, "videos of each class, by label")
    left.bar(np.arange(len(counts)), counts, width=0.9 if len(counts) < 100 else 1.0, color=BAR)
    left.set_xlabel("label", color=INK, fontsize=9)
    _dress(right, "the same, from the largest class to the smallest")
    right.fill_between(np.arange(len(counts)), np.sort(counts)[::-1], step="mid", color=BAR, alpha=0.35)
    right.step(np.arange(len(counts)), np.sort(counts)[::-1], where="mid", color=BAR)
    right.set_xlabel("rank", color=INK, fontsize=9)
    for axis in (left, right):
        axis.set_ylim(bottom=0)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return _save(figure)


def histograms(columns: Sequence[tuple[str, Sequence[float]]]) -> str:
    """One small histogram for each (title, values)."""
    figure, axes = _figure(len(columns), (10, 2.4))
    for axis, (title, values) in zip(axes, columns, strict=True):
        _dress(axis, title)
        axis.hist(values, bins=min(30, max(len(set(values)), 3)), color=BAR)
        axis.yaxis.get_major_locator().set_params(integer=True)
    return _save(figure)


def sizes(pairs: Sequence[tuple[int, int]]) -> str:
    """Width against height: a dot for each size, larger where there are more."""
    found, counts = np.unique(np.array(pairs), axis=0, return_counts=True)
    figure, (axis,) = _figure(1, (4.4, 2.8))
    _dress(axis, "width and height in pixels")
    axis.scatter(found[:, 0], found[:, 1], s=20 + 180 * counts / counts.max(), color=SECOND, alpha=0.7, linewidths=0)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.margins(0.15)
    return _save(figure)


def _figure(columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    # Figure and canvas by hand: pyplot would pick a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _dress(axis: Any, title: str) -> None:
    axis.set_title(title, color=INK, fontsize=10, loc="left")
    axis.patch.set_alpha(0)
    axis.tick_params(colors=INK, labelsize=8)
    for side, edge in axis.spines.items():
        edge.set_color(INK)
        edge.set_visible(side in ("left", "bottom"))
    axis.grid(color=INK, alpha=0.2, linewidth=0.8)
    axis.set_axisbelow(True)


def _save(figure: Any) -> str:
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110, transparent=True)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()
