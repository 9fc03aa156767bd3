"""All clips of a video, also where they are too many for memory: a data set that gives them part by part.

Shapes: S clips of a video of L frames, n frames in a clip, C crops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umt.data.loading.batch import Failure
from umt.data.loading.clip_batch import ClipBatch, collate
from umt.data.loading.clips import Sample, Videos
from umt.data.video import guard
from umt.data.video.decoders import Frames
from umt.errors import VideoError

_MOST_BYTES = 32 << 20  # of the views of a part


@dataclass(frozen=True)
class Sliding:
    """L -> (S, n): a clip begins every `clip_stride` frames and takes every `rate`-th frame from there.

    Clips that would run out of the video are left out, but for the first, which then repeats the last frame.
    """

    num_frames: int
    clip_stride: int
    rate: int = 1

    def __call__(self, length: int) -> NDArray[np.int64]:
        span = (self.num_frames - 1) * self.rate + 1
        starts = np.arange(0, max(length - span, 0) + 1, self.clip_stride)
        return np.minimum(starts[:, None] + self.rate * np.arange(self.num_frames), length - 1)


@dataclass(frozen=True)
class ClipParts:
    """Views of a row, of at most `most` clips (0: all) at a time: part `epoch` of them, for `umt.data.loading.loaders`.

    Every sample's `seed` is L, by which its reader knows the clips and how many parts there are.
    """

    videos: Videos
    sample: Callable[[int], NDArray[np.int64]]
    transform: Callable[[Frames], Sequence[Frames]]
    most: int = 0

    def __len__(self) -> int:
        return len(self.videos)

    def parts(self, length: int) -> int:
        """How many parts a video of `length` frames has."""
        return -(-len(self.sample(length)) // self.most) if self.most else 1

    def collate(self, samples: list[Sample], failures: list[Failure]) -> ClipBatch:
        """Samples in their order as a batch."""
        return collate(samples, failures)

    def fetch_ahead(self, rows: Sequence[int]) -> None:
        """Begins to fetch the shards of rows that come soon."""
        self.videos.fetch_ahead(rows)

    def read(self, epoch: int, row: int) -> tuple[list[Sample], list[Failure]]:
        """Part `epoch` of row `row`, clip by clip. A row that cannot be read is a failure."""
        try:
            with self.videos.open(row) as video:
                length = len(video)
                clips = self.sample(length)
                if self.most:
                    clips = clips[epoch * self.most : (epoch + 1) * self.most]
                frame_indices, places = np.unique(clips, return_inverse=True)
                frames = video.frames(frame_indices)
            guard.end()
        except VideoError as error:
            return [], [self.videos.failure(row, error)]
        path, label = self.videos.list.path(row), int(self.videos.list.labels[row])
        crops = self.transform(frames)
        return [
            Sample(video=crop[chosen], label=label, row=row, path=path, seed=length, clip=c, crop=k)
            for c, chosen in enumerate(places.reshape(clips.shape))
            for k, crop in enumerate(crops)
        ], []


def most_clips(num_frames: int, size: int, crops: int, batch_size: int) -> int:
    """Clips of a part: so many that their views take some megabytes, and fill whole batches if they can."""
    most = max(_MOST_BYTES // (3 * num_frames * size * size * crops), 1)
    return max(most - most % batch_size, 1)
