"""`VideoList`: the rows of a list, however it was written."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.label_sets import LabelSets
from umt.data.storage.urls import join


class VideoList:
    """Rows of a list: each has a path as the list writes it, a file, a label (-1: none) and a number of frames.

    That number is -1 for a video file and 0 for a folder of frames that nobody counted. Paths lie in one block of
    bytes, not in a million Python strings, whose reference counts would make every worker copy them.
    """

    class_names: list[str] | None  # in the order of the labels, where what was read says so
    sets: LabelSets | None  # of a multi-label list; `labels` then has the first of each row

    def __init__(
        self, source: str, paths: Sequence[str], labels: Sequence[int], frames: Sequence[int] | None = None,
        prefix: str = "", extension: str = "", note: str = "", class_names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        rows = Rows()
        for row, path in enumerate(paths):
            rows.add(path.encode("utf-8", "surrogateescape"), frames[row] if frames else -1, labels[row])
        self._take(source, rows, prefix, extension, note)
        self.class_names = None if class_names is None else list(class_names)

    @classmethod
    def of(cls, source: str, rows: Rows, *, prefix: str = "", extension: str = "", note: str = "") -> VideoList:
        """A list of what a reader of files has gathered."""
        made = cls.__new__(cls)
        made._take(source, rows, prefix, extension, note)
        return made

    def _take(self, source: str, rows: Rows, prefix: str, extension: str, note: str) -> None:
        self.source = source
        self.prefix = prefix
        self.note = note  # what a person should know of how the list came about
        self.class_names = None
        self.sets = None
        self.labels: NDArray[np.int64] = np.array(rows.labels, dtype=np.int64)
        self.num_frames: NDArray[np.int64] = np.array(rows.frames, dtype=np.int64)
        self._extension = extension
        self._ends: NDArray[np.int64] = np.array(rows.ends, dtype=np.int64)
        self._text = bytes(rows.text)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> str:
        """The path as the list writes it: the name of the row in results."""
        return self._text[self._ends[row] : self._ends[row + 1]].decode("utf-8", "surrogateescape")

    def file(self, row: int) -> str:
        """The file, folder or URL to open: prefix and ending added."""
        path = self.path(row)
        if self._extension and "." not in os.path.basename(path):
            path += self._extension
        return join(self.prefix, path)

    def target(self, row: int) -> int | NDArray[np.float32]:
        """The label of a row; of a multi-label list (K,), 1 for each of its classes and 0 for the others."""
        return int(self.labels[row]) if self.sets is None else self.sets.hot(row)

    def take(self, rows: NDArray[np.int64]) -> VideoList:
        """A list of `rows` alone, in their order."""
        made = VideoList(
            self.source,
            [self.path(int(row)) for row in rows],
            self.labels[rows].tolist(),
            self.num_frames[rows].tolist(),
            prefix=self.prefix,
            extension=self._extension,
            note=self.note,
            class_names=self.class_names,
        )
        made.sets = None if self.sets is None else self.sets.take(rows)
        return made

    @property
    def labelled(self) -> bool:
        """Whether every row has a label."""
        return bool((self.labels >= 0).all())


class Rows:
    """What a reader gathers, row by row, in numbers and one block of bytes: a row costs its path and 24 bytes."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.ends = array("q", [0])
        self.frames = array("q")
        self.labels = array("q")

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, path: bytes, frames: int, label: int) -> None:
        """One more row; `path` as the file system's bytes."""
        self.text += path
        self.ends.append(len(self.text))
        self.frames.append(frames)
        self.labels.append(label)
