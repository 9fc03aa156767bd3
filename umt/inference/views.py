"""Videos as the views that a model takes: the same frames, resize and crops as `umt test`, by the same code.

Shapes: V views, each one crop of one clip, of T frames of H x W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import Videos, ViewClips
from umt.data.sampling import views_sampler
from umt.data.transforms.pipelines import TestTransform
from umt.data.video.decoders import Frames, VideoReader
from umt.data.video.video_reader import Reader
from umt.errors import ConfigError, VideoError

Source = str | os.PathLike[str] | Frames
"""A video: a file, a folder of frames, a URL, or its frames (L, H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Views:
    """How a model takes its views: what `umt test` calls --num_frames, --input_size, --short_side_size and so on."""

    num_frames: int
    input_size: int | tuple[int, int]
    short_side_size: int = 0  # 0: input_size
    sampling: str = "sparse"  # sparse | dense | ssv2
    sampling_rate: int = 1
    decoder: str = "auto"

    def clips(self, videos: Videos, clips: int, crops: int) -> ViewClips:
        """The data set that `umt test` reads: `clips` x `crops` views of each row of `videos`."""
        if clips < 1:
            raise ConfigError(f"clips ({clips}) must be at least 1.")
        sample = views_sampler(self.sampling, self.num_frames, clips, self.sampling_rate)
        return ViewClips(videos, sample, self.transform(crops), count_unreadable_as_wrong=True)

    def transform(self, crops: int) -> TestTransform:
        """Resize and `crops` crops of frames (L, H, W, 3). Raises ConfigError for frames that are not square."""
        if not isinstance(self.input_size, int):
            raise ConfigError(
                f"the model takes frames of {self.input_size[0]} x {self.input_size[1]} pixels, and the crops of a "
                "test are square. Make the views yourself, or load it with another input_size."
            )
        return TestTransform(self.short_side_size or self.input_size, crops, self.input_size)

    def of(self, video: Source, clips: int, crops: int) -> NDArray[np.uint8]:
        """The views (V, T, H, W, 3) of a video, clip by clip. Raises VideoError."""
        samples, failures = self.clips(self.open(video), clips, crops).read(0, 0)
        if failures:
            raise VideoError(str(failures[0]["cause"]))
        return np.stack([sample.video for sample in samples])

    def open(self, video: Source) -> Videos:
        """A list of one video. Raises VideoError for an array that is no video."""
        if isinstance(video, str | os.PathLike):
            path = os.fspath(video)
            return Videos(VideoList("", [path], [-1], [0 if os.path.isdir(path) else -1]), self.decoder)
        return InMemory(VideoList("", ["frames"], [-1]), self.decoder, frames=checked(video))


@dataclass(frozen=True)
class InMemory(Videos):
    """One video whose frames are in memory."""

    frames: Frames | None = None

    def open(self, row: int, *, alone: bool = False) -> VideoReader:
        assert self.frames is not None
        return _Array(self.frames)


class _Array(Reader):
    def __init__(self, frames: Frames) -> None:
        self.path, self.length, self._frames = "frames", len(frames), frames

    def _decode(self, wanted: NDArray[np.int64]) -> Frames:
        frames: Frames = self._frames[wanted]
        return frames


def checked(frames: Frames | Sequence[Frames]) -> Frames:
    """Frames as (L, H, W, 3) uint8. Raises VideoError for anything else, and says what to do."""
    array = np.asarray(frames)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or not array.size:
        raise VideoError(
            f"frames must be (frames, height, width, 3) uint8 RGB from 0 to 255, not {array.shape} {array.dtype}. "
            "Use .permute on a tensor of another order, and multiply floats in 0..1 by 255."
        )
    return array
