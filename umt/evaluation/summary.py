"""What a test reports, computed from its scores alone: a saved scores file gives the same numbers again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.errors import ScoresError
from umt.evaluation.metrics import ClassAccuracy, bootstrap_interval, per_class, top_k
from umt.evaluation.multiview import rank_views
from umt.evaluation.scores import ViewScores


@dataclass(frozen=True)
class Accuracy:
    """Percent of videos (or views, or clips) whose class is first, and among the first five."""

    top1: float
    top5: float


@dataclass(frozen=True)
class Summary:
    """Numbers of one test over `videos` videos, `unreadable` of which could not be read and count as wrong."""

    videos: int
    clips: int
    crops: int
    merged: Accuracy  # all views of a video merged: the number to report
    interval: tuple[float, float]  # 95 % bootstrap interval of the merged top-1
    per_view: Accuracy  # mean over single views
    per_clip: Accuracy  # mean over clips with their crops merged
    mean_class_top1: float  # mean of the per-class top-1 over the classes that have videos
    grid: list[list[Accuracy]]  # [clips - 1][crops - 1]: merged over fewer views of the same pass
    classes: list[ClassAccuracy]
    unreadable: dict[int, str]
    provenance: dict[str, str | int | float]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; a class without videos has null percents."""
        return dataclasses.asdict(self)

    def metrics(self) -> dict[str, float]:
        """What log.txt has of the test."""
        return {"Final top-1": self.merged.top1, "Final Top-5": self.merged.top5}

    def table(self) -> str:
        """The summary as aligned text for a console."""
        low, high = self.interval
        lines = [
            f"{self.videos} videos, {self.clips} clips x {self.crops} crops",
            f"{'':<22}{'top-1':>8}{'top-5':>8}",
            f"{'merged':<22}{self.merged.top1:>8.2f}{self.merged.top5:>8.2f}   95 % interval {low:.2f} to {high:.2f}",
            f"{'per clip':<22}{self.per_clip.top1:>8.2f}{self.per_clip.top5:>8.2f}",
            f"{'per view':<22}{self.per_view.top1:>8.2f}{self.per_view.top5:>8.2f}",
            f"{'mean over classes':<22}{self.mean_class_top1:>8.2f}",
        ]
        if self.clips * self.crops > 1:
            lines.append("top-1 by views        " + "".join(f"{c + 1:>3} crop" for c in range(self.crops)))
            lines += [
                f"{f'{s + 1} clip':>22}" + "".join(f"{cell.top1:>8.2f}" for cell in row)
                for s, row in enumerate(self.grid)
            ]
        if self.unreadable:
            lines.append(
                f"{len(self.unreadable)} unreadable videos count as wrong; rows {sorted(self.unreadable)[:10]}"
            )
        return "\n".join(lines)


def summarise(scores: ViewScores) -> Summary:
    """All numbers of a complete test. ScoresError if a view is missing, or a video has no label or several."""
    scores.require_complete()
    if not len(scores):
        raise ScoresError("the test list is empty: there is nothing to report.")
    label = _labels(scores.labels, scores.classes, scores.paths)
    wrong = np.isin(scores.rows, list(scores.unreadable))
    ranks = rank_views(scores.logits, label)
    for rank in (ranks.view, ranks.clip, ranks.merged):
        rank[wrong] = scores.classes
    ranks.grid[..., wrong] = scores.classes
    classes = per_class(ranks.merged, label, scores.classes, scores.class_names or None)
    return Summary(
        videos=len(scores),
        clips=scores.clips,
        crops=scores.crops,
        merged=_accuracy(ranks.merged),
        interval=bootstrap_interval(ranks.merged == 0),
        per_view=_accuracy(ranks.view),
        per_clip=_accuracy(ranks.clip),
        mean_class_top1=float(np.mean([line.top1 for line in classes if line.top1 is not None])),
        grid=[[_accuracy(ranks.grid[s, c]) for c in range(scores.crops)] for s in range(scores.clips)],
        classes=classes,
        unreadable=dict(sorted(scores.unreadable.items())),
        provenance=scores.provenance,
    )


def _accuracy(rank: NDArray[np.int64]) -> Accuracy:
    return Accuracy(top_k(rank, 1), top_k(rank, 5))


def _labels(labels: NDArray[np.int64], classes: int, paths: Sequence[str]) -> NDArray[np.int64]:
    if labels.ndim == 2:
        raise ScoresError("these are scores of a multi-label list, whose videos have no one class to be right about.")
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if bad.size:
        raise ScoresError(
            f"{paths[bad[0]]}: label {labels[bad[0]]} is outside 0..{classes - 1}, so there is no accuracy "
            f"({bad.size} such videos). The scores themselves are usable."
        )
    return labels
