"""Looks at a video's packets, without decoding, to learn which frames a player shows and which reader can give them.

decord and torchcodec are fast, but on some files they give other frames than a full decode (each case is a real file in
tests/data/video/test_reader.py): decord on stream-copied cuts with an edit list (shows what a player hides), both on
open groups of pictures, on AVI, MPEG-PS and MPEG-TS with B-frames, on anything but 8-bit 4:2:0 (other rounding), decord
on rotated files (refuses). Such files are read by `umt.data.video.pyav_readers.PyAV`, which seeks by the times that are
read here, and so is interlaced H.264, whose colours PyAV interpolates field by field.
"""

from __future__ import annotations

import itertools
import os
import stat
from dataclasses import dataclass, replace

import av
import numpy as np
from numpy.typing import NDArray

from umt.data.video import h264
from umt.data.video.mp4 import MOST_PIXELS, is_turned
from umt.errors import VideoError

_PLAIN_FORMATS = {"yuv420p", "yuvj420p"}
_TIMED_CONTAINERS = {"mov", "mp4", "matroska", "webm", "mpegts"}  # whose packets carry the time they are shown at
_PLAIN_CONTAINERS = _TIMED_CONTAINERS - {"mpegts"}


@dataclass(frozen=True)
class Probe:
    """What the packets of the first video stream say.

    Attributes:
        times: (L,) presentation times of the frames that a player shows, ascending, in the stream's unit.
        keys: (2, K) presentation and decoding times of the key frames, ascending.
        quirks: why decord and torchcodec are not to be trusted with this file; empty for a plain one.
        timed: `times` are those that decoding will give; otherwise frames can only be counted from the start.
    """

    times: NDArray[np.int64]
    keys: NDArray[np.int64]
    quirks: tuple[str, ...]
    timed: bool


def unreadable(path: str, cause: object) -> VideoError:
    """The error for a video that cannot be read: its name and the cause in one line."""
    return VideoError(f"{path}: cannot be read as a video ({' '.join(str(cause).split())[:300]}).")


def check_file(path: str) -> None:
    """Raises VideoError for a file that is missing, a folder, a pipe, or empty: the common causes, in plain words."""
    try:
        facts = os.stat(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise unreadable(path, "no such file; is --prefix right?" if missing else error.strerror) from None
    if not stat.S_ISREG(facts.st_mode):  # reading from a pipe would wait indefinitely
        raise unreadable(path, f"a {'folder' if stat.S_ISDIR(facts.st_mode) else 'pipe or device'}, not a file")
    if facts.st_size == 0:
        raise unreadable(path, "0 bytes")


def probe(path: str) -> Probe:
    """Reads the packets of `path`. Raises VideoError for a file that is not a video or is cut off."""
    check_file(path)
    try:
        with av.open(path, metadata_errors="replace") as container:  # a title in Latin-1 is no damage
            if container.format.name.endswith("_pipe"):
                raise unreadable(path, "a picture, not a video")
            if not container.streams.video:
                raise unreadable(path, "it has no video stream")
            stream = container.streams.video[0]
            codec = stream.codec_context
            if codec is None:
                raise unreadable(path, "its codec is not known")
            prefix = h264.prefix_of(codec.extradata)
            packets = []
            false_keys = 0
            interlaced = codec.name == "h264" and h264.may_be_interlaced(codec.extradata)
            for p in container.demux(stream):
                # Where pictures are refreshed stripe by stripe, H.264 marks frames as keys that need earlier ones.
                false = p.is_keyframe and codec.name == "h264" and not h264.is_intra(bytes(p), prefix)
                false_keys += false
                if p.size:
                    packets.append((p.pts, p.dts, p.is_keyframe and not false, p.is_discard, p.is_corrupt))
            containers = set(container.format.name.split(","))
            pix_fmt, width, height, reorders = codec.pix_fmt, codec.width, codec.height, bool(codec.has_b_frames)
            claimed = stream.frames  # 0: the container does not say
            if width * height > MOST_PIXELS:
                raise unreadable(path, f"its frames are {width} x {height}, more than {MOST_PIXELS >> 20} Mi pixels")
            invisible = codec.name == "vp8"  # alternate reference frames are packets that are never shown
    except av.FFmpegError as error:
        raise unreadable(path, error.strerror or error) from None
    if not packets:
        raise unreadable(path, "no video frame in it")
    if any(corrupt for *_, corrupt in packets):
        raise unreadable(path, "truncated: the file ends in the middle of a frame")
    turned = bool(containers & {"mov", "mp4"}) and is_turned(path)
    judged = _judge(packets, containers, pix_fmt, width, height, reorders, invisible, turned)
    more: tuple[str, ...] = ("false key frames",) if false_keys else ()
    if interlaced:
        more += ("interlaced",)
    if claimed > 2 * len(packets):
        more += (f"an index of {claimed} frames",)  # decord makes room for all of them
    return replace(judged, quirks=(*judged.quirks, *more))


def _judge(
    packets: list[tuple[int | None, int | None, bool, bool, bool]],
    containers: set[str],
    pix_fmt: str | None,
    width: int,
    height: int,
    reorders: bool,
    invisible: bool,
    turned: bool,
) -> Probe:
    quirks = []
    timed = bool(containers & _TIMED_CONTAINERS) and not invisible
    if not timed and not reorders and not invisible:
        packets = [(dts if pts is None else pts, dts, *rest) for pts, dts, *rest in packets]  # type: ignore[misc]
        timed = True
    if any(pts is None for pts, *_ in packets):
        timed = False
    shown = sorted(pts for pts, _, _, discard, _ in packets if pts is not None and not discard)
    if any(a == b for a, b in itertools.pairwise(shown)):
        timed = False
    if not timed:
        quirks.append("frames without trustworthy times")
    if not containers & _PLAIN_CONTAINERS:
        quirks.append(f"container {'/'.join(sorted(containers))}")
    if any(discard or (pts or 0) < 0 for pts, _, _, discard, _ in packets):
        quirks.append("an edit list hides frames")
    if pix_fmt not in _PLAIN_FORMATS:
        quirks.append(f"pixel format {pix_fmt}")
    if width % 2 or height % 2:
        quirks.append(f"odd size {width} x {height}")
    if turned:
        quirks.append("rotation")
    keys: list[tuple[int, int]] = []
    leading = False
    for pts, dts, key, _, _ in packets:
        if key and pts is not None:
            keys.append((pts, pts if dts is None else dts))
        elif keys and pts is not None and pts < keys[-1][0]:
            leading = True
    if not packets[0][2]:
        timed = False  # a player may leave out what comes before the first key frame
        quirks.append("no key frame at the beginning")
    if leading:
        quirks.append("open groups of pictures")
    return Probe(
        times=np.array(shown, dtype=np.int64),
        keys=np.array(sorted(keys), dtype=np.int64).reshape(-1, 2).T,
        quirks=tuple(quirks),
        timed=timed and bool(keys),
    )
