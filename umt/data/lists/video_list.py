"""`VideoList`: the rows of a list, however it was written. N rows, K classes."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.label_sets import LabelSets
from umt.data.storage.urls import join


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of one file, without what the flags of a run add. All lists of the file share it, so it is read-only.

    Attributes:
        text: holds all paths: not a million Python strings, whose reference counts would make every worker copy them.
        starts, stops: (N,) where in `text` each path begins and ends.
        frames: (N,) as `VideoList.num_frames`.
        labels: (N,) -1: none. With `words`, the place of the row's last column in `words`.
        lines: (N,) number of the line of each row, from 1.
        words: the different last columns of a list whose labels are text; None: the labels are numbers.
    """

    text: bytes
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    frames: NDArray[np.int64]
    labels: NDArray[np.int64]
    lines: NDArray[np.int64]
    words: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for column in (self.starts, self.stops, self.frames, self.labels, self.lines):
            column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)


class Rows:
    """What a reader gathers row by row, in numbers and one block of bytes."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.ends = array("q", [0])
        self.frames = array("q")
        self.labels = array("q")
        self.lines = array("q")

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, path: bytes, frames: int, label: int, line: int = 0) -> None:
        """One more row; `path` as the file system's bytes; `line` 0: the row's number."""
        self.text += path
        self.ends.append(len(self.text))
        self.frames.append(frames)
        self.labels.append(label)
        self.lines.append(line or len(self.labels))

    def table(self, words: tuple[str, ...] | None = None) -> Table:
        """All rows that were added."""
        ends, frames, labels, lines = (np.array(c, np.int64) for c in (self.ends, self.frames, self.labels, self.lines))
        return Table(bytes(self.text), ends[:-1], ends[1:], frames, labels, lines, words)


class VideoList:
    """Rows of a list: each has a path as the list writes it, a file, a label (-1: none) and a number of frames.

    That number is -1 for a video file and 0 for a folder of frames that nobody counted.

    Attributes:
        source: the file, for messages. `note`: what a person should know of how the list came about.
        labels: (N,); of a multi-label list the lowest of each row, see `targets`.
        class_names: in the order of the labels, where what was read names them.
        sets: the labels of a multi-label list; None for one label per row.
    """

    source: str
    prefix: str
    note: str
    labels: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    class_names: list[str] | None
    sets: LabelSets | None

    def __init__(
        self, source: str, paths: Sequence[str], labels: Sequence[int], frames: Sequence[int] | None = None,
        prefix: str = "", extension: str = "", note: str = "", class_names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        rows = Rows()
        for row, path in enumerate(paths):
            rows.add(path.encode("utf-8", "surrogateescape"), frames[row] if frames else -1, labels[row])
        self._fill(source, rows.table(), prefix, extension, note)
        self.labels, self.num_frames = self.labels.copy(), self.num_frames.copy()  # nobody shares them
        self.class_names = None if class_names is None else list(class_names)

    @classmethod
    def of(cls, source: str, table: Table, *, prefix: str = "", extension: str = "", note: str = "") -> VideoList:
        """A list of what a reader of files has gathered."""
        videos = cls.__new__(cls)
        videos._fill(source, table, prefix, extension, note)
        return videos

    def _fill(self, source: str, table: Table, prefix: str, extension: str, note: str) -> None:
        self.source, self.prefix, self.note = source, prefix, note
        self.class_names = None
        self.sets = None
        self.labels, self.num_frames = table.labels, table.frames
        self._extension = extension
        self._text, self._starts, self._stops = table.text, table.starts, table.stops

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> str:
        """The path as the list writes it: the name of the row in results."""
        return self._text[self._starts[row] : self._stops[row]].decode("utf-8", "surrogateescape")

    def file(self, row: int) -> str:
        """The file, folder or URL to open: prefix and ending added."""
        path = self.path(row)
        if self._extension and "." not in os.path.basename(path):
            path += self._extension
        return join(self.prefix, path)

    def take(self, rows: NDArray[np.int64]) -> VideoList:
        """A list of `rows` alone, in their order."""
        videos = VideoList.__new__(VideoList)
        vars(videos).update(vars(self))
        videos.labels, videos.num_frames = self.labels[rows], self.num_frames[rows]
        videos._starts, videos._stops = self._starts[rows], self._stops[rows]
        videos.sets = None if self.sets is None else self.sets.take(rows)
        return videos

    # ---- labels, of one or several per row

    @property
    def multi_label(self) -> bool:
        """Whether a row has a set of labels instead of one."""
        return self.sets is not None

    @property
    def labelled(self) -> bool:
        """Whether every row has a label."""
        return bool((self.labels >= 0).all())

    def labels_of(self, row: int) -> list[int]:
        """All labels of a row, ascending."""
        if self.sets is not None:
            return [int(label) for label in self.sets.row(row)]
        return [int(self.labels[row])] if self.labels[row] >= 0 else []

    def target(self, row: int) -> int | NDArray[np.float32]:
        """The label of a row; of a multi-label list (K,), 1 for each of its classes and 0 for the others."""
        return int(self.labels[row]) if self.sets is None else self.sets.hot(row)

    def targets(self) -> NDArray[np.int64] | NDArray[np.uint8]:
        """(N,) labels; of a multi-label list (N, K) of 0 and 1."""
        return self.labels if self.sets is None else self.sets.matrix()

    def counts(self, classes: int = 0) -> NDArray[np.int64]:
        """(K,) rows that have each label, for at least `classes` classes."""
        return self._sets().counts(classes)

    def rows_by_label(self) -> dict[int, NDArray[np.int64]]:
        """Label -> its rows, for the labels that there are; the rarest first."""
        return self._sets().rows_by_label()

    def _sets(self) -> LabelSets:
        return LabelSets.of_single(self.labels) if self.sets is None else self.sets
