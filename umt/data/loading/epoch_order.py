"""Which rows an epoch takes, and in which order: a function of (seed, epoch), for any number of ranks and workers.

An epoch always takes as many draws as there are rows. A draw below that number is a row; the k-th repetition of row r
in an epoch is r + k * rows, so that each has its own random numbers (`umt.data.loading.clips`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umt.errors import ConfigError
from umt.randomness import generator, key

Draws = NDArray[np.int64]


class EpochOrder(Protocol):
    """The law of the epochs of one data set."""

    def __len__(self) -> int:
        """Rows, and draws of an epoch."""

    def draws(self, seed: int, epoch: int) -> Draws:
        """The draws of `epoch`, in order."""

    def shards(self) -> NDArray[np.int32] | None:
        """(rows,) number of the shard that each row is fetched with, -1 for rows that are in none; None: all are."""

    def reach(self) -> int:
        """How many draws before its first use a shard is fetched."""


@dataclass(frozen=True)
class Shuffled:
    """Every row once, in any order."""

    rows: int

    def __len__(self) -> int:
        return self.rows

    def draws(self, seed: int, epoch: int) -> Draws:
        return generator(seed, epoch, "order").permutation(self.rows)

    def shards(self) -> NDArray[np.int32] | None:
        return None

    def reach(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class ByShard:
    """Every row once, from `window` shards at a time: shards are shuffled, and so are the rows of each window.

    A shard is no longer needed when its window ends, so only `2 * window` of them, of this window and the next, have
    to be on disk.
    """

    shard: NDArray[np.int32]
    window: int

    def __len__(self) -> int:
        return len(self.shard)

    def draws(self, seed: int, epoch: int) -> Draws:
        random = generator(seed, epoch, "shards")
        numbers, of_row = np.unique(self.shard, return_inverse=True)
        window = random.permutation(len(numbers))[of_row] // self.window
        rows = random.permutation(len(self.shard))
        return rows[np.argsort(window[rows], kind="stable")]

    def shards(self) -> NDArray[np.int32] | None:
        return self.shard

    def reach(self) -> int:
        return -(-len(self.shard) * self.window // len(np.unique(self.shard)))


@dataclass(frozen=True, eq=False)
class Mixed:
    """Rows of several lists, the first list's first, drawn with `weights`.

    List i has the share weights[i] / sum(weights) of every epoch. It goes through its own epochs one after the other,
    across the epochs of the run, so that none of its rows is drawn twice before all of them were. The draws of the
    lists are shuffled together.
    """

    parts: tuple[EpochOrder, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.parts):
            raise ConfigError(f"--data_weights has {len(self.weights)} numbers for {len(self.parts)} lists.")
        for number, quota in enumerate(self.quotas()):
            if quota < 1:
                raise ConfigError(
                    f"--data_weights ({' '.join(f'{w:g}' for w in self.weights)}) leaves list {number + 1} without a "
                    f"video in an epoch of {len(self)}. Give it a greater weight."
                )

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def quotas(self) -> list[int]:
        """Draws of each list in an epoch; together as many as there are rows."""
        exact = [len(self) * weight / sum(self.weights) for weight in self.weights]
        quotas = [int(share) for share in exact]
        largest = sorted(range(len(exact)), key=lambda i: (quotas[i] - exact[i], i))
        for i in largest[: len(self) - sum(quotas)]:
            quotas[i] += 1
        return quotas

    def draws(self, seed: int, epoch: int) -> Draws:
        quotas = self.quotas()
        part_of = generator(seed, epoch, "mix").permutation(np.repeat(np.arange(len(quotas)), quotas))
        draws = np.empty(len(self), dtype=np.int64)
        first = 0
        for number, (part, quota) in enumerate(zip(self.parts, quotas, strict=True)):
            passes = _passes(part, key(seed, "list", number), epoch * quota, quota)
            draws[part_of == number] = first + passes % len(part) + len(self) * _repetitions(passes)
            first += len(part)
        return draws

    def shards(self) -> NDArray[np.int32] | None:
        numbers, first = [], 0
        for part in self.parts:
            shards = part.shards()
            alone = np.full(len(part), -1, np.int32)
            numbers.append(alone if shards is None else np.where(shards < 0, -1, shards + first))
            first = max(first, int(numbers[-1].max()) + 1)
        return None if first == 0 else np.concatenate(numbers).astype(np.int32)

    def reach(self) -> int:
        return max(-(-part.reach() * len(self) // quota) for part, quota in zip(self.parts, self.quotas(), strict=True))


def _passes(part: EpochOrder, seed: int, start: int, count: int) -> Draws:
    """Draws `start` to `start + count` of a list that is repeated epoch by epoch."""
    pieces: list[Draws] = []
    while count:
        number, place = divmod(start, len(part))
        pieces.append(part.draws(seed, number)[place : place + count])
        start, count = start + len(pieces[-1]), count - len(pieces[-1])
    return np.concatenate(pieces)


def _repetitions(draws: Draws) -> Draws:
    """For each draw how often it came before."""
    order = np.argsort(draws, kind="stable")
    ordered = draws[order]
    firsts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    before = np.arange(len(draws)) - np.repeat(firsts, np.diff(np.append(firsts, len(draws))))
    repetitions = np.empty(len(draws), dtype=np.int64)
    repetitions[order] = before
    return repetitions


def fetched_ahead(order: EpochOrder, draws: Sequence[int] | Draws) -> list[tuple[int, int]]:
    """(place among `draws`, row): when to fetch the shard of that row; in the order of their use."""
    shards = order.shards()
    if shards is None or not len(draws):
        return []
    rows = np.asarray(draws) % len(order)
    numbers, firsts = np.unique(shards[rows], return_index=True)
    reach = order.reach()
    return [(max(first - reach, 0), int(rows[first])) for first in sorted(firsts[numbers >= 0].tolist())]
