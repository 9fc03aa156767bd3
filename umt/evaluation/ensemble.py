"""Tests of the same videos, brought into the same order for late fusion (`fusing.py`).

Members are matched by what they call a video, never by position, and by the names of classes where both have them.
Shapes: M members, R videos, V views, K classes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.errors import ScoresError
from umt.evaluation.fusing import Fusing, Mode, Values, fusing


@dataclass(frozen=True, eq=False)
class Member:
    """The scores of one test.

    `logits` (R, V, K), those of the probabilities where a file holds probabilities; `labels` (R,), -1: none; of a
    multi-label list (R, K) of 0 and 1. `rows` (R,): rows of the list, None where they are not known. `stems`: the paths
    are bare names, without folder and ending. `unread` (R,): videos that the test could not read, which have no vote.
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

    @property
    def fusing(self) -> Fusing:
        return fusing(multi_label=self.labels.ndim == 2)

    def merged(self, mode: Mode) -> Member:
        """With a single view of which, at temperature 1, `Fusing.values` makes the same: V times as small."""
        value = self.fusing.values(self.logits, mode)
        return replace(self, logits=(self.fusing.logits(value) if mode == "mean" else value)[:, None])

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
    """Members that hold the same videos and classes in the same order. `notes` say how they were matched."""

    members: tuple[Member, ...]
    labels: NDArray[np.int64]  # as in `Member`; -1 where no member knows it
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fusing(self) -> Fusing:
        return self.members[0].fusing

    def take(self, order: NDArray[np.int64]) -> Aligned:
        return Aligned(tuple(m.take(order) for m in self.members), self.labels[order], self.notes)

    def values(self, mode: Mode, temperatures: Sequence[float] | None = None) -> list[Values]:
        """What is averaged: (R, K) of each member."""
        temperatures = temperatures or [1.0] * len(self.members)
        return [self.fusing.values(m.logits, mode, t) for m, t in zip(self.members, temperatures, strict=True)]

    @property
    def read(self) -> NDArray[np.bool_]:
        """(M, R): whether the member has a vote."""
        return ~np.stack([m.unread for m in self.members])

    def require_labels(self, consequence: str) -> None:
        """Raises ScoresError for a video without a label; `consequence` ends the sentence."""
        unlabelled = np.flatnonzero((self.labels < 0).reshape(len(self), -1).any(axis=1))
        if unlabelled.size:
            raise ScoresError(
                f"{self.members[0].paths[unlabelled[0]]} has no label ({unlabelled.size} such videos), {consequence}."
            )


def align(members: Sequence[Member], *, common: bool = False, spell: Callable[..., Any] = tuple) -> Aligned:
    """Brings `members` into the videos and classes of the first.

    `common`: take the videos that all have, instead of refusing those that one lacks. `spell` gives class names the
    spelling by which they compare. Raises ScoresError naming what does not match.
    """
    if not members:
        raise ScoresError("an ensemble needs at least one scores file.")
    first = members[0]
    for member in members:
        _require_sound(member)
        _require_same_labelling(first, member)
    notes: list[str] = []
    members = [first, *(_classes_of(first, member, spell, notes) for member in members[1:])]
    keys, naming = _keys(members)
    if naming:
        notes.append(f"videos are matched by {naming}")
    shared = set(keys[0]).intersection(*keys[1:])
    if not common:
        _require_same_videos(members, keys, len(shared))
    if not shared:
        raise ScoresError(f"{members[0].name} and {members[-1].name} have no video in common. Are they of one list?")
    if common and len(shared) < max(map(len, members)):
        notes.append(f"{len(shared)} videos are in all members, of {', '.join(str(len(m)) for m in members)}")
    order = [key for key in keys[0] if key in shared]
    members = [
        member.take(np.array([places[key] for key in order], np.int64))
        for member, places in zip(members, keys, strict=True)
    ]
    return Aligned(tuple(members), _labels(members), tuple(notes))


def _require_sound(member: Member) -> None:
    if not len(member):
        raise ScoresError(f"{member.name} holds no video, so there is nothing to fuse.")
    multi_label = member.labels.ndim == 2
    low, high = (0, 1) if multi_label else (-1, member.classes - 1)
    invalid = np.argwhere((member.labels < low) | (member.labels > high))
    if invalid.size:
        path, label = member.paths[invalid[0][0]], member.labels[tuple(invalid[0])]
        rule = "must be 0 or 1, as it is one for each class" if multi_label else f"is outside 0..{high}"
        hint = "" if multi_label else " Are the labels 1-based, or of another set of classes?"
        raise ScoresError(f"{path}: label {label} {rule} in {member.name}.{hint}")


def _require_same_labelling(first: Member, member: Member) -> None:
    if member.fusing is not first.fusing:
        names = first.name, member.name
        several, single = names if first.labels.ndim == 2 else names[::-1]
        raise ScoresError(
            f"{several} is of a multi-label list, and {single} has a label for each video, or none. Fuse tests of one "
            "kind; a file of several labels holds 'labels' of the shape (videos, classes)."
        )


