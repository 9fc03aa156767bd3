"""Data sets: a row of a list, and in training an epoch, becomes clips.

Everything random is a function of (seed, epoch, row, copy), through `umt.randomness`: which frames, which crop, the
noise of the pretraining mask, the box of random erasing. One decode serves all copies of a training video, and all
clips and crops of a test video.

Letters: n frames in a clip, h x w pixels, T' x N token grid, S test clips, C crops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.video_list import VideoList
from umt.data.loading.batch import Failure
from umt.data.loading.clip_batch import ClipBatch, collate
from umt.data.storage.source import PLAIN_FILES, Storage
from umt.data.video import guard
from umt.data.video.decoders import Frames, VideoReader
from umt.data.video.reader import open_video
from umt.errors import VideoError
from umt.randomness import generator, key

Indices = NDArray[np.int64]

# In training an unreadable row is replaced by another; after so many unreadable ones the list is to blame.
ATTEMPTS = 10


@dataclass
class Sample:
    """One clip as the workers make it; the fields are those of `ClipBatch`."""

    video: Frames  # (n, h, w, 3)
    label: int | NDArray[np.float32]  # (K,) of a multi-label list
    row: int
    path: str
    seed: int
    copy: int = 0
    clip: int = 0
    crop: int = 0
    noise: NDArray[np.float32] | None = None  # (T', N)
    erase: Indices | None = None  # (4,) or (R, 4)


@dataclass(frozen=True)
class Videos:
    """Rows of a list that can be opened."""

    list: VideoList
    decoder: str = "auto"
    frame_template: str | None = "img_{:05}.jpg"  # of folders whose list gives the number of frames
    storage: Storage = PLAIN_FILES

    def __len__(self) -> int:
        return len(self.list)

    def open(self, row: int, *, alone: bool = False) -> VideoReader:
        """Raises VideoError naming the file. `alone`: nothing else of its shard will be wanted."""
        name, frames = self.storage.name(self.list, row), int(self.list.num_frames[row])
        guard.begin(name)
        if frames < 0:
            return self.storage.open(self.list, row, partial(open_video, decoder=self.decoder), alone=alone)
        # 0: nobody counted the frames, so nobody promised how they are named either.
        return self.storage.open_frames(self.list, row, frames or None, self.frame_template if frames else None)

    def fetch_ahead(self, rows: Sequence[int]) -> None:
        """Begins to fetch the shards of rows that will be wanted, one after the other; nothing without shards."""
        if self.fetches_shards:
            threading.Thread(target=self._fetch_all, args=(rows,), daemon=True).start()

    def _fetch_all(self, rows: Sequence[int]) -> None:
        for row in rows:
            self.fetch(row)

    @property
    def fetches_shards(self) -> bool:
        """Whether shards are copied as a whole."""
        return self.storage.fetches_shards

    def fetch(self, row: int) -> None:
        """Fetches the shard of a row."""
        self.storage.ahead(row)

    def failure(self, row: int, cause: VideoError) -> Failure:
        """What a batch reports of a row that cannot be read."""
        return {"row": row, "path": self.list.path(row), "cause": str(cause)}


@dataclass(frozen=True)
class TrainClips:
    """`copies` clips of a row from one decode of one choice of frames, each augmented by itself.

    Attributes:
        sample: (L, rng=) -> (n,) frame numbers; see `umt.data.sampling.training_sampler`.
        transform: (frames, rng) -> uint8 frames (n, h, w, 3).
        noise_shape: (T', N) of the noise for the pretraining mask; None: none.
        erase: (rng, h, w) -> (4,) or (R, 4) boxes of random erasing; None: none.
    """

    videos: Videos
    sample: Callable[..., Indices]
    transform: Callable[[Frames, np.random.Generator], Frames]
    seed: int = 0
    copies: int = 1
    noise_shape: tuple[int, int] | None = None
    erase: Callable[[np.random.Generator, int, int], Indices] | None = None

    def __len__(self) -> int:
        return len(self.videos)

    def collate(self, samples: list[Sample], failures: list[Failure]) -> ClipBatch:
        """Samples in their order as a batch."""
        return collate(samples, failures)

    def fetch_ahead(self, rows: Sequence[int]) -> None:
        """Begins to fetch the shards of rows that come soon."""
        self.videos.fetch_ahead(rows)

    def read(self, epoch: int, row: int) -> tuple[list[Sample], list[Failure]]:
        """The copies of `row` in `epoch`, or of a row drawn in its place by (seed, epoch, row, attempt).

        `row` + k * len(self) is the k-th repetition of a row in an epoch (`umt.data.loading.epoch_order`).
        Rows that could not be read are in the second list. Raises VideoError after `ATTEMPTS` of them.
        """
        failures: list[Failure] = []
        taken = row % len(self)
        for attempt in range(ATTEMPTS):
            try:
                with self.videos.open(taken, alone=attempt > 0) as video:
                    indices = self.sample(len(video), rng=generator(self.seed, epoch, row, "frames"))
                    frames = video.frames(indices)
                guard.end()
                return [self._copy(frames, epoch, row, taken, copy) for copy in range(self.copies)], failures
            except VideoError as error:
                failures.append(self.videos.failure(taken, error))
                taken = int(generator(self.seed, epoch, row, "replacement", attempt).integers(len(self)))
        raise VideoError(
            f"{self.videos.list.source}: {ATTEMPTS} videos in a row cannot be read, first {failures[0]['cause']} "
            f"Check --prefix ({self.videos.list.prefix or 'none'}) and the list."
        )

    def _copy(self, frames: Frames, epoch: int, row: int, taken: int, copy: int) -> Sample:
        # Draws belong to the row that was asked for: a replacement is not the same clip as where it stands itself.
        video = self.transform(frames, generator(self.seed, epoch, row, copy, "augment"))
        noise = erase = None
        if self.noise_shape is not None:
            # 2**23 equal cells of (0, 1), each at its middle: exact in float32, and neither 0 nor 1.
            cells = generator(self.seed, epoch, row, copy, "mask").integers(0, 1 << 23, size=self.noise_shape)
            noise = ((cells + 0.5) / (1 << 23)).astype(np.float32)
        if self.erase is not None:
            erase = self.erase(generator(self.seed, epoch, row, copy, "erase"), *video.shape[1:3])
        return Sample(
            video=video,
            label=self.videos.list.target(taken),
            row=taken,
            path=self.videos.list.path(taken),
            seed=key(self.seed, epoch, row, copy),
            copy=copy,
            noise=noise,
            erase=erase,
        )


@dataclass(frozen=True)
class ViewClips:
    """The views of a row for validation (one) and testing (S clips x C crops), from one decode; nothing is random.

    Attributes:
        sample: L -> (n,) or (S, n) frame numbers; see `validation_sampler` and `views_sampler`.
        transform: frames -> frames, or a list of C crops; called once with all frames that any clip needs.
        count_unreadable_as_wrong: a row that cannot be read is a failure without views instead of an error.
    """

    videos: Videos
    sample: Callable[[int], Indices]
    transform: Callable[[Frames], Frames | Sequence[Frames]]
    count_unreadable_as_wrong: bool = False

    def __len__(self) -> int:
        return len(self.videos)

    def collate(self, samples: list[Sample], failures: list[Failure]) -> ClipBatch:
        """Samples in their order as a batch."""
        return collate(samples, failures)

    def fetch_ahead(self, rows: Sequence[int]) -> None:
        """Begins to fetch the shards of rows that come soon."""
        self.videos.fetch_ahead(rows)

    def read(self, epoch: int, row: int) -> tuple[list[Sample], list[Failure]]:
        """All views of `row`, clip by clip, whatever `epoch`. Raises VideoError naming a video that cannot be read."""
        try:
            with self.videos.open(row) as video:
                clips = np.atleast_2d(self.sample(len(video)))
                wanted, places = np.unique(clips, return_inverse=True)
                frames = video.frames(wanted)
            guard.end()
        except VideoError as error:
            if self.count_unreadable_as_wrong:
                return [], [self.videos.failure(row, error)]
            raise VideoError(
                f"{error} It is row {row} of {self.videos.list.source}, counted from 0. "
                "Mend it, take it off the list, or give --count_unreadable_as_wrong."
            ) from None
        crops = self.transform(frames)
        crops = [crops] if isinstance(crops, np.ndarray) else crops
        samples = [
            Sample(
                video=crop[chosen],
                label=self.videos.list.target(row),
                row=row,
                path=self.videos.list.path(row),
                seed=0,
                clip=c,
                crop=k,
            )
            for c, chosen in enumerate(places.reshape(clips.shape))
            for k, crop in enumerate(crops)
        ]
        return samples, []
