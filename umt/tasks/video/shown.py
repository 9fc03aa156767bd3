"""What the tasks on clips show of a list of videos (`umt.tasks.base.shown`)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import av
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from umt.data.loading.clips import Sample, TrainClips, ViewClips
from umt.data.transforms.normalize import normalize
from umt.data.video import guard
from umt.data.video.decoders import Frames
from umt.errors import VideoError
from umt.randomness import generator
from umt.tasks.base.shown import File, Shown, Strip

EPOCH = 0


@dataclass(frozen=True)
class VideoShown(Shown):
    """`train`: the training clips."""

    train: TrainClips

    def file(self, row: int) -> File:
        """What the file of a row is like, and how long a training clip of it takes to read. Raises VideoError."""
        videos, file = self.train.videos, File(row)
        start = time.perf_counter()
        with videos.open(row, alone=True) as video:
            file.frames, file.reader = len(video), type(video).__name__
            frame_indices = self.train.sample(len(video), rng=generator(self.train.seed, EPOCH, row, "frames"))
            file.height, file.width = video.frames(frame_indices).shape[1:3]
        file.seconds = time.perf_counter() - start
        if int(videos.list.num_frames[row]) < 0:
            with videos.storage.path(videos.list, row, alone=True) as path:
                guard.begin(path)
                file.fps, file.codec = _rate_and_codec(path)
        return file


def _rate_and_codec(path: str) -> tuple[float, str]:
    try:
        with av.open(path, metadata_errors="replace") as container:
            stream = container.streams.video[0]
            return float(stream.average_rate or 0), str(stream.codec_context.name)
    except av.FFmpegError:  # the readers have said what is wrong with it
        return 0.0, ""


@dataclass
class _Recorder:
    """A sampling law that remembers which frames it drew last."""

    law: Callable[..., NDArray[np.int64]]
    numbers: list[int] = field(default_factory=list)

    def __call__(self, length: int, **rng: Any) -> NDArray[np.int64]:
        frame_indices = self.law(length, **rng)
        self.numbers = frame_indices.tolist()
        return frame_indices


def samples_of(clips: TrainClips | ViewClips, row: int) -> list[tuple[Sample, list[int]]]:
    """The samples of a row, each with the numbers of its frames in the video. Raises VideoError."""
    law = _Recorder(clips.sample)
    samples, failures = dataclasses.replace(cast(Any, clips), sample=law).read(EPOCH, row)
    if failures:
        raise VideoError(str(failures[0]["cause"]))
    return [(sample, law.numbers) for sample in samples]


def training_strips(
    clips: TrainClips, row: int, picture: Callable[[Sample], Frames] = lambda sample: sample.video
) -> list[Strip]:
    """The training copies of a row; `picture` makes of a sample what the model gets. Raises VideoError."""
    samples = samples_of(clips, row)
    titles = ["training"] if len(samples) == 1 else [f"training, copy {n}" for n in range(1, len(samples) + 1)]
    return [
        Strip(title, picture(sample), numbers, sample.noise)
        for title, (sample, numbers) in zip(titles, samples, strict=True)
    ]


def model_input(frames: Frames) -> torch.Tensor:
    """(T, H, W, C) bytes -> (1, C, T, H, W), normalised."""
    return normalize(torch.from_numpy(rearrange(frames, "t h w c -> 1 c t h w").copy()))


def common_flags(config: Any) -> list[tuple[str, Any]]:
    """The flags of `Shown.flags` that all kinds of work have."""
    data = config.data
    return [
        ("input_size", config.model.input_size), ("num_frames", data.num_frames), ("data_set", data.data_set),
        ("num_sample", data.num_sample), ("sampling_rate", data.sampling_rate), ("decoder", data.decoder),
        ("seed", config.runtime.seed),
    ]  # fmt: skip
