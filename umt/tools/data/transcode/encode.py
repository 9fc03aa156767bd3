"""One video: decoded, made smaller, and encoded as an H.264 MP4 that is fast to read. PyAV alone does all of it.

The frames stay those that a player shows, with their times: no frame is dropped, repeated or moved. Rotation tags are
applied to the pixels.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from umt.data.video.mp4 import plain_index
from umt.data.video.probe import unreadable
from umt.data.video.pyav_readers import DAMAGED
from umt.data.video.reader import open_video
from umt.errors import OutputError

UNFINISHED = ".part"  # ends the name of a copy that is being written

_TURNS = {1: "transpose=cclock,", 2: "hflip,vflip,", 3: "transpose=clock,"}  # quarter turns to the left -> filters


@dataclass(frozen=True)
class Settings:
    """How videos are written; the fields are flags of `umt data transcode`. docs/data.md says why these values."""

    short_side: int = 256
    crf: float = 23
    gop: int = 8
    bframes: int = 3
    entropy: str = "cavlc"
    preset: str = "medium"
    tune: str = "none"

    def x264(self) -> dict[str, str]:
        """Options of the encoder: closed groups of at most `gop` frames; B-frames at fixed places, none a reference."""
        params = {
            "keyint": self.gop,
            "min-keyint": 1,
            "open-gop": 0,
            "bframes": self.bframes,
            "b-adapt": 0,
            "b-pyramid": "none",
            "cabac": int(self.entropy == "cabac"),
        }
        options = {
            "preset": self.preset,
            "crf": f"{self.crf:g}",
            "threads": "1",
            "x264-params": ":".join(f"{name}={value}" for name, value in params.items()),
        }
        return options if self.tune == "none" else {**options, "tune": self.tune}


@dataclass(frozen=True)
class Written:
    """What was written."""

    frames: int
    width: int
    height: int
    bytes: int


def new_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with that short side, in even numbers; a smaller video keeps its size."""
    scale = min(short_side / min(width, height), 1.0)
    even_width, even_height = (max(2 * round(side * scale / 2), 2) for side in (width, height))
    return even_width, even_height


def transcode(source: str, target: str, settings: Settings) -> Written:
    """Writes `target`, whole or not at all. Raises VideoError naming `source`, OutputError for a disk that is full."""
    with open_video(source) as video:  # its errors say what is wrong with a file
        expected = len(video)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = target + UNFINISHED
    try:
        frames, width, height = _write(source, temporary, settings)
        if frames != expected:
            raise unreadable(source, f"{frames} of its {expected} frames can be decoded")
        index = plain_index(temporary)
        if index is None or len(index) != frames:
            raise unreadable(source, "its copy cannot be read back")
        written = Written(frames, width, height, os.path.getsize(temporary))
        os.replace(temporary, target)
        return written
    except (av.FFmpegError, EOFError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"The disk is full while {target} is written. Free some; the same command goes on."
            ) from None
        raise unreadable(source, DAMAGED) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _write(source: str, path: str, settings: Settings) -> tuple[int, int, int]:
    number = 0
    with av.open(source) as old, av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as new:
        stream = old.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        rate = stream.average_rate or Fraction(30)
        out: Any = None
        unit = stream.time_base or 1 / rate
        times = _Times(unit, rate)
        for frame in _resized(source, old.decode(stream), stream, settings.short_side):
            number += 1
            if out is None:
                out = new.add_stream("libx264", rate=rate, options=settings.x264())
                out.width, out.height, out.pix_fmt = frame.width, frame.height, "yuv420p"
                out.codec_context.time_base = unit
                for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
                    if hasattr(frame, name):  # PyAV has the last two from release 17 on
                        setattr(out.codec_context, name, getattr(frame, name))
            frame.pts, frame.time_base = times.next(frame.pts), unit
            frame.pict_type = 0  # the encoder decides, not what the frame was in the original
            new.mux(out.encode(frame))
        if out is None:
            raise unreadable(source, "no frame of it can be decoded")
        new.mux(out.encode(None))
        return number, out.width, out.height


class _Times:
    """Rising times from 0 on: those of the original, or the usual distance where it gives none."""

    def __init__(self, unit: Fraction, rate: Fraction) -> None:
        self._usual = max(round(1 / (rate * unit)), 1)
        self._first: int | None = None
        self._last = -self._usual

    def next(self, time: int | None) -> int:
        if self._first is None and time is not None:
            self._first = time - (self._last + self._usual)
        shifted = None if time is None or self._first is None else time - self._first
        self._last = shifted if shifted is not None and shifted > self._last else self._last + self._usual
        return self._last


def _resized(source: str, frames: Iterator[Any], stream: Any, short_side: int) -> Iterator[Any]:
    """Upright frames of the new size, 8-bit 4:2:0, with the times that they came with."""
    graph = shape = None
    for frame in frames:
        now = (frame.width, frame.height, frame.format.name, round(frame.rotation / 90) % 4)
        if graph is None:
            shape, graph = now, _graph(stream, *now, short_side)
        if now != shape:
            raise unreadable(source, "its frames change size")
        time = frame.pts
        graph.push(frame)
        resized = graph.pull()
        resized.pts = time
        yield resized


def _graph(stream: Any, width: int, height: int, pixels: str, turns: int, short_side: int) -> Any:
    graph = av.filter.Graph()
    upright = (height, width) if turns % 2 else (width, height)
    new_width, new_height = new_size(*upright, short_side)
    entry = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat(pixels, width, height), time_base=stream.time_base
    )
    chain = f"{_TURNS.get(turns, '')}scale={new_width}:{new_height}:flags=bicubic,format=yuv420p"
    last = entry
    for step in chain.split(","):
        name, _, arguments = step.partition("=")
        node = graph.add(name, arguments or None)
        last.link_to(node)
        last = node
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
