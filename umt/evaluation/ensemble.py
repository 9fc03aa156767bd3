"""Late fusion: the scores of several tests of the same videos become one answer a video.

Members are matched by what they call a video, never by position, and by the names of classes where both have them.
Shapes: M members, R videos, V views, K classes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from umt.errors import ScoresError
from umt.evaluation.metrics import label_rank, top_k
from umt.evaluation.multiview import merge
from umt.evaluation.summary import Accuracy

Values = NDArray[np.float64]
Mode = Literal["mean", "logits", "geometric"]
MODES: tuple[Mode, ...] = get_args(Mode)
TINY = 1e-30  # a probability of 0 would be a logarithm that nothing can outweigh


@dataclass(frozen=True, eq=False)
class Member:
    """What one test says of its videos.

    `logits` (R, V, K), log-probabilities where a file holds probabilities; `labels` (R,), -1: none. `rows` (R,): rows
    of the list, None where they are not known. `stems`: the paths are bare names, without folder and ending.
    `unread` (R,): videos that the test could not read, which have no vote.
    """

    name: str
    logits: NDArray[np.floating]
    labels: NDArray[np.int64]
    paths: tuple[str, ...]
    unread: NDArray[np.bool_]
    rows: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    stems: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> int:
        return int(self.logits.shape[-1])

    def merged(self, mode: Mode) -> Member:
        """With one view that `values` makes the same of, at temperature 1: as much smaller as there are views."""
        one = values(self.logits, mode)
        return replace(self, logits=(np.log(np.maximum(one, TINY)) if mode == "mean" else one)[:, None])

    def take(self, order: NDArray[np.int64]) -> Member:
        """The videos at these places, in this order."""
        if np.array_equal(order, np.arange(len(self))):
            return self
        return replace(
            self,
            logits=self.logits[order],
            labels=self.labels[order],
            paths=tuple(self.paths[i] for i in order),
            unread=self.unread[order],
            rows=None if self.rows is None else self.rows[order],
        )


@dataclass(frozen=True, eq=False)
class Aligned:
    """Members that hold the same videos and classes in the same order. `notes` say how that came about."""

    members: tuple[Member, ...]
    labels: NDArray[np.int64]  # (R,), -1 where no member knows it
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, order: NDArray[np.int64]) -> Aligned:
        return Aligned(tuple(m.take(order) for m in self.members), self.labels[order], self.notes)

    def values(self, mode: Mode, temperatures: Sequence[float] | None = None) -> list[Values]:
        """What is averaged: (R, K) a member."""
        temperatures = temperatures or [1.0] * len(self.members)
        return [values(m.logits, mode, t) for m, t in zip(self.members, temperatures, strict=True)]

    @property
    def read(self) -> NDArray[np.bool_]:
        """(M, R): whether the member has a vote."""
        return ~np.stack([m.unread for m in self.members])


# ---- matching


def align(members: Sequence[Member], *, common: bool = False, spell: Callable[..., Any] = tuple) -> Aligned:
    """Brings `members` into the videos and classes of the first.

    `common`: take the videos that all have, instead of refusing those that one lacks. `spell` gives class names the
    spelling by which they compare. Raises ScoresError naming what does not match.
    """
    if not members:
        raise ScoresError("an ensemble needs at least one scores file.")
    for member in members:
        _require_sound(member)
    first = members[0]
    notes: list[str] = []
    members = [first, *(_classes_of(first, member, spell, notes) for member in members[1:])]
    keys, how = _keys(members)
    if how:
        notes.append(f"videos are matched by {how}")
    shared = set(keys[0]).intersection(*keys[1:])
    for member, own in zip(members, keys, strict=True):
        for other, theirs in zip(members, keys, strict=True):
            lacking = [key for key in own if key not in theirs]
            if lacking and not common:
                raise ScoresError(
                    f"{other.name} has no scores of {member.paths[own[lacking[0]]]}, which {member.name} has "
                    f"({len(lacking)} such videos). Test both on the same list, or give --common to take the "
                    f"{len(shared)} videos that all have."
                )
    if not shared:
        raise ScoresError(f"{members[0].name} and {members[-1].name} have no video in common. Are they of one list?")
    if common and len(shared) < max(map(len, members)):
        notes.append(f"{len(shared)} videos are in all members, of {', '.join(str(len(m)) for m in members)}")
    wanted = [key for key in keys[0] if key in shared]
    orders = [np.array([own[key] for key in wanted], np.int64) for own in keys]
    members = [member.take(order) for member, order in zip(members, orders, strict=True)]
    return Aligned(tuple(members), _labels(members), tuple(notes))


def _require_sound(member: Member) -> None:
    if not len(member):
        raise ScoresError(f"{member.name} holds no video, so there is nothing to fuse.")
    beyond = np.flatnonzero((member.labels < -1) | (member.labels >= member.classes))
    if beyond.size:
        raise ScoresError(
            f"{member.paths[beyond[0]]}: label {member.labels[beyond[0]]} is outside 0..{member.classes - 1} in "
            f"{member.name}. Are the labels 1-based, or of another set of classes?"
        )


def _classes_of(first: Member, member: Member, spell: Callable[..., Any], notes: list[str]) -> Member:
    """`member` with its classes in the order of `first`."""
    if first.class_names and member.class_names:
        for spelt in (tuple, spell):
            ours, theirs = (list(spelt(m.class_names)) for m in (first, member))
            if ours == theirs:
                return member
            if len(set(theirs)) == len(theirs) and sorted(ours) == sorted(theirs):
                place = {name: i for i, name in enumerate(theirs)}
                order = np.array([place[name] for name in ours], np.int64)
                back = np.append(np.argsort(order), -1)  # the last serves -1, no label
                notes.append(f"{member.name} numbers its classes in another order; they are matched by their names")
                return replace(
                    member, logits=member.logits[..., order], labels=back[member.labels], class_names=first.class_names
                )
        for one, names, other, others in ((member, theirs, first, ours), (first, ours, member, theirs)):
            odd = sorted(set(names) - set(others))
            if odd:
                raise ScoresError(
                    f"{one.name} has a class '{odd[0]}' that {other.name} has not: {len(names)} and {len(others)} "
                    "classes. Fuse tests of one set of classes."
                )
        raise ScoresError(f"{member.name} names a class twice, so its classes cannot be told apart. Mend its names.")
    if first.classes != member.classes:
        raise ScoresError(
            f"{member.name} has {member.classes} classes, {first.name} has {first.classes}. "
            "Fuse tests of one set of classes."
        )
    return member


Keys = dict[object, int]


def _keys(members: Sequence[Member]) -> tuple[list[Keys], str]:
    """Key -> place, a member, by the strictest name that half of the videos share, else the most; and which it is.

    Not by the most alone: a looser name may take a video that one member lacks for one that another lacks.
    """
    found: list[tuple[int, list[Keys], str]] = []
    for how, name in _NAMINGS:
        if any(m.stems for m in members) and name is not _stems:
            continue
        named = [name(m) for m in members]
        if any(keys is None for keys in named):
            continue
        places = [{key: i for i, key in enumerate(keys or ())} for keys in named]
        if all(len(p) == len(m) for p, m in zip(places, members, strict=True)):
            found.append((len(set(places[0]).intersection(*places[1:])), places, how))
    if not found:
        member, twice = next(
            (m, path) for m in members for path, times in Counter(_stems(m) or ()).items() if times > 1
        )
        raise ScoresError(
            f"{member.name} names {twice} more than once, so its videos cannot be told apart. Give scores files of "
            "umt test, or files with paths and rows."
        )
    enough = min(map(len, members)) / 2
    best = next((entry for entry in found if entry[0] >= enough), max(found, key=lambda entry: entry[0]))
    return best[1], best[2]


def _paths(member: Member) -> Sequence[object] | None:
    return member.paths


def _rows_and_paths(member: Member) -> Sequence[object] | None:
    return None if member.rows is None else list(zip(member.rows.tolist(), member.paths, strict=True))


def _below_folder(member: Member) -> Sequence[object] | None:
    folders = [path.split("/")[:-1] for path in member.paths]
    depth = next(
        (i for i, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), min(map(len, folders))
    )
    return ["/".join(path.split("/")[depth:]) for path in member.paths]


def _without_ending(member: Member) -> Sequence[object] | None:
    return [os.path.splitext(str(path))[0] for path in _below_folder(member) or ()]


def _stems(member: Member) -> Sequence[object] | None:
    return member.paths if member.stems else [os.path.basename(path).split(".")[0] for path in member.paths]


_NAMINGS: tuple[tuple[str, Callable[[Member], Sequence[object] | None]], ...] = (
    ("", _paths),
    ("row and path", _rows_and_paths),
    ("their path below each member's own folder", _below_folder),
    ("their path below each member's own folder, without its ending", _without_ending),
    ("file name up to the first dot", _stems),
)


def _labels(members: Sequence[Member]) -> NDArray[np.int64]:
    labels, source = members[0].labels.copy(), np.zeros(len(members[0]), np.int64)
    for number, member in enumerate(members[1:], 1):
        differ = np.flatnonzero((labels >= 0) & (member.labels >= 0) & (labels != member.labels))
        if differ.size:
            i = int(differ[0])
            raise ScoresError(
                f"{member.paths[i]} has label {member.labels[i]} in {member.name} and {labels[i]} in "
                f"{members[source[i]].name} ({differ.size} of {len(labels)} videos differ): they are of different "
                "lists, or number their classes differently. Test both on one list, or give the files class names."
            )
        fresh = (labels < 0) & (member.labels >= 0)
        labels[fresh], source[fresh] = member.labels[fresh], number
    return labels


# ---- fusing


def values(logits: NDArray[np.floating], mode: Mode, temperature: float = 1.0) -> Values:
    """logits (R, V, K) -> what `fuse` averages (R, K).

    mean: the views' softmax averaged; geometric: the logarithm of that; logits: the views' logits averaged, less what
    makes them log-probabilities, so that members of different scales meet on one.
    """
    if temperature != 1:
        logits = logits.astype(np.float64) / temperature
    if mode == "logits":
        mean = logits.mean(axis=1, dtype=np.float64)
        mean -= mean.max(axis=1, keepdims=True)
        return mean - np.log(np.exp(mean).sum(axis=1, keepdims=True))
    probability = merge(logits[:, :, None, :])
    return probability if mode == "mean" else np.log(np.maximum(probability, TINY))


def normal(weights: Sequence[float] | NDArray[np.floating] | None, members: int) -> Values:
    """Weights (M,) that sum to 1; None: equal ones. Raises ScoresError for those that cannot be."""
    given = np.ones(members) if weights is None else np.asarray(weights, np.float64)
    if given.shape != (members,) or not np.isfinite(given).all() or (given < 0).any() or not given.sum() > 0:
        said = " ".join(f"{w:g}" for w in given.ravel())
        raise ScoresError(
            f"--weights ({said}) must be {members} numbers, one a scores file, none below 0 and not all 0."
        )
    return given / given.sum()


def fuse(
    parts: Sequence[Values], weights: Sequence[float] | NDArray[np.floating] | None, mode: Mode, read: NDArray[np.bool_]
) -> tuple[Values, NDArray[np.bool_]]:
    """parts M x (R, K), read (M, R) -> probabilities (R, K), and (R,) whether any member had a vote.

    A member that could not read a video has no vote there; the others share its weight. Without any, all classes are
    equal.
    """
    share = normal(weights, len(parts))[:, None] * read
    mass = share.sum(axis=0)
    voted = mass > 0
    total = np.zeros_like(parts[0])
    for own, part in zip(share, parts, strict=True):
        if own.any():
            total += own[:, None] * part
    total[voted] /= mass[voted, None]
    total[~voted] = 1.0 / total.shape[1] if mode == "mean" else 0.0
    if mode != "mean":
        total -= total.max(axis=1, keepdims=True)
        np.exp(total, out=total)
        total /= total.sum(axis=1, keepdims=True)
    return total, voted


# ---- numbers


@dataclass(frozen=True, eq=False)
class Outcome:
    """Rank of the true class (R,), and the cross-entropy, of one way of answering."""

    rank: NDArray[np.int64]
    cross_entropy: float

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy(top_k(self.rank, 1), top_k(self.rank, 5))


def outcome(probability: Values, voted: NDArray[np.bool_], labels: NDArray[np.int64]) -> Outcome:
    """A video without a vote is wrong for every k."""
    rank = np.where(voted, label_rank(probability, labels), probability.shape[1])
    own = np.take_along_axis(probability, labels[:, None], axis=1)
    return Outcome(rank, float(-np.log(np.maximum(own, TINY)).mean()))


def gain_interval(
    better: NDArray[np.bool_], than: NDArray[np.bool_], *, samples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """better (R,), than (R,): right or wrong -> 95 % percentile interval of the difference in points, paired.

    Both are judged on the same videos drawn anew, so what is hard for both cancels. The draws of R videos with
    replacement are multinomial in (won, lost, the same).
    """
    won, lost, size = np.count_nonzero(better & ~than), np.count_nonzero(than & ~better), len(better)
    if not size:
        return float("nan"), float("nan")
    chances = np.array([won, lost, size - won - lost]) / size
    draws = np.random.Generator(np.random.PCG64(seed)).multinomial(size, chances, size=samples)
    low, high = np.quantile(draws[:, 0] - draws[:, 1], [0.025, 0.975]) * (100.0 / size)
    return float(low), float(high)
