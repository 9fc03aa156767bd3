"""Top-k, per-class accuracy and a bootstrap interval, all from one number a video: the rank of its true class.

Shapes: R videos, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def label_rank(scores: Floats, label: Integers) -> NDArray[np.int64]:
    """scores (..., K), label (...) in 0..K-1 -> how many classes come before the true one, 0 when it is first.

    Among equal scores the lower class index comes first, so that a result never depends on a sorting routine. A row
    with a score that is not a number has rank K: wrong for every k.
    """
    classes = scores.shape[-1]
    true = np.take_along_axis(scores, label[..., None], axis=-1)
    before = (scores > true) | ((scores == true) & (np.arange(classes) < label[..., None]))
    rank = before.sum(axis=-1, dtype=np.int64)
    return np.where(np.isnan(scores).any(axis=-1), classes, rank)


def top_k(rank: Integers, k: int) -> float:
    """Percent of ranks below k. nan of an empty array."""
    return float(100.0 * np.count_nonzero(rank < k) / rank.size) if rank.size else float("nan")


@dataclass(frozen=True)
class ClassAccuracy:
    """One line of the per-class table; percents are None for a class without videos."""

    index: int
    name: str
    videos: int
    top1: float | None
    top5: float | None


def per_class(rank: Integers, label: Integers, classes: int, names: Sequence[str] | None = None) -> list[ClassAccuracy]:
    """rank (R,), label (R,) -> a line for each of `classes` classes."""
    videos = np.bincount(label, minlength=classes)
    hits = [np.bincount(label[rank < k], minlength=classes) for k in (1, 5)]
    percent = [[100.0 * int(h) / int(n) if n else None for h, n in zip(hit, videos, strict=True)] for hit in hits]
    return [
        ClassAccuracy(i, names[i] if names else str(i), int(videos[i]), percent[0][i], percent[1][i])
        for i in range(classes)
    ]


def bootstrap_interval(
    correct: NDArray[np.bool_], *, confidence: float = 0.95, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """correct (R,) -> percentile interval of the accuracy, in percent, over videos resampled with replacement.

    The mean of R booleans drawn with replacement is binomial, so `samples` resamplings are that many binomial draws.
    (Efron 1979, https://doi.org/10.1214/aos/1176344552.)
    """
    if not correct.size:
        return float("nan"), float("nan")
    draws = np.random.Generator(np.random.PCG64(seed)).binomial(correct.size, correct.mean(), size=samples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail]) * (100.0 / correct.size)
    return float(low), float(high)
