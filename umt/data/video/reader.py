"""Opens a video with the decoder that is right for this file on this machine.

`open_video(path)` is the entry. A file without quirks (`umt.data.video.probe`) is read by the decoder that was asked
for; the others always by PyAV, since right frames come before speed.
"""

from __future__ import annotations

import os
from functools import cache

from umt.data.video.decoders import DECODERS, FrameFolder, has_device
from umt.data.video.mp4 import plain_for_all, plain_index
from umt.data.video.probe import check_file, probe
from umt.data.video.pyav_readers import Direct, PyAV
from umt.data.video.video_reader import VideoReader
from umt.errors import ConfigError, VideoError

# In order of preference for --decoder auto, by what few frames and whole videos cost (docs/performance.md, Decoding).
ORDER = ("pyav", "torchcodec", "decord")

_ON_GPU = "torchcodec-cuda"  # only if asked for: its frames differ a little, and it takes GPU memory from the training

_NEEDS = {
    "decord": "pip install decord (no wheel for ARM)",
    "torchcodec": "pip install torchcodec and FFmpeg's libraries, e.g. apt install ffmpeg",
    "pyav": "pip install av",
    _ON_GPU: "what torchcodec needs, a CUDA device, and an NVIDIA driver with its video library (libnvcuvid)",
}


@cache
def available(decoder: str) -> bool:
    """Whether `decoder` can be imported here; torchcodec also needs FFmpeg's libraries, torchcodec-cuda a device."""
    try:
        if decoder == "decord":
            import decord  # noqa: F401
        elif decoder in ("torchcodec", _ON_GPU):
            from torchcodec.decoders import VideoDecoder  # noqa: F401

            return decoder != _ON_GPU or has_device()
        else:
            import av  # noqa: F401
    except (ImportError, RuntimeError, OSError):  # torchcodec: RuntimeError without FFmpeg; a broken wheel: OSError
        return False
    return True


def choose(decoder: str = "auto") -> str:
    """The decoder for plain files: `decoder`, or for "auto" the first of `ORDER` that works here.

    Raises ConfigError for one that is unknown or does not work here, and without PyAV, which looks at every file.
    """
    if decoder not in ("auto", *DECODERS):
        raise ConfigError(f"--decoder ({decoder}) must be one of auto, {', '.join(DECODERS)}.")
    for name in dict.fromkeys(("pyav", decoder if decoder != "auto" else "pyav")):
        if not available(name):
            raise ConfigError(f"--decoder ({decoder}): {name} does not work on this machine. It needs: {_NEEDS[name]}.")
    return decoder if decoder != "auto" else next(name for name in ORDER if available(name))


@cache
def _chosen(decoder: str) -> str:
    return choose(decoder)


def open_video(path: str | os.PathLike[str], decoder: str = "auto") -> VideoReader:
    """Opens a video file. Raises VideoError naming it and the cause if that is impossible.

    `decoder` ("auto", "pyav", "torchcodec", "decord", "torchcodec-cuda") reads plain files; PyAV reads the others.
    The last one cannot work in a forked process, and raises ConfigError there.
    """
    path = os.fspath(path)
    name = _chosen(decoder)
    check_file(path)
    known, index = None, plain_index(path)
    if index is not None and name == "pyav":
        return Direct(path, index)
    length = len(index) if index is not None and plain_for_all(path, index) else None
    if length is None:
        known = probe(path)
        length = None if known.quirks else len(known.times)
    if length is not None and name != "pyav":
        try:
            return DECODERS[name](path, length)
        except VideoError:  # built without this codec, or another number of frames: PyAV can
            pass
    return PyAV(path, known)


def open_folder(
    path: str | os.PathLike[str], length: int | None = None, template: str | None = "img_{:05}.jpg"
) -> VideoReader:
    """Opens a folder of `length` frames named by `template` from 1 on (None: all its images by name)."""
    return FrameFolder(os.fspath(path), length, template)