def _require_same_videos(members: Sequence[Member], keys: Sequence[Keys], shared: int) -> None:
    for member, places in zip(members, keys, strict=True):
        for other, other_places in zip(members, keys, strict=True):
            lacking = [key for key in places if key not in other_places]
            if lacking:
                raise ScoresError(
                    f"{other.name} has no scores of {member.paths[places[lacking[0]]]}, which {member.name} has "
                    f"({len(lacking)} such videos). Test both on the same list, or give --common to take the "
                    f"{shared} videos that all have."
                )


def _classes_of(first: Member, member: Member, spell: Callable[..., Any], notes: list[str]) -> Member:
    """`member` with its classes in the order of `first`."""
    if not (first.class_names and member.class_names):
        if first.classes != member.classes:
            raise ScoresError(
                f"{member.name} has {member.classes} classes, {first.name} has {first.classes}. "
                "Fuse tests of one set of classes."
            )
        return member
    for spelling in (tuple, spell):
        order, names = (list(spelling(m.class_names)) for m in (first, member))
        if order == names:
            return member
        if len(set(names)) == len(names) and sorted(order) == sorted(names):
            notes.append(f"{member.name} numbers its classes in another order; they are matched by their names")
            place = {name: i for i, name in enumerate(names)}
            return _reordered(member, np.array([place[name] for name in order], np.int64), first.class_names)
    for one, one_names, other, other_names in ((member, names, first, order), (first, order, member, names)):
        unknown = sorted(set(one_names) - set(other_names))
        if unknown:
            raise ScoresError(
                f"{one.name} has a class '{unknown[0]}' that {other.name} does not have: {len(one_names)} and "
                f"{len(other_names)} classes. Fuse tests of one set of classes."
            )
    raise ScoresError(f"{member.name} names a class twice, so its classes cannot be told apart. Correct its names.")


def _reordered(member: Member, order: NDArray[np.int64], names: tuple[str, ...]) -> Member:
    """The classes at these places, in this order."""
    if member.labels.ndim == 2:
        labels = member.labels[:, order]
    else:
        labels = np.append(np.argsort(order), -1)[member.labels]  # the last serves -1, no label
    return replace(member, logits=member.logits[..., order], labels=labels, class_names=names)


# ---- which video is which

Keys = dict[object, int]


def _keys(members: Sequence[Member]) -> tuple[list[Keys], str]:
    """Key -> place, for each member, by the strictest naming in which half of the videos are shared, else by that in
    which most are; and what the naming is.

    Not simply by that in which most are: a looser name may take a video that one member lacks for one that another
    lacks.
    """
    candidates: list[tuple[int, list[Keys], str]] = []
    for about, naming in _NAMINGS:
        if any(m.stems for m in members) and naming is not _stems:
            continue
        names = [naming(m) for m in members]
        if any(keys is None for keys in names):
            continue
        places = [{key: i for i, key in enumerate(keys or ())} for keys in names]
        if all(len(p) == len(m) for p, m in zip(places, members, strict=True)):
            candidates.append((len(set(places[0]).intersection(*places[1:])), places, about))
    if not candidates:
        member, twice = next(
            (m, path) for m in members for path, times in Counter(_stems(m) or ()).items() if times > 1
        )
        raise ScoresError(
            f"{member.name} names {twice} more than once, so its videos cannot be told apart. Give scores files of "
            "umt test, or files with paths and rows."
        )
    enough = min(map(len, members)) / 2
    best = next((entry for entry in candidates if entry[0] >= enough), max(candidates, key=lambda entry: entry[0]))
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
    """Each video's label, from the first member that knows it."""
    labels, source = members[0].labels.copy(), np.zeros(len(members[0]), np.int64)
    for number, member in enumerate(members[1:], 1):
        both = (labels >= 0) & (member.labels >= 0) & (labels != member.labels)
        differ = np.flatnonzero(both.reshape(len(labels), -1).any(axis=1))
        if differ.size:
            i = int(differ[0])
            raise ScoresError(
                f"{member.paths[i]} has {_written(member.labels[i])} in {member.name} and {_written(labels[i], '')} in "
                f"{members[source[i]].name} ({differ.size} of {len(labels)} videos differ): they are of different "
                "lists, or number their classes differently. Test both on one list, or give the files class names."
            )
        new = (labels < 0) & (member.labels >= 0)
        if new.ndim == 1:
            labels[new], source[new] = member.labels[new], number
    return labels


def _written(label: NDArray[np.int64], word: str = "label ") -> str:
    """A label, or the classes that are 1."""
    if label.ndim == 0:
        return f"{word}{label}"
    return f"{word and 'the labels '}{'|'.join(map(str, np.flatnonzero(label))) or 'none'}"
