"""Several labels a video, or none: what a multi-label list says of each of its rows. N rows, K classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BETWEEN = "|"  # parts the labels of one video, in the last column of a list


@dataclass(frozen=True, eq=False)
class LabelSets:
    """Labels of row i are members[ends[i] : ends[i + 1]], ascending, each once."""

    members: NDArray[np.int64]
    ends: NDArray[np.int64]  # (N + 1,), from 0
    classes: int

    @classmethod
    def of(cls, sets: Sequence[Iterable[int]], classes: int) -> LabelSets:
        """From the labels of each row."""
        each = [sorted({int(label) for label in labels}) for labels in sets]
        members = np.array([label for labels in each for label in labels], np.int64)
        return cls(members, np.cumsum([0, *map(len, each)], dtype=np.int64), classes)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def row(self, row: int) -> NDArray[np.int64]:
        """Labels of one row."""
        return self.members[self.ends[row] : self.ends[row + 1]]

    def hot(self, row: int) -> NDArray[np.float32]:
        """(K,): 1 where the row has the label, else 0."""
        made = np.zeros(self.classes, np.float32)
        made[self.row(row)] = 1
        return made

    def matrix(self) -> NDArray[np.uint8]:
        """(N, K) of 0 and 1."""
        made = np.zeros((len(self), self.classes), np.uint8)
        made[np.repeat(np.arange(len(self)), np.diff(self.ends)), self.members] = 1
        return made

    def counts(self) -> NDArray[np.int64]:
        """(K,): rows that have each label."""
        return np.bincount(self.members, minlength=self.classes)

    def take(self, rows: NDArray[np.int64]) -> LabelSets:
        """Those of `rows`, in their order."""
        return LabelSets.of([self.row(int(row)).tolist() for row in rows], self.classes)

    def first(self) -> NDArray[np.int64]:
        """(N,): the lowest label of each row, -1 where it has none."""
        made = np.full(len(self), -1, np.int64)
        some = np.diff(self.ends) > 0
        made[some] = self.members[self.ends[:-1][some]]
        return made


def joined(parts: Sequence[LabelSets]) -> LabelSets:
    """The rows of `parts`, one after the other."""
    return LabelSets.of([part.row(row).tolist() for part in parts for row in range(len(part))], parts[0].classes)
