"""Video decoders behind one protocol, and folders of frames. `umt.data.video.reader` picks between them.

All give uint8 RGB frames by 0-based number, with one thread: the workers of the loader are the parallelism. decord and
torchcodec are right on plain files only (`umt.data.video.probe`), PyAV (`umt.data.video.pyav_readers`) on all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.data.video.probe import check_file, unreadable
from umt.data.video.pyav_readers import DAMAGED, open_pyav
from umt.data.video.video_reader import IMAGE_ENDINGS, Frames, Reader, VideoReader
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

    def _decode(self, indices: NDArray[np.int64]) -> Frames:
        try:
            frames: Frames = self._reader.get_batch(indices.tolist()).asnumpy()
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

    def _decode(self, indices: NDArray[np.int64]) -> Frames:
        try:
            frames: Frames = self._decoder.get_frames_at(indices=indices.tolist()).data.cpu().numpy()
        except (RuntimeError, IndexError) as error:
            raise unreadable(self.path, DAMAGED) from error
        return frames

    def close(self) -> None:
        self._decoder = None


class TorchCodecCuda(TorchCodec):
    """torchcodec on the video decoder of this rank's NVIDIA GPU. Frames come back to the CPU.

    The GPU has its own conversion of colours, so that frames differ a little from those of all other readers.
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
                f"--decoder torchcodec-cuda does not work in this process ({cause[:160]}). It needs workers that are "
                "spawned, since CUDA does not survive a fork, and a torchcodec built for CUDA. Or use --decoder auto."
            ) from None
        if "NVcuvid" in str(getattr(self._decoder, "cpu_fallback", "")):
            raise ConfigError(
                "--decoder torchcodec-cuda: the driver's video library (libnvcuvid) is not there, and torchcodec would "
                "decode on the CPU. In a container add NVIDIA_DRIVER_CAPABILITIES=compute,utility,video, or use "
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
    """A folder of images, one per frame: `length` named by `template` from 1 on; without either all images, by name."""

    def __init__(self, path: str, length: int | None = None, template: str | None = "img_{:05}.jpg") -> None:
        self.path, self._template = path, template
        self._names: list[str] = []
        self._check_folder()
        if template is None or length is None:
            self._template = None
            self._names = sorted(name for name in self._listed() if name.lower().endswith(IMAGE_ENDINGS))
            length = len(self._names)
        if length < 1:
            raise VideoError(f"{path}: cannot be read as a folder of frames (no image in it).")
        self.length = length

    def _check_folder(self) -> None:
        if not os.path.isdir(self.path):
            is_file = os.path.exists(self.path)
            cause = "a file, not a folder of frames" if is_file else "no such folder; is --prefix right?"
            raise VideoError(f"{self.path}: cannot be read as a folder of frames ({cause}).")

    def _listed(self) -> list[str]:
        return os.listdir(self.path)

    def _name(self, index: int) -> str:
        return self._names[index] if self._template is None else self._template.format(index + 1)

    def _decode(self, indices: NDArray[np.int64]) -> Frames:
        images = self._images(indices.tolist())
        if len({image.shape for image in images}) > 1:
            raise VideoError(f"{self.path}: its frames differ in size, so they are not a video.")
        return np.stack(images)

    def _images(self, indices: Sequence[int]) -> list[Frames]:
        return [self._image(index) for index in indices]

    def _image(self, index: int) -> Frames:
        import cv2

        file = os.path.join(self.path, self._name(index))
        check_file(file)
        return self._rgb(file, cv2.imread(file, cv2.IMREAD_COLOR))

    @staticmethod
    def _rgb(name: str, image: Any) -> Frames:
        import cv2

        if image is None:
            raise VideoError(f"{name}: cannot be read as an image.")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


# Opens a plain file: (path, number of its frames or None) -> reader.
DECODERS: dict[str, Callable[..., VideoReader]] = {
    "pyav": open_pyav,
    "torchcodec": TorchCodec,
    "decord": Decord,
    "torchcodec-cuda": TorchCodecCuda,
}
