"""A video with the classes drawn in: H.264 in MP4, frame by frame with the times of the original, and its sound."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from umt.data.lists.video_list import VideoList
from umt.data.storage.source import PLAIN_FILES
from umt.data.video.probe import unreadable
from umt.data.video.pyav_readers import DAMAGED
from umt.data.video.reader import open_folder
from umt.errors import OutputError
from umt.writing import whole

if TYPE_CHECKING:
    from umt.tools.predict.tell import Shown

LEAST = 240  # pixels of the short side: smaller videos are enlarged, so that words can be read
_KEPT_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac")  # what MP4 holds as it is
_UNIT = Fraction(1, 90000)


def render(source: str, target: str, shown: Sequence[Shown], fps: float | None = None) -> None:
    """Writes `target`, whole or not at all. Raises VideoError naming `source`, and OutputError.

    At each moment the window is drawn whose middle is nearest. `fps`: of a folder of frames (25).
    """
    try:
        with whole(Path(target)) as place:
            if os.path.isdir(source):
                rate = Fraction(fps or 25).limit_denominator(1001)
                _write(_folder(source, fps or 25.0), str(place), shown, rate=rate)
            else:
                with PLAIN_FILES.path(VideoList("", [source], [-1]), 0) as path:
                    _write_file(source, path, str(place), shown)
    except (av.FFmpegError, EOFError) as error:
        code = getattr(error, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise OutputError(f"--render ({target}) cannot be written: {os.strerror(code)}.") from None
        raise unreadable(source, DAMAGED) from error
    except OSError as error:
        raise OutputError(f"--render ({target}) cannot be written: {error.strerror or error}.") from None


def _write_file(source: str, path: str, temporary: str, shown: Sequence[Shown]) -> None:
    with av.open(path, metadata_errors="replace") as old:
        stream = old.streams.video[0]
        rate = stream.average_rate or Fraction(25)
        sounds = [s for s in old.streams.audio if s.codec_context]
        sound = next((s for s in sounds if s.codec_context.name in _KEPT_SOUND), None)
        if sounds and sound is None:
            kind = sounds[0].codec_context.name
            print(f"umt predict: {source}: MP4 does not hold its sound ({kind}), which is left out.", file=sys.stderr)
        _write(_decoded(source, old, stream, sound, rate), temporary, shown, rate=rate, sound=sound)


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


def _write(items: Iterator[Any], path: str, shown: Sequence[Shown], *, rate: Fraction, sound: Any = None) -> None:
    options = {"movflags": "+faststart"}
    with av.open(path, "w", format="mp4", options=options) as new:
        out: Any = new.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        copy = new.add_stream_from_template(sound) if sound is not None else None
        painter: _Painter | None = None
        first = 0.0  # windows are timed from the first frame, which need not be shown at 0
        waiting: list[Any] = []  # sound that comes before the first picture, whose size the header wants
        for item in items:
            if isinstance(item, av.Packet):
                item.stream = copy
                if painter is None:
                    waiting.append(item)
                else:
                    new.mux(item)
                continue
            time, image = item
            if painter is None:
                painter, first = _Painter(shown, image.shape[0], image.shape[1]), time
                out.width, out.height, out.pix_fmt = painter.width, painter.height, "yuv420p"
                out.codec_context.time_base = _UNIT
            frame = av.VideoFrame.from_ndarray(painter.painted(time - first, image), format="rgb24")
            frame.pts, frame.time_base = round(time / _UNIT), _UNIT
            new.mux(out.encode(frame))
            for packet in waiting:
                new.mux(packet)
            waiting.clear()
        new.mux(out.encode(None))


class _Painter:
    """Frames of one size, with a panel of the classes at the moment."""

    def __init__(self, shown: Sequence[Shown], height: int, width: int) -> None:
        scale = max(LEAST / min(height, width), 1.0)
        self.width, self.height = (max(2 * round(side * scale / 2), 2) for side in (width, height))
        self._shown = shown
        self._middles = np.array([((one.start or 0) + (one.end or 0)) / 2 for one in shown])
        self._number, self._colour, self._through = -1, np.empty(0, np.float32), np.empty(0, np.float32)

    def painted(self, time: float, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) -> (height, width, 3), both even."""
        import cv2

        if image.shape[:2] != (self.height, self.width):
            image = cv2.resize(np.ascontiguousarray(image), (self.width, self.height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        if not len(self._shown):
            return np.ascontiguousarray(image)
        number = int(np.abs(self._middles - time).argmin())
        if number != self._number:
            panel = np.asarray(_panel(self._shown[number], self.width, self.height)).astype(np.float32)
            seen = panel[..., 3:] / np.float32(255)
            self._number, self._colour, self._through = number, panel[..., :3] * seen, 1 - seen
        colour, through = self._colour, self._through
        painted = np.array(image)
        painted[: len(colour)] = (painted[: len(colour)] * through + colour + 0.5).astype(np.uint8)
        return painted


def _panel(shown: Shown, width: int, height: int) -> Image.Image:
    """The classes on a dark ground, each with a bar of its probability: RGBA, as wide as the video."""
    size = max(min(min(height, width) // 24, 40), 12)
    font = ImageFont.load_default(size)
    line, margin = round(size * 1.5), size // 2
    classes = shown.classes[: max((height // 2 - 2 * margin) // line, 1)]
    image = Image.new("RGBA", (width, line * max(len(classes), 1) + 2 * margin), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    names = [(_fitting(name, font, width - 7 * size), p) for _, name, p in classes] or [("-", 0.0)]
    longest = max(font.getlength(name) for name, _ in names)
    right = min(round(longest + 6 * size), width)
    draw.rectangle((0, 0, right, image.height), fill=(0, 0, 0, 175))
    for number, (name, p) in enumerate(names):
        top = margin + number * line
        filled = round((right - 2 * margin) * p)
        if filled:
            draw.rectangle((margin, top, margin + filled, top + line - 3), fill=(42, 120, 214, 200))
        middle = top + (line - 3) // 2
        draw.text((margin + size // 3, middle), name, font=font, fill=(255, 255, 255, 255), anchor="lm")
        if name != "-":
            said = f"{100 * p:.0f} %"
            draw.text((right - margin - size // 3, middle), said, font=font, fill=(255, 255, 255, 255), anchor="rm")
    return image


def _fitting(name: str, font: Any, width: float) -> str:
    if font.getlength(name) <= width:
        return name
    while len(name) > 1 and font.getlength(name + "...") > width:
        name = name[:-1]
    return name + "..."
