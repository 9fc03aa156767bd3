"""Pictures of the quickstart's report, as PNG bytes: curves, what the teacher looks at, masks, accuracies, predictions.

Shapes: T frames, H x W pixels, T' x N tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from umt import drawing
from umt.drawing import INK, Frames
from umt.evaluation.summary import Summary

Logs = Mapping[str, Sequence[Mapping[str, Any]]]

TEACHER, SCRATCH, PRETRAINED = "#9a6dd7", "#e0862f", "#2b8fd6"
RIGHT, WRONG = "#2f9e5b", "#d9534a"
_SCALE, _GAP = 2, 6  # enlargement of a frame, pixels between two


def heat(frames: Frames, saliency: NDArray[np.float32]) -> Frames:
    """frames (T, H, W, 3), saliency (T, h, w) -> the frames under a heat map, each scaled to its own maximum."""
    most = saliency.max(axis=(1, 2), keepdims=True)
    return drawing.heat(frames, saliency / np.maximum(most, 1e-12))


def strip(*rows: Frames, scale: int = _SCALE) -> NDArray[np.uint8]:
    """Rows of T frames (T, H, W, 3) of one size -> one picture (h, w, 4), the gaps transparent."""
    frames, height, width = rows[0].shape[:3]
    tall, wide = height * scale, width * scale
    picture = np.zeros((len(rows) * (tall + _GAP) - _GAP, frames * (wide + _GAP) - _GAP, 4), np.uint8)
    for r, row in enumerate(rows):
        for t, frame in enumerate(row):
            top, left = r * (tall + _GAP), t * (wide + _GAP)
            large = cv2.resize(frame, (wide, tall), interpolation=cv2.INTER_NEAREST)
            picture[top : top + tall, left : left + wide, :3] = large
            picture[top : top + tall, left : left + wide, 3] = 255
    return picture


def stack(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures (h, w, 4) of one width, one below the other."""
    gap = np.zeros((4 * _GAP, pictures[0].shape[1], 4), np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:])


def png(picture: NDArray[np.uint8]) -> bytes:
    """(h, w, 4) RGBA -> PNG."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA))[1].tobytes()


def curves(logs: Logs) -> bytes:
    """Losses above, their purpose below: of the teacher, of pretraining, of finetuning and training from scratch."""
    figure, axes = drawing.figure(2, 3, (12, 5.6))
    teacher, pretrain = logs["teacher"], logs["pretrain"]
    _line(axes[0, 0], teacher, "step", "loss", TEACHER, "teacher: loss")
    _line(axes[1, 0], teacher, "step", "accuracy", TEACHER, "teacher: correct captions of new frames, %")
    _line(axes[0, 1], pretrain, "epoch", "train_loss", PRETRAINED, "pretraining: alignment loss")
    _line(axes[1, 1], pretrain, "epoch", "train_cosine", PRETRAINED, "pretraining: cosine with the teacher")
    for name, key, colour in (("from scratch", "scratch", SCRATCH), ("pretrained", "finetune", PRETRAINED)):
        _line(axes[0, 2], logs[key], "epoch", "train_loss", colour, "finetuning: training loss", name)
        _line(axes[1, 2], logs[key], "epoch", "val_acc1", colour, "finetuning: validation top-1, %", name)
    for axis in axes[:, 2]:
        axis.legend(frameon=False, labelcolor=INK)
    for axis in (axes[1, 0], axes[1, 2]):
        axis.set_ylim(0, 102)
    return drawing.save(figure)


def accuracies(scratch: Summary, pretrained: Summary) -> bytes:
    """Top-1 by number of clips and crops for both runs, and top-1 of every class."""
    from matplotlib.gridspec import GridSpec

    figure, _ = drawing.figure(0, 0, (12, 5.6))
    layout = GridSpec(2, 2, figure=figure, width_ratios=[1, 1.7])
    runs = (("from scratch", scratch, SCRATCH), ("pretrained", pretrained, PRETRAINED))
    for place, (name, run, colour) in enumerate(runs):
        axis = drawing.dress(figure.add_subplot(layout[place, 0]), f"{name}: merged top-1 by views, %", grid=False)
        grid = np.array([[cell.top1 for cell in row] for row in run.grid])
        low, high = grid.min(), grid.max()
        for s, c in np.ndindex(*grid.shape):
            depth = 0.25 + 0.55 * (grid[s, c] - low) / max(high - low, 1e-9)
            axis.add_patch(_cell(c, s, colour, depth))
            axis.text(c, s, f"{grid[s, c]:.1f}", ha="center", va="center", color="#1d2129", fontweight="bold")
        axis.set_xlim(-0.5, run.crops - 0.5)
        axis.set_ylim(run.clips - 0.5, -0.5)
        axis.set_xticks(range(run.crops), [_count(c + 1, "crop") for c in range(run.crops)])
        axis.set_yticks(range(run.clips), [_count(s + 1, "clip") for s in range(run.clips)])
        axis.tick_params(length=0)
        for edge in axis.spines.values():
            edge.set_visible(False)
    axis = drawing.dress(figure.add_subplot(layout[:, 1]), "merged top-1 of every class, %")
    names = [line.name for line in pretrained.classes]
    for shift, (name, run, colour) in zip((-0.2, 0.2), runs, strict=True):
        axis.barh(
            np.arange(len(names)) + shift, [line.top1 or 0 for line in run.classes], 0.36, color=colour, label=name
        )
    axis.grid(False, axis="y")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlim(0, 102)
    figure.legend(loc="outside lower right", ncols=2, frameon=False, labelcolor=INK)
    return drawing.save(figure)


def predictions(cards: Sequence[Mapping[str, Any]]) -> bytes:
    """The prediction cards of the page as one picture: frames, the true class, and each run's answer."""
    figure, axes = drawing.figure(-(-len(cards) // 2), 2, (12, 1.25 * -(-len(cards) // 2) + 0.4))
    for axis in axes.flat:
        axis.axis("off")
    for axis, card in zip(axes.flat, cards, strict=False):
        axis.imshow(card["picture"])
        axis.set_title(card["truth"], color=INK, loc="left", fontsize=10, fontweight="bold")
        for place, (answer, across) in enumerate(zip(card["answers"], (0.0, 0.5), strict=True)):
            sign, colour = ("right", RIGHT) if answer["right"] else ("wrong", WRONG)
            text = f"{answer['run']}, {sign}: {answer['name']} {answer['probability']:.0%}"
            axis.text(across, -0.08, text, transform=axis.transAxes, va="top", color=colour, fontsize=8, zorder=place)
    return drawing.save(figure)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number > 1)}"


def _cell(x: float, y: float, colour: str, depth: float) -> Any:
    """A cell of a table around (x, y), `depth` of the way from white to `colour`, so that dark text is legible."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=[1 - depth * (1 - part) for part in to_rgb(colour)])


def _line(
    axis: Any, log: Sequence[Mapping[str, Any]], across: str, key: str, colour: str, title: str, name: str | None = None
) -> None:
    lines = [line for line in log if key in line and across in line]
    shift = across == "epoch"  # the log counts epochs from 0; a point stands where its epoch ended
    drawing.dress(axis, title)
    axis.plot(
        [line[across] + shift for line in lines], [line[key] for line in lines],
        color=colour, linewidth=2, marker="o", markersize=3.5, label=name,
    )  # fmt: skip
    axis.set_xlabel(across, color=INK, fontsize=9)
    axis.xaxis.get_major_locator().set_params(integer=True)
