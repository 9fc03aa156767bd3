"""Three video decoders behind one protocol, and folders of frames. `umt.data.reader` picks between them.

All give uint8 RGB frames by 0-based number, with one thread: the workers of the loader are the parallelism. decord and
torchcodec are right on plain files only (`umt.data.probe`), PyAV on all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from umt.data.probe import Probe, check_file, probe, unreadable
from umt.errors import VideoError

Frames = NDArray[np.uint8]

_DAMAGED = "damaged: decoding it fails"


class VideoReader(Protocol):
    """An opened video."""

    path: str

    def __len__(self) -> int:
        """Frames that a player would show, L."""

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        """Frames `indices` (n of 0..L-1, any order, repeats allowed) as (n, H, W, 3) uint8 RGB, from one pass."""

    def close(self) -> None:
        """Frees the decoder."""

    def __enter__(self) -> VideoReader: ...

    def __exit__(self, *error: object) -> None: ...


class _Reader:
    """What the readers share: checks of indices, decoding every wanted frame once and in order, closing."""

    path: str
    length: int

    def __len__(self) -> int:
        return self.length

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        wanted, places = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        if not len(wanted) or wanted[0] < 0 or wanted[-1] >= self.length:
            raise IndexError(f"{self.path}: frames {indices} of {self.length}")
        decoded = self._decode(wanted)
        return decoded if len(places) == len(wanted) and (np.diff(places) > 0).all() else decoded[places]

    def _decode(self, wanted: NDArray[np.int64]) -> Frames:
        raise NotImplementedError

    def close(self) -> None:
        """Frees the decoder."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Decord(_Reader):
    """decord: for plain files, which have `length` frames if that is known."""

    def __init__(self, path: str, length: int | None = None) -> None:
        import decord

        self.path, self._errors = path, (RuntimeError, decord.DECORDError)
        try:
            self._reader: Any = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
            self.length = len(self._reader)
        except self._errors as error:
            raise unreadable(path, error) from None
        _check_length(self, length)

    def _decode(self, wanted: NDArray[np.int64]) -> Frames:
        try:
            frames: Frames = self._reader.get_batch(wanted.tolist()).asnumpy()
        except self._errors as error:
            raise unreadable(self.path, _DAMAGED) from error
        return frames

    def close(self) -> None:
        self._reader = None


class TorchCodec(_Reader):
    """torchcodec: for plain files, where the system has FFmpeg's libraries."""

    def __init__(self, path: str, length: int | None = None) -> None:
        from torchcodec.decoders import VideoDecoder

        self.path = path
        try:
            self._decoder: Any = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1)
            self.length = len(self._decoder)
        except (RuntimeError, ValueError) as error:
            raise unreadable(path, error) from None
        _check_length(self, length)

    def _decode(self, wanted: NDArray[np.int64]) -> Frames:
        try:
            frames: Frames = self._decoder.get_frames_at(indices=wanted.tolist()).data.numpy()
        except (RuntimeError, IndexError) as error:
            raise unreadable(self.path, _DAMAGED) from error
        return frames

    def close(self) -> None:
        self._decoder = None


def _check_length(reader: _Reader, length: int | None) -> None:
    if length not in (None, reader.length):
        raise unreadable(reader.path, f"{reader.length} frames where the file's index says {length}")


class PyAV(_Reader):
    """PyAV: gives what a full decode from the start gives, on any file that FFmpeg plays, also by random access.

    A wanted frame is found by its time: from the last key frame that is shown no later, because what is shown after a
    key frame needs nothing before it, open groups of pictures included. Where times cannot be trusted frames are
    counted from the start. Rotation is applied.
    """

    def __init__(self, path: str, known: Probe | None = None) -> None:
        import av

        self.path, self._errors = path, (av.FFmpegError, EOFError)
        self._probe = known or probe(path)
        self._container: Any = None
        try:
            self._container = av.open(path)
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "NONE"
            self._stream.codec_context.thread_count = 1
            # One reformatter for all: a fresh one per frame costs more than the decode.
            self._reformatter: Any = av.video.reformatter.VideoReformatter()
            self.length = len(self._probe.times) if self._probe.timed else sum(1 for _ in self._from_start())
        except self._errors as error:
            self.close()
            raise unreadable(path, _DAMAGED) from error
        if not self.length:
            self.close()
            raise unreadable(path, "no frame of it can be decoded")

    def _decode(self, wanted: NDArray[np.int64]) -> Frames:
        try:
            images = list(self._timed(wanted) if self._probe.timed else self._counted(wanted))
        except self._errors as error:
            raise unreadable(self.path, _DAMAGED) from error
        if len({image.shape for image in images}) > 1:
            raise unreadable(self.path, "its frames change size")
        return np.stack(images)

    def _rgb(self, frame: Any) -> Frames:
        image = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        turns = round(frame.rotation / 90) % 4
        turned: Frames = np.rot90(image, turns) if turns else image
        return turned

    def _from_start(self) -> Iterator[Any]:
        self._container.seek(0, backward=True, any_frame=False)
        first = self._probe.keys[1, 0] if self._probe.keys.size else None
        if first is not None:
            self._container.seek(int(first), backward=True, stream=self._stream)
        for packet in self._container.demux(self._stream):
            yield from packet.decode()

    def _counted(self, wanted: NDArray[np.int64]) -> Iterator[Frames]:
        targets = iter(wanted.tolist())
        target = next(targets)
        for number, frame in enumerate(self._from_start()):
            if number == target:
                yield self._rgb(frame)
                try:
                    target = next(targets)
                except StopIteration:
                    return
        raise unreadable(self.path, f"it ends before frame {target}")

    def _timed(self, wanted: NDArray[np.int64]) -> Iterator[Frames]:
        times = self._probe.times[wanted]
        shown, decoded = self._probe.keys
        groups = np.maximum(np.searchsorted(shown, times, side="right") - 1, 0)  # key frame that each wanted one needs
        frames: Iterator[Any] = iter(())
        group, passed = -2, None
        for time, needed in zip(times.tolist(), groups.tolist(), strict=True):
            if needed > group + 1:  # key frames lie between: jump instead of decoding on
                self._container.seek(int(decoded[needed]), backward=True, stream=self._stream)
                frames = (frame for packet in self._packets(int(shown[needed])) for frame in packet.decode())
            group = needed
            for frame in frames:
                passed = frame.pts
                if passed is not None and passed >= time:
                    break
            if passed != time:
                raise unreadable(self.path, f"no frame is shown at its own time {time}; nearest is {passed}")
            yield self._rgb(frame)

    def _packets(self, latest: int) -> Iterator[Any]:
        # The first packet after a seek must not lie behind the key frame that was asked for.
        for number, packet in enumerate(self._container.demux(self._stream)):
            if number == 0 and packet.pts is not None and packet.pts > latest:
                raise unreadable(self.path, f"its index is wrong: a seek to {latest} arrives at {packet.pts}")
            yield packet

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


class FrameFolder(_Reader):
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


DECODERS: dict[str, Callable[..., VideoReader]] = {
    "decord": Decord,
    "torchcodec": TorchCodec,
    "pyav": PyAV,
}
