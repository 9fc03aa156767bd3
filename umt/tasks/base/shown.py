"""What a kind of work shows of a list on the page of `umt data show`: the interface.

Letters: T frames of a clip, H x W pixels, T' x h x w tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.video_list import VideoList
from umt.data.video.decoders import Frames
from umt.tasks.base import Recipe


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
        names: of the classes; None: they have none.
        names_from: where they come from.
        declared: classes that the run says there are; 0: it does not say.
    """

    title: ClassVar[str]
    explanation: ClassVar[str]
    extension: ClassVar[str] = ""  # that paths without one get

    config: Any
    videos: VideoList
    names: tuple[str, ...] | None
    names_from: str
    declared: int

    @classmethod
    @abstractmethod
    def rows(cls, config: Any) -> VideoList:
        """The training list of a run."""

    @classmethod
    @abstractmethod
    def of(cls, config: Any, videos: VideoList) -> Shown:
        """What a run of `config` makes of `videos`, its training list."""

    @classmethod
    @abstractmethod
    def config_for(cls, config: Any, source: str, folder: str, classes: int | None) -> Recipe:
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

    @abstractmethod
    def file(self, row: int) -> File:
        """What the file of a row is like, and how long a training clip of it takes to read. Raises VideoError."""

    @property
    def timeout(self) -> float:
        """Seconds that reading one file may take; 0: any time."""
        seconds: float = self.config.loading.decode_timeout
        return seconds

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
