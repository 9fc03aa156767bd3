"""A video of any length, window by window: only the frames that are needed are decoded, each once, in one pass.

Memory holds the frames of one window, however long the video is. Shapes: C crops, T frames, H x W pixels.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray

from umt.data.lists.video_list import VideoList
from umt.data.sampling import views_sampler
from umt.data.storage.source import PLAIN_FILES
from umt.data.video.decoders import Frames, VideoReader
from umt.data.video.probe import probe
from umt.data.video.pyav_readers import Direct, PyAV
from umt.data.video.reader import open_folder, open_video
from umt.errors import ConfigError
from umt.inference.views import InMemory, Source, Views

__all__ = ["Window"]
_CHUNK = 16  # frames at a time of readers that do not hand them out one by one


@dataclass(frozen=True)
class Window:
    """A part of a video, from `start` to `end` in seconds, as views (C, T, H, W, 3) uint8; `frames`: their numbers."""

    start: float
    end: float
    frames: tuple[int, ...]
    views: NDArray[np.uint8]


@dataclass(frozen=True)
class Span:
    """Frames `first` to `stop` - 1, which are shown from `start` to `end`, in seconds."""

    start: float
    end: float
    first: int
    stop: int


def spans(times: NDArray[np.float64], duration: float, window: float, stride: float) -> list[Span]:
    """Windows of `window` seconds every `stride` seconds, until one reaches the end, where it is cut.

    `times` (L,) says when each frame is shown. A window in which no frame begins has the frame that is still visible.
    """
    parts: list[Span] = []
    for number in itertools.count():
        start = number * stride
        if parts and start >= duration - 1e-6:
            return parts
        end = min(start + window, duration)
        # A rounding error must not move a frame to another window.
        first, stop = np.searchsorted(times, (start - 1e-6, end - 1e-6)).tolist()
        if stop <= first:
            first = min(max(first - 1, 0), len(times) - 1)
            stop = first + 1
        parts.append(Span(round(start, 6), round(end, 6), first, stop))
        if start + window >= duration - 1e-6:
            return parts
    raise AssertionError("unreachable")


def windows(
    views: Views,
    video: Source,
    window: float,
    stride: float | None = None,
    *,
    crops: int = 1,
    fps: float | None = None,
) -> Iterator[Window]:
    """The windows of a video in their order, one clip each, sampled within the window as `views` says.

    `stride`: seconds from one start to the next; None: `window`, without overlap. `fps`: of frames in memory or in a
    folder, which have no times of their own. Raises VideoError, and ConfigError for what cannot be cut.
    """
    stride = window if stride is None else stride
    for name, value in (("window", window), ("stride", stride)):
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(f"{name} ({value:g}) must be more than 0 seconds.")
    sample, transform = views_sampler(views.sampling, views.num_frames, 1, views.sampling_rate), views.transform(crops)
    if not isinstance(video, str | os.PathLike):
        rows = views.open(video)
        assert isinstance(rows, InMemory)
        with rows.open(0) as reader:
            yield from _cut(reader, *_even(len(reader), fps, "frames in memory"), window, stride, sample, transform)
    elif os.path.isdir(video):
        with open_folder(video, None, None) as reader:
            yield from _cut(reader, *_even(len(reader), fps, os.fspath(video)), window, stride, sample, transform)
    else:
        videos = VideoList("", [os.fspath(video)], [-1])
        with PLAIN_FILES.path(videos, 0) as path, open_video(path, views.decoder) as reader:
            yield from _cut(reader, *frame_times(path, len(reader)), window, stride, sample, transform)


def frame_times(path: str, frames: int) -> tuple[NDArray[np.float64], float]:
    """When each of the `frames` frames of a file is shown, in seconds from the first (L,), and until when the last is.

    Where the file's times cannot be trusted its frame rate says it.
    """
    known = probe(path)
    with av.open(path, metadata_errors="replace") as container:
        stream = container.streams.video[0]
        rate, unit = float(stream.average_rate or 25), float(stream.time_base or 0)
    if not known.timed or len(known.times) != frames or not unit:
        return _even(frames, rate, path)
    times = (known.times - known.times[0]) * unit
    return times, float(times[-1]) + 1 / rate


def _even(frames: int, fps: float | None, name: str) -> tuple[NDArray[np.float64], float]:
    if fps is None or not fps > 0:
        raise ConfigError(f"{name}: windows need the frames' times. Say how many a second has: fps (--fps), e.g. 25.")
    return np.arange(frames) / fps, frames / fps


def _cut(
    reader: VideoReader,
    times: NDArray[np.float64],
    duration: float,
    window: float,
    stride: float,
    sample: Callable[[int], NDArray[np.int64]],
    transform: Callable[[Frames], Sequence[Frames]],
) -> Iterator[Window]:
    parts = spans(times, duration, window, stride)
    clips = [part.first + sample(part.stop - part.first)[0] for part in parts]
    frame_indices = np.unique(np.concatenate(clips))
    frames = zip(frame_indices.tolist(), each(reader, frame_indices), strict=True)
    images: dict[int, Frames] = {}
    for number, (part, clip) in enumerate(zip(parts, clips, strict=True)):
        while not images or max(images) < clip[-1]:
            index, image = next(frames)
            images[index] = image
        crops = transform(np.stack([images[index] for index in clip.tolist()]))
        yield Window(part.start, part.end, tuple(clip.tolist()), np.stack(crops))
        following = clips[number + 1][0] if number + 1 < len(clips) else len(times)
        images = {index: image for index, image in images.items() if index >= following}


def each(reader: VideoReader, frame_indices: NDArray[np.int64]) -> Iterator[Frames]:
    """Frames `frame_indices` (ascending) of a video one by one (H, W, 3), each decoded once where the reader can."""
    if isinstance(reader, Direct | PyAV):
        yield from reader.each(frame_indices)
        return
    for start in range(0, len(frame_indices), _CHUNK):
        yield from reader.frames(frame_indices[start : start + _CHUNK])
