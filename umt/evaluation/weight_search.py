"""Weights of an ensemble, and temperatures of its members, fitted on videos other than those that are reported.

For tests in which a video has one class. Shapes: M members, R videos, K classes, G candidates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from umt.errors import ScoresError
from umt.evaluation.fusing import ONE_CLASS, TINY, Mode, Values
from umt.evaluation.metrics import label_rank

Objective = Literal["top1", "cross_entropy"]
CHUNK_BYTES = 1 << 27


@dataclass(frozen=True, eq=False)
class Fitted:
    """Weights (M,) that sum to 1, and the numbers that they reach on the videos of the search. `method`: in words."""

    weights: Values
    top1: float
    cross_entropy: float
    candidates: int
    method: str


def search(
    parts: Sequence[Values],
    labels: NDArray[np.int64],
    read: NDArray[np.bool_],
    *,
    mode: Mode,
    objective: Objective = "top1",
    step: float = 0.0,
    seed: int = 0,
) -> Fitted:
    """The weights that do best on parts M x (R, K), labels (R,), read (M, R).

    Two and three members: every point of a grid on the simplex (`step`, by default 0.01 and 0.05). More: coordinate
    ascent from equal weights, from each member alone and from seeded points. top1: most videos right, among equals the
    lowest cross-entropy. Among equals of both, the most even weights. The cross-entropy is convex in the weights for
    all modes, so that there the ascent ends at the optimum of its grid. Raises ScoresError for videos without labels.
    """
    labelled = np.count_nonzero(labels >= 0)
    if not labelled or labelled < len(labels):
        raise ScoresError(
            f"a search for weights needs labels, and {labelled} of {len(labels)} videos have one. Give labelled files."
        )
    judge = _Judge(parts, labels, read, mode, objective)
    members = len(parts)
    if members <= 3:
        step = step or {1: 1.0, 2: 0.01, 3: 0.05}[members]
        grid = simplex(members, max(round(1 / step), 1))
        best = judge.best(np.concatenate([np.full((1, members), 1 / members), grid]))
        method = f"all {judge.candidates} weights on a grid of {step:g}"
    else:
        step = step or 0.05
        random = np.random.Generator(np.random.PCG64(seed))
        starts = [np.full(members, 1 / members), *np.eye(members), *random.dirichlet(np.ones(members), size=members)]
        best = judge.best(np.stack([_climb(judge, start, step) for start in starts]))
        best = _climb(judge, best, step / 5)
        method = f"coordinate ascent from {len(starts)} points, {judge.candidates} weights"
    top1, entropy = judge.top1(best[None])[0], judge.cross_entropy(best[None])[0]
    return Fitted(best, float(100 * top1), float(entropy), judge.candidates, method)


def simplex(members: int, parts: int) -> Values:
    """Every (M,) of multiples of 1 / parts that sums to 1: (G, M)."""
    bars = itertools.combinations(range(parts + members - 1), members - 1)
    edges = np.array([(-1, *bar, parts + members - 1) for bar in bars], np.int64)
    return (np.diff(edges, axis=1) - 1) / parts


def _climb(judge: _Judge, start: Values, step: float) -> Values:
    best = start
    ladder = np.arange(0, 1 + step / 2, step)
    for _ in range(20):  # sweeps; in practice a handful suffices
        before = best
        for m in range(len(best)):
            others = np.delete(best, m)
            rest = others / others.sum() if others.sum() > 0 else np.full(len(others), 1 / len(others))
            moves = np.insert(np.outer(1 - ladder, rest), m, ladder, axis=1)
            best = judge.best(np.concatenate([best[None], moves]))
        if np.array_equal(best, before):
            break
    return best


class _Judge:
    """Compares candidates (G, M). Videos whose answer is the same for all weights are judged once."""

    def __init__(
        self,
        parts: Sequence[Values],
        labels: NDArray[np.int64],
        read: NDArray[np.bool_],
        mode: Mode,
        objective: Objective,
    ) -> None:
        self._mode, self._objective, self.candidates = mode, objective, 0
        self._parts = np.stack(parts)  # (M, R, K)
        self._parts[~read] = 0
        self._labels, self._read = labels, read.astype(np.float64)
        self._open, self._right = self._undecided()

    def _undecided(self) -> tuple[NDArray[np.int64], int]:
        """Videos whose answer depends on the weights, and how many of the others are right."""
        all_read = self._read.all(axis=0)
        right, wrong = all_read.copy(), all_read.copy()
        beaten = np.ones(self._parts.shape[1:], bool)
        for part in self._parts:
            right &= label_rank(part, self._labels) == 0
            beaten &= part > np.take_along_axis(part, self._labels[:, None], axis=1)
        wrong &= beaten.any(axis=1)
        return np.flatnonzero(~right & ~wrong), int(right.sum())

    def best(self, candidates: Values) -> Values:
        """The best of (G, M); the first of those that are equal in everything."""
        self.candidates += len(candidates)
        uneven = ((candidates - 1 / candidates.shape[1]) ** 2).sum(axis=1).round(12)
        keep = np.arange(len(candidates))
        if self._objective == "top1":
            right = self.top1(candidates)
            keep = keep[right == right.max()]
        if len(keep) > 1:
            entropy = self.cross_entropy(candidates[keep]).round(12)
            keep = keep[entropy == entropy.min()]
        return candidates[keep[np.argmin(uneven[keep])]]

    def top1(self, candidates: Values) -> Values:
        """(G, M) -> share of videos that are right (G,)."""
        right = np.full(len(candidates), float(self._right))
        for rows in self._chunks(self._open, len(candidates)):
            mixed = np.tensordot(candidates, self._parts[:, rows], axes=1)
            voted = candidates @ self._read[:, rows] > 0
            truth = np.broadcast_to(self._labels[rows], mixed.shape[:2])
            right += ((label_rank(mixed, truth) == 0) & voted).sum(axis=1)
        return right / len(self._labels)

    def cross_entropy(self, candidates: Values) -> Values:
        """(G, M) -> mean over videos (G,); a video without a vote counts as a guess among all classes."""
        of_truth = np.take_along_axis(self._parts, self._labels[None, :, None], axis=2)[..., 0]  # (M, R)
        mass = candidates @ self._read
        voted, safe = mass > 0, np.where(mass > 0, mass, 1.0)
        mixed = candidates @ of_truth / safe
        if self._mode == "mean":
            each = -np.log(np.maximum(mixed, TINY))
        else:
            each = -mixed
            for rows in self._chunks(np.arange(len(self._labels)), len(candidates)):
                full = np.tensordot(candidates, self._parts[:, rows], axes=1)
                full /= safe[:, rows, None]
                top = full.max(axis=2, keepdims=True)
                each[:, rows] += np.log(np.exp(full - top).sum(axis=2)) + top[..., 0]
        each = np.where(voted, each, np.log(self._parts.shape[2]))
        mean: Values = each.mean(axis=1)
        return mean

    def _chunks(self, rows: NDArray[np.int64], candidates: int) -> list[NDArray[np.int64]]:
        size = max(1, CHUNK_BYTES // (8 * candidates * self._parts.shape[2]))
        return [rows[i : i + size] for i in range(0, len(rows), size)]


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64], mode: Mode) -> float:
    """The temperature at which logits (R, V, K) have the lowest cross-entropy, between 1/20 and 20, to 1 %.

    (Guo et al. 2017, https://arxiv.org/abs/1706.04599.)
    """

    def cost(log_t: float) -> float:
        part = ONE_CLASS.values(logits, mode, float(np.exp(log_t)))
        of_truth = np.take_along_axis(part, labels[:, None], axis=1)
        return float(-(np.log(np.maximum(of_truth, TINY)) if mode == "mean" else of_truth).mean())

    return float(np.exp(_lowest(cost, -np.log(20.0), np.log(20.0), 0.01)))


def _lowest(cost: Callable[[float], float], low: float, high: float, width: float) -> float:
    """Golden-section search of a function with one valley."""
    golden = (5**0.5 - 1) / 2
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = cost(a), cost(b)
    while high - low > width:
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = cost(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = cost(b)
    return (low + high) / 2


def stratified(labels: NDArray[np.int64], share: float, *, seed: int = 0) -> NDArray[np.bool_]:
    """(R,): `share` of the videos of every class, drawn by `seed`, rounded so that the whole comes out right."""
    random = np.random.Generator(np.random.PCG64(seed))
    place = _place_in_class(labels, random)
    # Every class gives share * size of its videos; what rounding leaves over is spread by a seeded offset per class.
    offset = random.random(int(labels.max()) + 1 if len(labels) else 0)[labels]
    return np.floor((place + 1) * share + offset) > np.floor(place * share + offset)


def folds(labels: NDArray[np.int64], number: int, *, seed: int = 0) -> NDArray[np.int64]:
    """(R,): the fold 0..number - 1 of each video, every class spread over all."""
    random = np.random.Generator(np.random.PCG64(seed))
    place = _place_in_class(labels, random)
    offset = random.integers(number, size=int(labels.max()) + 1 if len(labels) else 0)[labels]
    return (place + offset) % number


def _place_in_class(labels: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """(R,): each video's number among those of its class, in a shuffled order."""
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    ordered = labels[by_class]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.int64)
    place = np.empty(len(labels), np.int64)
    place[by_class] = np.arange(len(labels)) - np.repeat(starts, np.diff(np.r_[starts, len(labels)]))
    return place
