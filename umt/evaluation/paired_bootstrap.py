"""Is one way of answering better than another? 95 % intervals of the difference, over the same videos for both.

Videos are drawn with replacement (Efron 1979, https://doi.org/10.1214/aos/1176344552), and both are judged on the same
draw, so that what is hard for both cancels. Shapes: R videos, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
TAILS = (0.025, 0.975)


def accuracy_gain(
    right: NDArray[np.bool_], baseline_right: NDArray[np.bool_], *, samples: int = 10_000, seed: int = 0
) -> Interval:
    """right, baseline_right (R,) -> the interval of the gain in accuracy over the baseline, in points.

    R draws with replacement are multinomial in (won, lost, the same).
    """
    won, lost = np.count_nonzero(right & ~baseline_right), np.count_nonzero(baseline_right & ~right)
    size = len(right)
    if not size:
        return float("nan"), float("nan")
    chances = np.array([won, lost, size - won - lost]) / size
    draws = np.random.Generator(np.random.PCG64(seed)).multinomial(size, chances, size=samples)
    low, high = np.quantile(draws[:, 0] - draws[:, 1], TAILS) * (100.0 / size)
    return float(low), float(high)


def drawn_precision(
    score: NDArray[np.floating], truth: NDArray[np.bool_], *, samples: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """score, truth (R, K) -> mAP in percent on each draw (samples,). The same seed draws the same videos.

    As in `multi_label.average_precision`, videos of equal score count together, and a class without videos in none.
    """
    size = len(score)
    random = np.random.Generator(np.random.PCG64(seed))
    order = np.argsort(-score, axis=0, kind="stable")
    ordered = np.take_along_axis(score, order, axis=0)
    positive = np.take_along_axis(truth, order, axis=0)
    # Place of the last video with the same score: from there on all of them have come in.
    is_last = np.append(ordered[1:] != ordered[:-1], np.ones((1, score.shape[1]), bool), axis=0)
    places = np.where(is_last, np.arange(size)[:, None], size)
    last = np.minimum.accumulate(places[::-1], axis=0)[::-1]
    drawn = np.empty(samples)
    for sample in range(samples):
        times = np.bincount(random.integers(size, size=size), minlength=size)[order]  # how often each is drawn
        hits = np.cumsum(times * positive, axis=0)
        precision = hits / np.maximum(np.cumsum(times, axis=0), 1)
        with_class = hits[-1] > 0
        added = (times * positive * np.take_along_axis(precision, last, axis=0)).sum(axis=0)
        drawn[sample] = 100 * (added[with_class] / hits[-1][with_class]).mean() if with_class.any() else np.nan
    return drawn


def interval(drawn: NDArray[np.floating]) -> Interval:
    """95 % percentile interval of a number, or of a difference of paired ones, on each draw (samples,)."""
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, TAILS) if known.size else (np.nan, np.nan)
    return float(low), float(high)
