"""An opened video: the protocol that the rest of the library knows, and what all readers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

VIDEO_ENDINGS = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


class VideoReader(Protocol):
    """An opened video."""

    path: str

    def __len__(self) -> int:
        """Frames that a player would show, L."""

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        """Frames `indices` (n of 0..L-1, any order, repeats allowed) as (n, H, W, 3) uint8 RGB, from one pass."""

    def close(self) -> None:
        """Frees the decoder."""

    def __enter__(self) -> VideoReader: ...

    def __exit__(self, *error: object) -> None: ...


class Reader:
    """What the readers share: checking indices, decoding every frame once and in order, closing."""

    path: str
    length: int

    def __len__(self) -> int:
        return self.length

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        unique, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if not len(unique) or unique[0] < 0 or unique[-1] >= self.length:
            raise IndexError(f"{self.path}: frames {indices} of {self.length}")
        decoded = self._decode(unique)
        return decoded if len(places) == len(unique) and (np.diff(places) > 0).all() else decoded[places]

    def _decode(self, indices: NDArray[np.int64]) -> Frames:
        """Frames `indices`, ascending and each once."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees the decoder."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
