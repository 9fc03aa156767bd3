"""PyAV's two readers: `Direct` for plain MP4s, the fastest of all; `PyAV` for everything that FFmpeg plays.

What a few frames cost is the frames that must be decoded on the way to them. Both go to the key frame before each
frame that is asked for and, in H.264, leave out other frames that none is predicted from ("nal_ref_idc" 0, ISO/IEC
14496-10 section 7.4.1: most B-frames). The result is the same, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from io import FileIO
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from umt.data.loading.memory import tidy_heap
from umt.data.video import h264
from umt.data.video.mp4 import MOST_PIXELS, Index, plain_index, read_at
from umt.data.video.probe import Probe, probe, unreadable
from umt.data.video.video_reader import Frames, Reader, VideoReader

_LIMITS = {"max_pixels": str(MOST_PIXELS)}  # where the stream itself says another size than its container
DAMAGED = "damaged: decoding it fails"


def open_pyav(path: str, length: int | None = None) -> VideoReader:
    """The faster of the two that is right for this file. `length` is not needed."""
    index = plain_index(path)
    return PyAV(path) if index is None else Direct(path, index)


@cache
def _one_thread() -> dict[str, int]:
    """Newer releases of PyAV convert colours with as many threads as there are cores, unless they get this."""
    frame, reformatter = av.VideoFrame(16, 16, "yuv420p"), av.video.reformatter.VideoReformatter()
    try:
        reformatter.reformat(frame, format="rgb24", threads=1)
    except TypeError:
        return {}
    return {"threads": 1}


class Direct(Reader):
    """A plain MP4, whose index says where each packet lies: reads the bytes that are needed, and decodes them.

    No demuxer: opening takes a tenth of a millisecond, and only the index and the needed groups of pictures are read.
    It holds no open file. A file that turns out to differ from its index is left to `PyAV`.
    """

    def __init__(self, path: str, index: Index) -> None:
        self.path, self._index, self.length = path, index, len(index)
        self._other: PyAV | None = None
        self._decoder: Any = None
        # One reformatter for all: a fresh one per frame costs more than the decode.
        self._reformatter: Any = av.video.reformatter.VideoReformatter()

    def _decode(self, indices: NDArray[np.int64]) -> Frames:
        if self._other is None:
            try:
                frames = self._from_index(indices)
            except (av.FFmpegError, EOFError) as error:
                self.close()
                raise unreadable(self.path, DAMAGED) from error
            except OSError as error:  # the file has gone since, or its disk
                self.close()
                raise unreadable(self.path, error.strerror or error) from None
            if frames is not None:
                return frames
            self._other = PyAV(self.path)
            if len(self._other) != self.length:
                raise unreadable(self.path, f"{len(self._other)} frames where its index says {self.length}")
        return self._other.frames(indices)

    def _from_index(self, indices: NDArray[np.int64]) -> Frames | None:
        """The frames, or None if some are missing: then the index is wrong."""
        frames: Frames | None = None
        done = 0
        for place, image in self._images(indices):
            if frames is None:
                frames = np.empty((len(indices), *image.shape), np.uint8)
            if image.shape != frames.shape[1:]:
                raise unreadable(self.path, "its frames change size")
            frames[place] = image
            done += 1
        return frames if done == len(indices) else None

    def _images(self, indices: NDArray[np.int64]) -> Iterator[tuple[int, Frames]]:
        """Place within `indices` and image of each frame; fewer where the index is wrong."""
        packets = self._index.packets[indices]
        groups = np.searchsorted(self._index.keys, packets, side="right") - 1
        with open(self.path, "rb", buffering=0) as file:
            for group in np.unique(groups):
                inside = groups == group
                here = indices[inside].tolist()
                places = dict(zip(here, np.flatnonzero(inside).tolist(), strict=True))
                asked = dict(zip(packets[inside].tolist(), here, strict=True))
                for frame in self._group(file, int(self._index.keys[group]), asked):
                    place = places.pop(frame.pts, None)
                    if place is not None:
                        yield place, self._reformatter.reformat(frame, format="rgb24", **_one_thread()).to_ndarray()

    def each(self, indices: NDArray[np.int64]) -> Iterator[Frames]:
        """Frames `indices` (ascending) one by one (H, W, 3), in the memory of one group of pictures. Raises VideoError.

        Reading anything else in between, also by `frames`, ends it.
        """
        done = 0
        if self._other is None:
            try:
                for place, image in self._images(indices):
                    if place != done:
                        break
                    yield image
                    done += 1
            except (av.FFmpegError, EOFError, OSError) as error:
                self.close()
                raise unreadable(self.path, DAMAGED) from error
            if done == len(indices):
                return
            self._other = PyAV(self.path)
        yield from self._other.each(indices[done:])

    def _group(self, file: FileIO, key: int, asked: dict[int, int]) -> Iterator[Any]:
        """Decoded frames of the group of pictures from packet `key`, among them the `asked`: {packet: frame}.

        A frame's number is passed through the decoder as its time. After the last packet that is needed the decoder is
        emptied, so that nothing is decoded only to push the last frame out.
        """
        offsets, sizes = self._index.offsets, self._index.sizes
        prefix = self._index.prefix
        last = max(asked)
        start = int(offsets[key : last + 1].min())
        end = int((offsets[key : last + 1] + sizes[key : last + 1]).max())
        whole = end - start <= 2 * int(sizes[key : last + 1].sum())  # not where there is sound in between, for instance
        content = read_at(file, start, end - start) if whole else b""
        if self._decoder is None:
            self._decoder = _h264_decoder(self._index.config)
        else:
            self._decoder.flush_buffers()
        for packet in range(key, last + 1):
            at, size = int(offsets[packet]), int(sizes[packet])
            data = content[at - start : at - start + size] if whole else read_at(file, at, size)
            if packet == key and not h264.is_idr(data, prefix):
                return
            if packet not in asked and not h264.needed(data, prefix):
                continue
            sent = av.Packet(data)
            sent.pts = asked.get(packet, -1)
            yield from self._decoder.decode(sent)
        yield from self._decoder.decode(None)

    def close(self) -> None:
        self._decoder = None
        if self._other is not None:
            self._other.close()
            self._other = None


def _h264_decoder(config: bytes) -> Any:
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = config
    decoder.thread_type, decoder.thread_count = "NONE", 1
    # Where the stream does not say how far its frames are reordered, the most is expected, so that no late one is lost.
    decoder.options = {"strict": "strict", **_LIMITS}
    return decoder


class PyAV(Reader):
    """PyAV: gives what a full decode from the start gives, on any file that FFmpeg plays, also by random access.

    A frame is found by its time: from the last key frame that is shown no later, because what is shown after a key
    frame needs nothing before it, open groups of pictures included. Where times cannot be trusted, frames are counted
    from the start. Rotation is applied.
    """

    def __init__(self, path: str, known: Probe | None = None) -> None:
        self.path, self._errors = path, (av.FFmpegError, EOFError)
        self._probe = known or probe(path)
        self._container: Any = None
        try:
            self._open()
            self._reformatter: Any = av.video.reformatter.VideoReformatter()
            self.length = len(self._probe.times) if self._probe.timed else sum(1 for _ in self._from_start())
        except self._errors as error:
            self.close()
            raise unreadable(self.path, DAMAGED) from error
        if not self.length:
            self.close()
            raise unreadable(self.path, "no frame of it can be decoded")

    def _decode(self, indices: NDArray[np.int64]) -> Frames:
        try:
            images = list(self._timed(indices) if self._probe.timed else self._counted(indices))
        except self._errors as error:
            raise unreadable(self.path, DAMAGED) from error
        if len({image.shape for image in images}) > 1:
            raise unreadable(self.path, "its frames change size")
        return np.stack(images)

    def each(self, indices: NDArray[np.int64]) -> Iterator[Frames]:
        """Frames `indices` (ascending) one by one (H, W, 3), in one pass and the memory of one. Raises VideoError.

        Reading anything else in between, also by `frames`, ends it.
        """
        try:
            yield from self._timed(indices) if self._probe.timed else self._counted(indices)
        except self._errors as error:
            raise unreadable(self.path, DAMAGED) from error

    def _rgb(self, frame: Any) -> Frames:
        image = self._reformatter.reformat(frame, format="rgb24", **_one_thread()).to_ndarray()
        turns = round(frame.rotation / 90) % 4
        turned: Frames = np.rot90(image, turns) if turns else image
        return turned

    def _open(self) -> None:
        self._container = av.open(self.path, metadata_errors="replace")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = _LIMITS

    def _from_start(self) -> Iterator[Any]:
        # Opened again: where times cannot be trusted, neither can a seek to the first one.
        self.close()
        self._open()
        for packet in self._container.demux(self._stream):
            yield from packet.decode()

    def _counted(self, indices: NDArray[np.int64]) -> Iterator[Frames]:
        targets = iter(indices.tolist())
        target = next(targets)
        for number, frame in enumerate(self._from_start()):
            if number == target:
                yield self._rgb(frame)
                try:
                    target = next(targets)
                except StopIteration:
                    return
        raise unreadable(self.path, f"it ends before frame {target}")

    def _timed(self, indices: NDArray[np.int64]) -> Iterator[Frames]:
        times = self._probe.times[indices]
        shown, decoded = self._probe.keys
        groups = np.maximum(np.searchsorted(shown, times, side="right") - 1, 0)  # the key frame that each frame needs
        frames: Iterator[Any] = iter(())
        asked = frozenset(times.tolist())
        group, passed = -2, None
        for time, needed in zip(times.tolist(), groups.tolist(), strict=True):
            if needed > group + 1:  # key frames lie between: jump instead of decoding on
                self._container.seek(int(decoded[needed]), backward=True, stream=self._stream)
                frames = self._frames_from(int(shown[needed]), asked)
            group = needed
            for frame in frames:
                passed = frame.pts
                if passed is not None and passed >= time:
                    break
            if passed != time:
                raise unreadable(self.path, f"no frame is shown at time {time}; nearest is {passed}")
            yield self._rgb(frame)

    def _frames_from(self, latest: int, asked: frozenset[int]) -> Iterator[Any]:
        """Frames from where the container stands; those not `asked` for may be missing."""
        codec = self._stream.codec_context
        for number, packet in enumerate(self._container.demux(self._stream)):
            # The first packet after a seek must not come after the key frame that was asked for.
            if number == 0 and packet.pts is not None and packet.pts > latest:
                raise unreadable(self.path, f"its index is wrong: a seek to {latest} arrives at {packet.pts}")
            if codec.name == "h264":  # other decoders also leave out frames that others are predicted from
                codec.skip_frame = "DEFAULT" if packet.pts in asked else "NONREF"
            yield from packet.decode()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
            tidy_heap()
