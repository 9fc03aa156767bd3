"""Video decoders behind one protocol, and folders of frames. `umt.data.video.reader` picks between them.

All give uint8 RGB frames by 0-based number, with one thread: the workers of the loader are the parallelism. decord and
torchcodec are right on plain files only (`umt.data.video.probe`), PyAV (`umt.data.video.pyav_readers`) on all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.data.video.probe import check_file, unreadable
from umt.data.video.pyav_readers import DAMAGED, open_pyav
from umt.data.video.video_reader import Frames, Reader, VideoReader
from umt.errors import ConfigError, VideoError


class Decord(Reader):
    """decord: for plain files, which have `length` frames if that is known."""

    def __init__(self, path: str, length: int | None = None) -> None:
        import decord

        self.path, self._errors = path, (RuntimeError, decord.DECORDError)
        try:
            self._reader: Any = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
            self.length = len(self._reader)
        except self._errors as error:
            raise unreadable(self.path, error) from None
        _check_length(self, length)

    def _decode(self, wanted: NDArray[np.int64]) -> Frames:
        try:
            frames: Frames = self._reader.get_batch(wanted.tolist()).asnumpy()
        except self._errors as error:
            raise unreadable(self.path, DAMAGED) from error
        return frames

    def close(self) -> None:
        self._reader = None


class TorchCodec(Reader):
    """torchcodec: for plain files, where the system has FFmpeg's libraries."""

    device = "cpu"

    def __init__(self, path: str, length: int | None = None) -> None:
        from torchcodec.decoders import VideoDecoder

        self.path = path
        try:
            self._decoder: Any = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, device=self.device)
            self.length = len(self._decoder)
        except (RuntimeError, ValueError) as error:
            raise unreadable(self.path, error) from None
        _check_length(self, length)

    def _decode(self, wanted: NDArray[np.int64]) -> Frames:
        try:
            frames: Frames = self._decoder.get_frames_at(indices=wanted.tolist()).data.cpu().numpy()
        except (RuntimeError, IndexError) as error:
            raise unreadable(self.path, DAMAGED) from error
        return frames

    def close(self) -> None:
        self._decoder = None


class TorchCodecCuda(TorchCodec):
    """torchcodec on the video decoder of an NVIDIA GPU, the one of this rank. Frames come back to the CPU.

    The GPU converts colours by itself, so that frames differ a little from all other readers'.
    """

    def __init__(self, path: str, length: int | None = None) -> None:
        import torch

        self.device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % max(torch.cuda.device_count(), 1)}"
        try:
            super().__init__(path, length)
        except VideoError as error:
            TorchCodec(path, length).close()  # if the CPU cannot either, it is the file
            cause = str(error).partition("(")[2].partition(". ")[0]
            raise ConfigError(
                f"--decoder torchcodec-cuda does not work in this process ({cause[:160]}). It wants workers that are "
                "spawned, since CUDA does not survive a fork, and a torchcodec built for CUDA. Or take --decoder auto."
            ) from None
        if "NVcuvid" in str(getattr(self._decoder, "cpu_fallback", "")):
            raise ConfigError(
                "--decoder torchcodec-cuda: the driver's video library (libnvcuvid) is not there, and torchcodec would "
                "decode on the CPU. In a container add NVIDIA_DRIVER_CAPABILITIES=compute,utility,video, or take "
                "--decoder auto."
            )


def has_device() -> bool:
    """Whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def _check_length(reader: Reader, length: int | None) -> None:
    if length not in (None, reader.length):
        raise unreadable(reader.path, f"{reader.length} frames where the file's index says {length}")


class FrameFolder(Reader):
    """A folder of images, one a frame: `template` numbered from 1, or all images in the order of their names."""

    def __init__(self, path: str, length: int | None = None, template: str | None = "img_{:05}.jpg") -> None:
        self.path, self._template = path, template
        if not os.path.isdir(path):
            cause = "a file, not a folder of frames" if os.path.exists(path) else "no such folder; is --prefix right?"
            raise VideoError(f"{path}: cannot be read as a folder of frames ({cause}).")
        self._names: list[str] = []
        if template is None or length is None:
            self._names = sorted(n for n in os.listdir(path) if n.lower().endswith((".jpg", ".jpeg", ".png")))
            length = len(self._names)
        if length < 1:
            raise VideoError(f"{path}: cannot be read as a folder of frames (no image in it).")
        self.length = length

    def _file(self, index: int) -> str:
        return os.path.join(
            self.path, self._names[index] if self._template is None else self._template.format(index + 1)
        )

    def _decode(self, wanted: NDArray[np.int64]) -> Frames:
        import cv2

        frames = []
        for index in wanted.tolist():
            name = self._file(index)
            check_file(name)
            image = cv2.imread(name, cv2.IMREAD_COLOR)
            if image is None:
                raise VideoError(f"{name}: cannot be read as an image.")
            frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        if len({frame.shape for frame in frames}) > 1:
            raise VideoError(f"{self.path}: its frames differ in size, so they are no video.")
        return np.stack(frames)


# Opens a plain file: (path, number of its frames or None) -> reader.
DECODERS: dict[str, Callable[..., VideoReader]] = {
    "pyav": open_pyav,
    "torchcodec": TorchCodec,
    "decord": Decord,
    "torchcodec-cuda": TorchCodecCuda,
}
