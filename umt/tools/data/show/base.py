"""What a kind of work shows of a list of videos: the interface, and what the kinds share.

Everything about the page itself is elsewhere: choosing rows and reading them (look.py), pictures (figures.py) and the
page (report.py). Letters: T frames of a clip, H x W pixels, T' x h x w tokens.
"""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import av
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from umt.config.schema import Config
from umt.data.lists.annotations import VideoList
from umt.data.loading.clips import Sample, TrainClips, ViewClips
from umt.data.transforms.normalize import normalize
from umt.data.video import guard
from umt.data.video.decoders import Frames
from umt.errors import VideoError
from umt.randomness import generator

EPOCH = 0


@dataclass
class File:
    """What one video is like, or why it cannot be read."""

    row: int
    cause: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0  # 0: frames in a folder have none
    codec: str = ""
    reader: str = ""  # the class that read it
    seconds: float = 0.0  # that a training clip's frames took, opening included


@dataclass
class Strip:
    """Frames in a row, as the model gets them."""

    title: str
    frames: Frames  # (T, H, W, 3)
    numbers: list[int]  # of the frames in the video
    noise: NDArray[np.float32] | None = None  # (T', h * w), from which the mask is drawn
    visible: NDArray[np.bool_] | None = None  # (T, h, w): the tokens that the student sees


@dataclass(frozen=True)
class Shown(ABC):
    """The training list of a run, and what the run makes of its rows. Travels to the processes that read.

    Attributes:
        title: what the page calls this kind of work.
        explanation: what its strips show, for the page.
        train: the training clips.
        names: of the classes; None: they have none.
        names_from: where they come from.
        declared: classes that the run says there are; 0: it does not say.
    """

    title: ClassVar[str]
    explanation: ClassVar[str]
    extension: ClassVar[str] = ""  # that paths without one get

    config: Config
    videos: VideoList
    train: TrainClips
    names: tuple[str, ...] | None
    names_from: str
    declared: int

    @classmethod
    @abstractmethod
    def of(cls, config: Config, videos: VideoList) -> Shown:
        """What a run of `config` makes of `videos`, its training list."""

    @classmethod
    @abstractmethod
    def config_for(cls, config: Config, source: str, folder: str, classes: int | None) -> Config:
        """`config` with the list `source`, which lies in `folder`, for its training list.

        `classes`: as many as its labels speak of; None: the flags say how many there are.
        """

    @abstractmethod
    def strips(self, row: int) -> list[Strip]:
        """The clips of a row. Runs in a worker process; raises VideoError."""

    @abstractmethod
    def flags(self) -> list[tuple[str, Any]]:
        """The flags that decide what a clip looks like, without their dashes."""

    def finish(self, strips: Sequence[Strip]) -> list[str]:
        """Adds to all strips what needs more than their rows, in the parent process; returns notes for the page."""
        return []

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

    @property
    def timeout(self) -> float:
        """Seconds that reading one file may take; 0: any time."""
        return self.config.data.decode_timeout

    @property
    def classes(self) -> int:
        """Classes of the histogram; 0 for a list without labels."""
        most = int(self.videos.labels.max()) + 1
        return max(most, self.declared) if most else 0

    def name(self, label: int) -> str:
        """How the page calls a class."""
        if label < 0:
            return "no label"
        return self.names[label] if self.names is not None and label < len(self.names) else f"class {label}"


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


def common_flags(config: Config) -> list[tuple[str, Any]]:
    """The flags of `Shown.flags` that all kinds of work have."""
    data = config.data
    return [
        ("input_size", config.model.input_size), ("num_frames", data.num_frames), ("data_set", data.data_set),
        ("num_sample", data.num_sample), ("sampling_rate", data.sampling_rate), ("decoder", data.decoder),
        ("seed", config.runtime.seed),
    ]  # fmt: skip


def changed(config: Config, **groups: dict[str, Any]) -> Config:
    """The same run with some flags changed."""
    values = {name: dataclasses.replace(getattr(config, name), **flags) for name, flags in groups.items()}
    return dataclasses.replace(config, **values)
