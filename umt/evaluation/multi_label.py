"""What a test reports where a video has several labels or none: average precision and F1, from scores alone.

A class is a question of its own, answered by a sigmoid; views of a video are merged by the mean of their sigmoids.
Shapes: R videos, S clips, C crops, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.errors import ScoresError
from umt.evaluation.scores import ViewScores

Floats = NDArray[np.floating]
Truth = NDArray[np.bool_]
YES = 0.5  # probability from which on a class counts as predicted


def sigmoid(logits: Floats) -> NDArray[np.float64]:
    """The logistic function, in float64; it neither overflows nor warns."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def merge_sigmoids(logits: Floats) -> NDArray[np.float64]:
    """logits (R, S, C, K) -> probabilities (R, K), the mean over views."""
    merged = np.empty((logits.shape[0], logits.shape[-1]))
    for row, views in enumerate(logits):
        merged[row] = sigmoid(views).mean(axis=(0, 1))
    return merged


def average_precision(score: Floats, truth: Truth) -> float:
    """score, truth (R,) -> the sum over thresholds of precision times the recall that each adds; nan without a yes.

    The definition of scikit-learn's `average_precision_score`: videos of equal score come in together, and nothing is
    interpolated.
    """
    positives = int(np.count_nonzero(truth))
    if not positives:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ordered, hits = score[order], np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each run of equal scores
    precision = hits[last] / (last + 1)
    added = np.diff(hits[last], prepend=0) / positives
    return float((precision * added).sum())


def average_precisions(score: Floats, truth: Truth) -> NDArray[np.float64]:
    """score, truth (R, K) -> (K,), nan where no video has the class."""
    return np.array([average_precision(score[:, k], truth[:, k]) for k in range(score.shape[1])])


@dataclass(frozen=True)
class MultiLabelScores:
    """Percent. Means over classes leave out those that no video has."""

    map: float  # mean over classes of the average precision
    f1_micro: float  # of all answers together, at 0.5
    f1_macro: float  # mean over classes
    exact: float  # of videos whose labels are all right, and no others

    @classmethod
    def of(cls, probability: Floats, truth: Truth) -> MultiLabelScores:
        """probability (R, K) and truth (R, K) -> the numbers; nan where there is no yes at all."""
        predicted = probability >= YES
        each = average_precisions(probability, truth)
        micro = _f1(*(int(np.count_nonzero(part)) for part in (predicted & truth, predicted, truth)))
        return cls(
            map=100 * _mean(each),
            f1_micro=100 * float(micro),
            f1_macro=100 * _mean(np.where(truth.any(0), class_f1(predicted, truth), np.nan)),
            exact=100 * float((predicted == truth).all(1).mean()) if len(truth) else float("nan"),
        )


def class_f1(predicted: Truth, truth: Truth) -> NDArray[np.float64]:
    """predicted, truth (R, K) -> F1 of each class (K,); 0 where it has neither yes nor answer."""
    both = np.stack([(predicted & truth).sum(0), predicted.sum(0), truth.sum(0)])
    return np.array([_f1(int(hit), int(yes), int(true)) for hit, yes, true in both.T])


def _f1(hits: int, predicted: int, true: int) -> float:
    return 2 * hits / (predicted + true) if predicted + true else 0.0


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


@dataclass(frozen=True)
class ClassPrecision:
    """One line of the per-class table; percents are None for a class that no video has."""

    index: int
    name: str
    videos: int
    average_precision: float | None
    f1: float | None


@dataclass(frozen=True)
class MultiLabelSummary:
    """Numbers of one test; `unreadable` videos have no yes, whatever their labels."""

    videos: int
    clips: int
    crops: int
    merged: MultiLabelScores  # all views of a video merged: the numbers to report
    one_view: MultiLabelScores  # of the middle clip and crop
    labels_per_video: float
    classes: list[ClassPrecision]
    unreadable: dict[int, str]
    provenance: dict[str, str | int | float]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        return {"multi_label": True, **dataclasses.asdict(self)}

    def metrics(self) -> dict[str, float]:
        """What log.txt has of the test."""
        return {"Final mAP": self.merged.map, "Final F1 micro": self.merged.f1_micro}

    def table(self) -> str:
        """The summary as aligned text for a console."""
        lines = [
            f"{self.videos} videos, {self.clips} clips x {self.crops} crops, {self.labels_per_video:.3g} labels each",
            f"{'':<22}{'mAP':>8}{'F1 micro':>10}{'F1 macro':>10}{'all right':>11}",
        ]
        for name, one in (("merged", self.merged), ("one view", self.one_view)):
            lines.append(f"{name:<22}{one.map:>8.2f}{one.f1_micro:>10.2f}{one.f1_macro:>10.2f}{one.exact:>11.2f}")
        if self.unreadable:
            rows = sorted(self.unreadable)[:10]
            lines.append(f"{len(self.unreadable)} unreadable videos count as without a label; rows {rows}")
        return "\n".join(lines)


def summarise_multi_label(scores: ViewScores) -> MultiLabelSummary:
    """All numbers of a complete test of a multi-label list. ScoresError if a view is missing."""
    scores.require_complete()
    if not len(scores):
        raise ScoresError("the test list is empty: there is nothing to report.")
    truth = scores.labels.astype(bool)
    probability = merge_sigmoids(scores.logits)
    middle = sigmoid(scores.logits[:, scores.clips // 2, scores.crops // 2])
    wrong = np.isin(scores.rows, list(scores.unreadable))
    probability[wrong] = middle[wrong] = 0
    each, f1 = average_precisions(probability, truth), class_f1(probability >= YES, truth)
    names: Sequence[str] = scores.class_names or [str(k) for k in range(scores.classes)]
    videos = truth.sum(0)
    return MultiLabelSummary(
        videos=len(scores),
        clips=scores.clips,
        crops=scores.crops,
        merged=MultiLabelScores.of(probability, truth),
        one_view=MultiLabelScores.of(middle, truth),
        labels_per_video=float(truth.sum() / len(truth)),
        classes=[
            ClassPrecision(k, names[k], int(n), 100 * float(each[k]) if n else None, 100 * float(f1[k]) if n else None)
            for k, n in enumerate(videos)
        ],
        unreadable=dict(sorted(scores.unreadable.items())),
        provenance=scores.provenance,
    )
