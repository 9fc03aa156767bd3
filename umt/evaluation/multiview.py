"""From the scores of single views to one answer a video: the mean, over its views, of each view's softmax, in float64.

That is the published protocol (VideoMAE, UMT). Shapes: R videos, S clips in time, C crops in space, K classes; a view
is one crop of one clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umt.evaluation.metrics import Floats, Integers, label_rank

CHUNK_BYTES = 1 << 26  # probabilities are float64: work on some rows at a time, whatever the size of the test set


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def merge(logits: Floats) -> NDArray[np.float64]:
    """logits (R, S, C, K) -> probabilities (R, K)."""
    merged = np.empty((logits.shape[0], logits.shape[-1]))
    for rows in _chunks(logits):
        merged[rows] = softmax(logits[rows]).mean(axis=(1, 2))
    return merged


def spread(available: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` of `available` views, evenly spread and central: 1 of 3 is the middle, 2 of 3 the two ends."""
    return ((np.arange(wanted) + 0.5) * available / wanted).astype(np.int64)


@dataclass(frozen=True)
class ViewRanks:
    """Rank of the true class (see `metrics.label_rank`) for every way of merging that a report needs."""

    view: NDArray[np.int64]  # (R, S, C): each view alone
    clip: NDArray[np.int64]  # (R, S): the crops of a clip merged
    merged: NDArray[np.int64]  # (R,): all views merged
    grid: NDArray[np.int64]  # (S, C, R): s + 1 clips and c + 1 crops, chosen by `spread`, merged


def rank_views(logits: Floats, label: Integers) -> ViewRanks:
    """logits (R, S, C, K), label (R,) -> ranks from one pass over the scores."""
    videos, clips, crops, _ = logits.shape
    view = np.empty((videos, clips, crops), np.int64)
    clip = np.empty((videos, clips), np.int64)
    merged = np.empty(videos, np.int64)
    grid = np.empty((clips, crops, videos), np.int64)
    for rows in _chunks(logits):
        probability, truth = softmax(logits[rows]), label[rows]
        view[rows] = label_rank(probability, np.broadcast_to(truth[:, None, None], probability.shape[:3]))
        clip[rows] = label_rank(probability.mean(axis=2), np.broadcast_to(truth[:, None], probability.shape[:2]))
        merged[rows] = label_rank(probability.mean(axis=(1, 2)), truth)
        for c in range(crops):
            per_clip = probability[:, :, spread(crops, c + 1)].mean(axis=2)
            for s in range(clips):
                grid[s, c, rows] = label_rank(per_clip[:, spread(clips, s + 1)].mean(axis=1), truth)
        grid[clips - 1, crops - 1, rows] = merged[rows]  # the same mean, added up in the same order
    return ViewRanks(view, clip, merged, grid)


def _chunks(logits: Floats) -> Iterator[slice]:
    step = max(1, CHUNK_BYTES // max(1, 8 * int(np.prod(logits.shape[1:]))))
    for start in range(0, logits.shape[0], step):
        yield slice(start, start + step)
