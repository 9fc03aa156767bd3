"""Features as rows of an array that may be larger than memory, given out as float32 on the device that wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umt.inference.feature_files import Shard

RESIDENT = 2 << 30  # bytes up to which an array lies on the device as a whole


class Stored:
    """A layer in shards as an array (rows * views, *item) of float16; what is not asked for is not read.

    Zeros where no shard has a row.
    """

    dtype = np.dtype(np.float16)

    def __init__(self, paths: Sequence[Path], layer: str, rows: int, views: int, item: tuple[int, ...]) -> None:
        """Raises FeaturesError for a damaged shard."""
        self.layer, self.views, self.shape = layer, views, (rows * views, *item)
        shards = [Shard(path) for path in paths]
        self._shards = {row: shard for shard in shards for row in shard.rows}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.float16]:
        """The rows at `places` (n,), (n, *item)."""
        values = torch.zeros(len(places), *self.shape[1:], dtype=torch.float16)
        for n, place in enumerate(places.tolist()):
            row, view = divmod(place, self.views)
            if row in self._shards:
                values[n] = self._shards[row].layer(row, self.layer)[view]
        return values.numpy()


class Table:
    """Rows `chosen` (all by default) of `array` (N, ...) in float16 or float32, in memory or not.

    An array of up to `resident` bytes is copied to the device, a larger one is read in batches.
    """

    def __init__(
        self, array: NDArray[Any] | Stored, chosen: NDArray[np.int64] | None = None,
        device: torch.device | str = "cpu", *, resident: int = RESIDENT,
    ) -> None:  # fmt: skip
        self.array, self.device = array, torch.device(device)
        self.chosen = np.arange(len(array)) if chosen is None else np.asarray(chosen, np.int64)
        self.shape = (len(self.chosen), *array.shape[1:])
        size = array.dtype.itemsize * int(np.prod(array.shape))
        everything = np.arange(len(array))
        self._whole = torch.from_numpy(array[everything]).to(self.device) if size <= resident else None

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, chosen: NDArray[np.int64]) -> Table:
        """Some of the rows, by their places in this table; nothing is copied."""
        part = Table.__new__(Table)
        part.__dict__.update(self.__dict__)
        part.chosen = self.chosen[chosen]
        part.shape = (len(part.chosen), *self.array.shape[1:])
        return part

    def rows(self, places: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """The rows at `places`, (n, ...) float32 on the device."""
        chosen = self.chosen[places.start : places.stop] if isinstance(places, range) else self.chosen[places]
        if self._whole is not None:
            return self._whole[torch.from_numpy(chosen).to(self.device)].float()
        order = np.argsort(chosen, kind="stable")  # a disk reads forward
        values = torch.from_numpy(np.asarray(self.array[chosen[order]]))
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        return values.to(self.device)[back.to(self.device)].float()

    def batches(self, order: NDArray[np.int64], size: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """(places, their rows) for `order` in parts of `size`; the next part is read while one is in use."""
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        if self._whole is not None:
            yield from ((part, self.rows(part)) for part in parts)
            return
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.rows, parts[0])
            for number, part in enumerate(parts):
                rows = coming.result()
                if number + 1 < len(parts):
                    coming = ahead.submit(self.rows, parts[number + 1])
                yield part, rows

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each feature over all rows, (D,) float32 on the device, from one pass."""
        total = torch.zeros(self.shape[-1], dtype=torch.float64, device=self.device)
        square = torch.zeros_like(total)
        count = 0
        for _, rows in self.batches(np.arange(len(self)), 8192):
            flat = rows.double().flatten(0, -2)
            total, square, count = total + flat.sum(0), square + (flat * flat).sum(0), count + len(flat)
        mean = total / count
        return mean.float(), (square / count - mean * mean).clamp(min=0).sqrt().float()
