"""Several labels per video, or none: what a multi-label list says of each of its rows. N rows, K classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
        return cls(members, _ends([len(labels) for labels in each]), classes)

    @classmethod
    def of_single(cls, labels: NDArray[np.int64]) -> LabelSets:
        """From (N,) one label per row, -1 for none."""
        members = labels[labels >= 0]
        return cls(members, _ends(labels >= 0), int(members.max(initial=-1)) + 1)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def row(self, row: int) -> NDArray[np.int64]:
        """Labels of one row."""
        return self.members[self.ends[row] : self.ends[row + 1]]

    def hot(self, row: int) -> NDArray[np.float32]:
        """(K,): 1 where the row has the label, else 0."""
        target = np.zeros(self.classes, np.float32)
        target[self.row(row)] = 1
        return target

    def matrix(self) -> NDArray[np.uint8]:
        """(N, K) of 0 and 1."""
        targets = np.zeros((len(self), self.classes), np.uint8)
        targets[self._row_of_each(), self.members] = 1
        return targets

    def counts(self, classes: int = 0) -> NDArray[np.int64]:
        """(K,): rows that have each label, for at least `classes` classes."""
        return np.bincount(self.members, minlength=max(classes, self.classes))

    def rows_by_label(self) -> dict[int, NDArray[np.int64]]:
        """Label -> its rows, ascending, for the labels that there are; the rarest first, of equals the lowest."""
        counts = self.counts()
        rows = self._row_of_each()[np.argsort(self.members, kind="stable")]
        parts = np.split(rows, np.cumsum(counts)[:-1])
        return {int(label): parts[label] for label in np.argsort(counts, kind="stable") if counts[label]}

    def take(self, rows: NDArray[np.int64]) -> LabelSets:
        """Those of `rows`, in their order."""
        lengths = np.diff(self.ends)[rows]
        ends = _ends(lengths)
        # Member m of the new row i is member m - ends[i] of the old row.
        places = np.arange(ends[-1]) + np.repeat(self.ends[:-1][rows] - ends[:-1], lengths)
        return LabelSets(self.members[places], ends, self.classes)

    def first(self) -> NDArray[np.int64]:
        """(N,): the lowest label of each row, -1 where it has none."""
        lowest = np.full(len(self), -1, np.int64)
        some = np.diff(self.ends) > 0
        lowest[some] = self.members[self.ends[:-1][some]]
        return lowest

    def _row_of_each(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self)), np.diff(self.ends))


def joined(parts: Sequence[LabelSets]) -> LabelSets:
    """The rows of `parts`, one after the other."""
    members = np.concatenate([part.members for part in parts])
    return LabelSets(members, _ends(np.concatenate([np.diff(part.ends) for part in parts])), parts[0].classes)


def _ends(lengths: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
