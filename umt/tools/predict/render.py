"""A video with the answers drawn in: H.264 in MP4, frame by frame with the times of the original, and its sound."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from umt.data.lists.video_list import VideoList
from umt.data.storage.source import PLAIN_FILES
from umt.data.video.probe import unreadable
from umt.data.video.pyav_readers import DAMAGED
from umt.data.video.reader import open_folder
from umt.errors import OutputError
from umt.tasks.base.predictor import Part, Predictor
from umt.writing import whole

SHORT_SIDE = 240  # pixels: smaller videos are enlarged, so that words can be read
_KEPT_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")  # what MP4 holds as it is
_UNIT = Fraction(1, 90000)


def render(source: str, target: str, parts: Sequence[Part], predictor: Predictor, fps: float | None = None) -> None:
    """Writes `target`, whole or not at all. Raises VideoError naming `source`, and OutputError.

    At each moment the part is drawn whose middle is nearest. `fps`: of a folder of frames (25).
    """
    panels = _Panels(parts, predictor)
    try:
        with whole(Path(target)) as place:
            if os.path.isdir(source):
                rate = Fraction(fps or 25).limit_denominator(1001)
                _write(_folder(source, fps or 25.0), str(place), panels, rate=rate)
            else:
                with PLAIN_FILES.path(VideoList("", [source], [-1]), 0) as path:
                    _write_file(source, path, str(place), panels)
    except (av.FFmpegError, EOFError) as error:
        code = getattr(error, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise OutputError(f"--render ({target}) cannot be written: {os.strerror(code)}.") from None
        raise unreadable(source, DAMAGED) from error
    except OSError as error:
        raise OutputError(f"--render ({target}) cannot be written: {error.strerror or error}.") from None


def _write_file(source: str, path: str, temporary: str, panels: _Panels) -> None:
    with av.open(path, metadata_errors="replace") as old:
        stream = old.streams.video[0]
        rate = stream.average_rate or Fraction(25)
        sounds = [s for s in old.streams.audio if s.codec_context]
        sound = next((s for s in sounds if s.codec_context.name in _KEPT_SOUND), None)
        if sounds and sound is None:
            kind = sounds[0].codec_context.name
            print(f"umt predict: {source}: MP4 does not hold its sound ({kind}), which is left out.", file=sys.stderr)
        _write(_decoded(source, old, stream, sound, rate), temporary, panels, rate=rate, sound=sound)


def _decoded(source: str, old: Any, stream: Any, sound: Any, rate: Fraction) -> Iterator[Any]:
    """Packets of sound as they are, and (seconds, upright image) of frames."""
    last = -1.0
    for packet in old.demux([s for s in (stream, sound) if s is not None]):
        if packet.stream is sound:
            if packet.dts is not None:
                yield packet
            continue
        for frame in packet.decode():
            time = frame.time if frame.time is not None else last + float(1 / rate)
            last = max(time, last + 1e-4)
            image = frame.to_ndarray(format="rgb24")
            yield last, np.rot90(image, round(frame.rotation / 90) % 4)
    if last < 0:
        raise unreadable(source, "no frame of it can be decoded")


def _folder(source: str, fps: float) -> Iterator[Any]:
    with open_folder(source, None, None) as reader:
        for number in range(len(reader)):
            yield number / fps, reader.frames([number])[0]


def _write(items: Iterator[Any], path: str, panels: _Panels, *, rate: Fraction, sound: Any = None) -> None:
    options = {"movflags": "+faststart"}
    with av.open(path, "w", format="mp4", options=options) as new:
        out: Any = new.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        copy = new.add_stream_from_template(sound) if sound is not None else None
        first: float | None = None  # windows are timed from the first frame, which need not be shown at 0
        waiting: list[Any] = []  # sound that comes before the first picture, whose size the header wants
        for item in items:
            if isinstance(item, av.Packet):
                item.stream = copy
                if first is None:
                    waiting.append(item)
                else:
                    new.mux(item)
                continue
            time, image = item
            if first is None:
                panels.fit(*image.shape[:2])
                out.width, out.height, out.pix_fmt, first = panels.width, panels.height, "yuv420p", time
                out.codec_context.time_base = _UNIT
            frame = av.VideoFrame.from_ndarray(panels.painted(time - first, image), format="rgb24")
            frame.pts, frame.time_base = round(time / _UNIT), _UNIT
            new.mux(out.encode(frame))
            for packet in waiting:
                new.mux(packet)
            waiting.clear()
        new.mux(out.encode(None))


class _Panels:
    """Draws the parts of a video onto its frames, all of one size."""

    def __init__(self, parts: Sequence[Part], predictor: Predictor) -> None:
        self._parts, self._predictor = parts, predictor
        self._middles = np.array([((part.start or 0) + (part.end or 0)) / 2 for part in parts])
        self.width = self.height = 0
        self._number, self._colour, self._through = -1, np.empty(0, np.float32), np.empty(0, np.float32)

    def fit(self, height: int, width: int) -> None:
        """Takes the size of the frames; `width` and `height` are those of the drawn ones, both even."""
        scale = max(SHORT_SIDE / min(height, width), 1.0)
        self.width, self.height = (max(2 * round(side * scale / 2), 2) for side in (width, height))

    def painted(self, time: float, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) at `time` seconds -> (height, width, 3)."""
        import cv2

        if image.shape[:2] != (self.height, self.width):
            image = cv2.resize(np.ascontiguousarray(image), (self.width, self.height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        if not len(self._parts):
            return np.ascontiguousarray(image)
        number = int(np.abs(self._middles - time).argmin())
        if number != self._number:
            panel = self._predictor.drawn(self._parts[number].answer, self.width, self.height)
            pixels = np.asarray(panel).astype(np.float32)
            opacity = pixels[..., 3:] / np.float32(255)
            self._number, self._colour, self._through = number, pixels[..., :3] * opacity, 1 - opacity
        painted = np.array(image)
        covered = painted[: len(self._colour)]
        covered[:] = (covered * self._through + self._colour + 0.5).astype(np.uint8)
        return painted
