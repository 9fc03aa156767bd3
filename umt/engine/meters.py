"""Means over an epoch that survive a restart exactly: a sum and a count a name, in Python's own doubles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping


class Meters:
    """Adds numbers by name and gives their means. Its state is a plain dictionary that goes into the checkpoint."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Counts every finite value once; an overflowing step's infinite gradient norm is left out."""
        for name, value in values.items():
            if math.isfinite(value):
                entry = self._sums.setdefault(name, [0.0, 0.0])
                entry[0] += value
                entry[1] += 1

    def means(self) -> dict[str, float]:
        """Mean of each name since the start of the epoch."""
        return {name: total / count for name, (total, count) in self._sums.items()}

    def clear(self) -> None:
        self._sums = {}

    def state_dict(self) -> dict[str, list[float]]:
        return {name: list(entry) for name, entry in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Iterable[float]]) -> None:
        self._sums = {name: list(entry) for name, entry in state.items()}
