"""Several lists as one: the rows of the first, then of the second, and so on; each with its own prefix and storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.label_sets import joined
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import Videos
from umt.data.video.decoders import VideoReader
from umt.errors import ConfigError


class MixedList(VideoList):
    """The rows of `parts`, one list after the other. A row's path is what the list that it comes from writes."""

    def __init__(self, parts: Sequence[VideoList]) -> None:
        kinds = {bool((part.num_frames < 0).all()) for part in parts}
        if len(kinds) > 1:
            raise ConfigError("--data_path mixes lists of videos and lists of frame folders. Give lists of one kind.")
        names = {tuple(part.class_names) for part in parts if part.class_names is not None}
        if len(names) > 1:
            raise ConfigError("--data_path mixes folders whose classes differ. Give each the same class folders.")
        prefix = " + ".join(part.prefix or "none" for part in parts)
        super().__init__(" + ".join(part.source for part in parts), [], [], prefix=prefix)
        self.labels = np.concatenate([part.labels for part in parts])
        self.num_frames = np.concatenate([part.num_frames for part in parts])
        self.class_names = list(next(iter(names))) if names else None
        sets = [part.sets for part in parts if part.sets is not None]
        self.sets = joined(sets) if len(sets) == len(parts) else None
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *map(len, parts)])

    def path(self, row: int) -> str:
        """The path as the list of the row writes it."""
        number, row = self.part(row)
        return self.parts[number].path(row)

    def take(self, rows: NDArray[np.int64]) -> VideoList:
        raise NotImplementedError("rows are taken from a list before it is mixed with others")

    def part(self, row: int) -> tuple[int, int]:
        """Number of the list of `row`, and the row of that list."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return number, row - int(self.starts[number])

    def file(self, row: int) -> str:
        """The file, folder or URL to open, by the prefix of the row's list."""
        number, row = self.part(row)
        return self.parts[number].file(row)


@dataclass(frozen=True)
class MixedVideos(Videos):
    """Rows of several lists that can be opened. `list` is the `MixedList` of the lists of `parts`."""

    parts: tuple[Videos, ...] = ()

    def open(self, row: int, *, alone: bool = False) -> VideoReader:
        """Raises VideoError naming the file."""
        videos, row = self._part(row)
        return videos.open(row, alone=alone)

    @property
    def fetches_shards(self) -> bool:
        """Whether shards of any list are copied as a whole."""
        return any(part.fetches_shards for part in self.parts)

    def fetch(self, row: int) -> None:
        """Fetches the shard of a row."""
        videos, row = self._part(row)
        videos.fetch(row)

    def _part(self, row: int) -> tuple[Videos, int]:
        assert isinstance(self.list, MixedList)
        number, row = self.list.part(row)
        return self.parts[number], row


def mixed(parts: Sequence[Videos], rows: VideoList | None = None) -> Videos:
    """The rows of `parts` as one list; a single part is returned as it is. `rows`: their `MixedList`, if it exists."""
    if len(parts) == 1:
        return parts[0]
    return MixedVideos(
        rows or MixedList([part.list for part in parts]), parts[0].decoder, parts[0].frame_template, parts=tuple(parts)
    )
