"""What all pages draw with: one look for figures, patches that are not seen, pictures as data URIs.

Backgrounds are transparent and lines of middle brightness, so that one picture reads on a light page and on a dark one.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

INK = "#80868f"
Frames = NDArray[np.uint8]


def masked(frames: Frames, visible: NDArray[np.bool_]) -> Frames:
    """frames (T, H, W, 3), visible (T, h, w) -> the frames with the patches that the student does not see greyed."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(frames.shape[1:3], visible.shape[1:], strict=True))
    seen = visible[:, rows[:, None], columns[None]][..., None]
    hidden = 96 + 0.16 * (frames.mean(-1, keepdims=True) - 96)
    return np.where(seen, frames, hidden).astype(np.uint8)


def heat(frames: Frames, weight: NDArray[np.float32]) -> Frames:
    """frames (T, H, W, 3), weight (T, h, w) in 0..1 -> the frames, grey, under a smooth heat map."""
    import cv2

    painted = []
    for frame, own in zip(frames, weight, strict=True):
        smooth = cv2.resize(own, frame.shape[1::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)
        colour = cv2.applyColorMap((smooth * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        grey = np.repeat(frame.mean(-1, keepdims=True), 3, -1)
        share = 0.35 + 0.5 * smooth[..., None]
        painted.append((1 - share) * grey + share * colour)
    return np.stack(painted).astype(np.uint8)


def tiled(frames: Frames, value: NDArray[np.float32]) -> Frames:
    """frames (T, H, W, 3), value (T, h, w) in 0..1 -> the frames, grey, under a colour for each token."""
    import cv2

    painted = []
    for frame, own in zip(frames, value, strict=True):
        tiles = cv2.resize((own * 255).round().astype(np.uint8), frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        colour = cv2.applyColorMap(tiles, cv2.COLORMAP_VIRIDIS)[..., ::-1]
        painted.append(0.3 * frame.mean(-1, keepdims=True) + 0.7 * colour)
    return np.stack(painted).astype(np.uint8)


def figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A matplotlib figure of `size` inches and its (rows, columns) axes; of 0 rows it has None."""
    # Figure and canvas by hand: pyplot would pick a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False) if rows else None
    return figure, axes


def dress(axis: Any, title: str, *, grid: bool = True, points: int = 9) -> Any:
    """Gives an axis its title and look; `points` is the size of the numbers. Returns it."""
    axis.set_title(title, color=INK, fontsize=points + 2, loc="left")
    axis.patch.set_alpha(0)
    axis.tick_params(colors=INK, labelsize=points)
    for side, edge in axis.spines.items():
        edge.set_color(INK)
        edge.set_visible(side in ("left", "bottom"))
    if grid:
        axis.grid(color=INK, alpha=0.2, linewidth=0.8)
        axis.set_axisbelow(True)
    return axis


def save(figure: Any) -> bytes:
    """A matplotlib figure -> PNG."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=110, transparent=True)
    return target.getvalue()


def data_uri(picture: bytes, kind: str = "png") -> str:
    """An encoded picture as what a page can hold in itself."""
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()


def fitted(text: str, width: float, font: Any) -> str:
    """Text cut to `width` pixels in a font of PIL."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
