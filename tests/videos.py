"""Real video files for tests, rendered with PyAV (its wheel brings libx264), so that no `ffmpeg` command is needed.

Every frame differs from every other: a texture that drifts, and a block whose position and brightness follow the frame
number. A wrong frame therefore never compares equal to the right one.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def picture(number: int, width: int, height: int, label: int = 0) -> np.ndarray:
    """Frame `number` of class `label`: (height, width, 3) uint8 RGB."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    shift = 1.7 * number + 5 * label
    red = 127 + 80 * np.sin((x + shift) / 7.0)
    green = 127 + 80 * np.sin((y - shift) / (5.0 + label))
    blue = 127 + 80 * np.sin((x + y + 2 * shift) / 11.0)
    image = np.stack([red, green, blue], -1)
    side = max(min(width, height) // 4, 2)
    left, top = (3 * number) % max(width - side, 1), (5 * number) % max(height - side, 1)
    image[top : top + side, left : left + side] = (40 + 37 * number) % 256
    return image.clip(0, 255).astype(np.uint8)


def render(
    path: Path,
    *,
    frames: int = 30,
    width: int = 64,
    height: int = 48,
    fps: int = 30,
    gop: int = 12,
    b_frames: int = 2,
    open_gop: bool = False,
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    label: int = 0,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    audio: bool = False,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Writes a video and returns `path`.

    `pts` gives frame times in units of 1/fps (variable frame rate); `options` are the encoder's, `muxer` the
    container's.
    """
    settings: dict[str, str] = {}
    if codec == "libx264":
        x264 = {
            "keyint": gop,
            "min-keyint": gop,
            "scenecut": 0,
            "bframes": b_frames,
            "b-adapt": 0,
            "open-gop": int(open_gop),
        }
        settings = {"preset": "ultrafast", "crf": "18", "threads": "1"}
        settings["x264-params"] = ":".join(f"{name}={value}" for name, value in x264.items())
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=fps, options={**settings, **(options or {})})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = Fraction(1, fps)
        stream.codec_context.gop_size = gop
        sound = container.add_stream("aac", rate=8000) if audio else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height, label), format="rgb24")
            frame.pts = number if pts is None else pts[number]
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(
                np.zeros((1, 8000 * frames // fps), np.float32), format="fltp", layout="mono"
            )
            samples.sample_rate = 8000
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


def cut(source: Path, path: Path, start: int, fps: int = 30) -> Path:
    """Copies the stream from frame `start` on without re-encoding.

    The copy holds the packets from the key frame before it, and an edit list that tells a player to begin at `start`.
    """
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = [p for p in old.demux(stream) if p.size]
        at = round(start / fps / stream.time_base)
        keys = [i for i, p in enumerate(packets) if p.is_keyframe and p.pts <= at]
        for packet in packets[keys[-1] :]:
            packet.pts, packet.dts, packet.stream = packet.pts - at, packet.dts - at, copy
            new.mux(packet)
    return path


def rotate(path: Path, degrees: int) -> Path:
    """Writes a rotation of 90, 180 or 270 degrees into the track header of an MP4, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    a, b, c, d = (v << 16 for v in matrix)
    data[at + 40 : at + 76] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    return path


def played(path: Path) -> np.ndarray:
    """What a player shows, from a full sequential decode: (L, H, W, 3) uint8 RGB, rotation applied."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return np.stack([np.rot90(f.to_ndarray(format="rgb24"), round(f.rotation / 90)) for f in frames])
