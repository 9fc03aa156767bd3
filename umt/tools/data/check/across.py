"""What rows show only together: repeated files, leaks from training into validation, two labels, empty classes."""

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
            known.setdefault(_plain(checked.videos.file(row)), len(known))
            for checked in lists
            for row in range(len(checked.videos))
        ]
        self.names: list[str] = list(known)
        self._starts = np.cumsum([0, *(len(checked.videos) for checked in lists)])
        self._ids: NDArray[np.int64] = np.array(ids, np.int64)
        self._order = np.argsort(self._ids, kind="stable")
        self._bounds = np.searchsorted(self._ids[self._order], np.arange(len(known) + 1))
        listed = [checked.videos.num_frames for checked in lists] or [np.zeros(0, np.int64)]
        # Of each file, by the first row that names it: -1 for a video, else the listed number of images.
        self.frames: NDArray[np.int64] = np.concatenate(listed)[self._order[self._bounds[:-1]]]

    def places(self, file: int) -> list[Place]:
        """The rows of a file, in the order of the lists."""
        rows = self._order[self._bounds[file] : self._bounds[file + 1]]
        at = np.searchsorted(self._starts, rows, side="right") - 1
        return [Place(self.lists[i], int(row - self._starts[i])) for i, row in zip(at, rows, strict=True)]

    def repeated(self) -> Iterator[int]:
        """Files with several rows."""
        yield from map(int, np.flatnonzero(np.diff(self._bounds) > 1))


def repeats(files: Files) -> Iterator[Finding]:
    """Files that the lists name more than once: both held out and trained on, with several labels, or just twice."""
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
    """Files with different names and the same content, in `groups`; `why` says how that is known."""
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
    """The earlier place that makes this one a repeat: in the same list, or in a list whose role is unknown.

    Validation and test may share videos, and those that training shares with them count as leaked.
    """
    return next((p for p in before if p.list is place.list or not (p.list.role and place.list.role)), None)


def labels(lists: Sequence[Checked], classes: int | None, pretrain: bool) -> Iterator[Finding]:
    """Labels outside the classes, rows without a label, classes without a sample."""
    if pretrain:
        return
    lists = [checked for checked in lists if len(checked.videos)]
    number = classes
    if number is None:
        number = max((int(checked.videos.labels.max()) + 1 for checked in lists), default=0)
    for checked in lists:
        values = checked.videos.labels
        lowest = int(values[values >= 0].min(initial=1 << 62))
        for row in np.flatnonzero((values < 0) | (values >= number)):
            label, place = int(values[row]), Place(checked, int(row))
            if label == -1:
                if not checked.several:  # then a video may have none
                    yield place.finding("no_label")
                continue
            hint = ". Is the list 1-based? Labels start at 0" if label == number and lowest == 1 else ""
            yield place.finding("label", f"{label} is outside 0..{number - 1}{hint}")
        inside = values[(values >= 0) & (values < number)]
        lacking = np.flatnonzero(np.bincount(inside, minlength=number)[:number] == 0)
        if len(lacking) and not checked.several:
            detail = f"{len(lacking)} of {number}: {', '.join(map(str, lacking[:12]))}"
            detail += ", ..." if len(lacking) > 12 else ""
            yield Finding("no_samples", checked.source, detail=detail, count=len(lacking))


def label_orders(lists: Sequence[Checked], data_set: str, classes: int, flag: str) -> Iterator[Finding]:
    """Lists whose class folders contradict the order of labels that is known; notes the order of the others."""
    for checked in lists:
        if len(checked.videos):
            folder, videos = os.path.dirname(checked.source), checked.videos
            try:
                order = of_list(folder, data_set=data_set, classes=classes, flag=flag, videos=videos)
            except AnnotationError as error:
                yield Finding("label_order", checked.source, detail=str(error).removeprefix(f"{checked.source} is "))
            else:
                checked.note += f", {order}" if order.names else ""
