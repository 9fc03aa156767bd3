"""What travels from the data to a task, as far as the engine and the loaders know it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import torch

B = TypeVar("B", bound="Batch")
Failure = dict[str, "str | int"]
"""A row that could not be read: row, path, cause."""


class Batch(Protocol):
    """Samples of some rows of a list. What else a batch carries is between a task's data and its task."""

    failures: list[Failure]

    def __len__(self) -> int:
        """How many samples; there may be none but failures."""

    @property
    def rows(self) -> list[int]:
        """The row of each sample, to which its result belongs."""

    def to(self: B, device: torch.device | str) -> B:
        """The same with what a model is fed on `device`."""

    def pin_memory(self: B) -> B:
        """The same in page-locked memory, from which copies to a GPU are faster."""

    def parts(self: B, size: int) -> Iterator[B]:
        """Batches of at most `size` of its samples, in order."""

    def describe(self, index: int, *, copy: bool = False) -> str:
        """Sample `index` in words: its row and file; `copy`: also which copy of them it is."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which `Task.batch_from` makes it again."""
