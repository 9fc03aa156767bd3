"""What an evaluation collects and says of it: the protocol between the engine, which knows nothing else, and a task.

A result belongs to a row of the annotation list, never to a file name, and each row counts once. How much belongs to a
row is the implementation's affair: the logits of every view (`scores.ViewScores`), a loss and a rank
(`validation.ValidationScores`), or any number of boxes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Summary(Protocol):
    """The numbers of one evaluation. Plain data: it is sent from the main process to the others."""

    def metrics(self) -> dict[str, float]:
        """The numbers by name, as log.txt has them: of a validation with `val_` before each name."""

    def table(self) -> str:
        """Aligned text for a console."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""


class Results(ABC):
    """Results of the rows of one list, empty at first.

    Attributes:
        best_metric: the name among `Summary.metrics` by which checkpoints are compared; greater is better.
    """

    best_metric: str

    @abstractmethod
    def __len__(self) -> int:
        """Rows of the whole list."""

    @abstractmethod
    def take(self, batch: Any, output: Any) -> Sequence[int]:
        """Adds what `Task.evaluation_step` gave for `batch`; a result that is there already stays as it is.

        Returns the rows that are complete with it and were not before.
        """

    @abstractmethod
    def count_as_wrong(self, row: int, cause: str) -> None:
        """Notes that a row could not be read: it stays in every denominator, and is reported."""

    @abstractmethod
    def finished(self) -> Sequence[int]:
        """The rows whose results are complete."""

    @abstractmethod
    def missing(self) -> Sequence[Any]:
        """What lacks a result and is not excused by `count_as_wrong`."""

    @abstractmethod
    def dump(self, row: int) -> bytes:
        """The results of a finished row, of any length."""

    @abstractmethod
    def load(self, row: int, data: bytes) -> None:
        """Takes back what `dump` gave, also in another process; a row that is there already stays as it is."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of what is evaluated: the list, the weights, the settings. Another fingerprint, another test."""

    @abstractmethod
    def summarise(self) -> Summary:
        """The numbers. Raises ScoresError while something is missing: a part of a list has no accuracy."""

    def save(self, folder: Path) -> Path:
        """Writes the results into a file of `folder`, whole or not at all; its path. Raises OutputError."""
        raise TypeError(f"{type(self).__name__} has no file")
