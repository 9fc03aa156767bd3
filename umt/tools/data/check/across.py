"""What rows say of each other: one file twice, in training and validation, with two labels; classes without samples."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from umt.data.labels.label_order import of_list
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError
from umt.tools.data.check.findings import Finding
from umt.tools.data.check.lists import Checked


class Place(NamedTuple):
    """A row of one of the lists."""

    list: Checked
    row: int

    @property
    def label(self) -> int:
        """-1: none."""
        return int(self.list.videos.labels[self.row])

    @property
    def path(self) -> str:
        """As the list writes it."""
        return self.list.videos.path(self.row)

    def finding(self, kind: str, detail: str = "") -> Finding:
        """Something about this row."""
        return Finding(kind, self.list.source, self.list.numbers[self.row], self.path, detail)

    def __str__(self) -> str:
        return f"{os.path.basename(self.list.source)}:{self.list.numbers[self.row]}"


def _plain(name: str) -> str:
    return name if is_url(name) else os.path.normpath(name)


class Files:
    """The different files of all lists, and the rows where each stands."""

    def __init__(self, lists: Sequence[Checked]) -> None:
        self.lists = lists
        known: dict[str, int] = {}
        ids = [
            known.setdefault(_plain(one.videos.file(row)), len(known))
            for one in lists
            for row in range(len(one.videos))
        ]
        self.names: list[str] = list(known)
        self._starts = np.cumsum([0, *(len(one.videos) for one in lists)])
        self._ids: NDArray[np.int64] = np.array(ids, np.int64)
        self._order = np.argsort(self._ids, kind="stable")
        self._bounds = np.searchsorted(self._ids[self._order], np.arange(len(known) + 1))
        listed = [one.videos.num_frames for one in lists] or [np.zeros(0, np.int64)]
        # Of each file, as the first row says that names it: -1 for a video, else the listed number of images.
        self.frames: NDArray[np.int64] = np.concatenate(listed)[self._order[self._bounds[:-1]]]

    def places(self, file: int) -> list[Place]:
        """The rows of a file, in the order of the lists."""
        found = self._order[self._bounds[file] : self._bounds[file + 1]]
        at = np.searchsorted(self._starts, found, side="right") - 1
        return [Place(self.lists[i], int(row - self._starts[i])) for i, row in zip(at, found, strict=True)]

    def repeated(self) -> Iterator[int]:
        """Files with several rows."""
        yield from map(int, np.flatnonzero(np.diff(self._bounds) > 1))


def repeats(files: Files) -> Iterator[Finding]:
    """Files that the lists name more than once: held out as well as trained on, with several labels, or just twice."""
    for file in files.repeated():
        places = files.places(file)
        held = _held_out(places)
        labels = {place.label for place in places if place.label >= 0}
        for number, place in enumerate(places):
            first = _earlier(places[:number], place)
            if held is not None and place.list.role == "train":
                yield place.finding("leaked", f"also {held}")
            if len(labels) > 1:
                others = ", ".join(f"{p.label} in {p}" for p in places if p is not place)
                yield place.finding("two_labels", f"{place.label} here, {others}")
            elif first is not None:
                yield place.finding("duplicate", f"also {first}")


def twins(files: Files, groups: Sequence[Sequence[int]], why: str) -> Iterator[Finding]:
    """Different names, one content: `groups` of files; `why` says how that is known."""
    for group in groups:
        firsts = [place for file in group for place in files.places(file)[:1]]
        held = {file: _held_out(files.places(file)) for file in group}
        for number, file in enumerate(group):
            other = next((place for name, place in held.items() if place is not None and name != file), None)
            for place in files.places(file):
                first = _earlier(firsts[:number], place)
                if place.list.role == "train" and other is not None:
                    yield place.finding("leaked", f"{why} {other} {other.path}")
                elif first is not None:
                    differs = (
                        f", which has label {first.label}, not {place.label}" if first.label != place.label else ""
                    )
                    yield place.finding("copy", f"{why} {first} {first.path}{differs}")


def _held_out(places: Sequence[Place]) -> Place | None:
    return next((place for place in places if place.list.role == "held out"), None)


def _earlier(before: Sequence[Place], place: Place) -> Place | None:
    """The place before this one that makes it a repeat: in its list, or in any of lists whose role is unknown.

    Validation and test may be one, and what is in training, too, is told otherwise.
    """
    return next((p for p in before if p.list is place.list or not (p.list.role and place.list.role)), None)


def labels(lists: Sequence[Checked], classes: int | None, pretrain: bool) -> Iterator[Finding]:
    """Labels outside the classes, rows without a label, classes without a sample."""
    if pretrain:
        return
    known = [one.videos.labels for one in lists if len(one.videos)]
    if not known:
        return
    number = classes if classes is not None else int(max(found.max() for found in known)) + 1
    for one in lists:
        found = one.videos.labels
        if not len(found):
            continue
        lowest = int(found[found >= 0].min(initial=1 << 62))
        for row in np.flatnonzero((found < 0) | (found >= number)):
            label, place = int(found[row]), Place(one, int(row))
            if label == -1:
                if not one.several:  # a video may have none then
                    yield place.finding("no_label")
                continue
            hint = ". Is the list 1-based? Labels start at 0" if label == number and lowest == 1 else ""
            yield place.finding("label", f"{label} is outside 0..{number - 1}{hint}")
        inside = found[(found >= 0) & (found < number)]
        lacking = np.flatnonzero(np.bincount(inside, minlength=number)[:number] == 0)
        if len(lacking) and not one.several:
            shown = ", ".join(map(str, lacking[:12])) + (", ..." if len(lacking) > 12 else "")
            yield Finding("no_samples", one.source, detail=f"{len(lacking)} of {number}: {shown}", count=len(lacking))


def label_orders(lists: Sequence[Checked], data_set: str, classes: int, flag: str) -> Iterator[Finding]:
    """Lists whose class folders say another order of labels than what else is known; notes the order of the others."""
    for one in lists:
        if len(one.videos):
            try:
                told = of_list(
                    os.path.dirname(one.source), data_set=data_set, classes=classes, flag=flag, videos=one.videos
                )
            except AnnotationError as error:
                yield Finding("label_order", one.source, detail=str(error).removeprefix(f"{one.source} is "))
            else:
                one.note += f", {told}" if told.names else ""
