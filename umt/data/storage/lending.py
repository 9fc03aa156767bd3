"""A local path for bytes that have none: decoders open paths, and a store gives bytes or a part of a tar file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from umt.data.video.decoders import Frames, VideoReader
from umt.errors import VideoError

_CHUNK = 1 << 24


@contextlib.contextmanager
def path_of_bytes(content: bytes) -> Iterator[str]:
    """A path with `content` while the context lasts; on Linux it is in memory, elsewhere a temporary file."""
    with _file() as (file, path):
        with open(file, "wb", closefd=False) as writer:
            writer.write(content)
        yield path


@contextlib.contextmanager
def path_of_part(source: str, start: int, size: int) -> Iterator[str]:
    """A path with `size` bytes of the file `source` from `start` on. Raises OSError, also if there are fewer."""
    with _file() as (file, path):
        whole = os.open(source, os.O_RDONLY)
        try:
            _copy(whole, file, start, size)
        finally:
            os.close(whole)
        yield path


@contextlib.contextmanager
def _file() -> Iterator[tuple[int, str]]:
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("video")
        try:
            # Not /proc/self: a process that this one starts to decode may open the path too.
            yield file, f"/proc/{os.getpid()}/fd/{file}"
        finally:
            os.close(file)
        return
    file, path = tempfile.mkstemp(prefix="umt-")
    try:
        yield file, path
    finally:
        os.close(file)
        os.unlink(path)


def _copy(source: int, target: int, start: int, size: int) -> None:
    end = start + size
    while start < end:
        if hasattr(os, "sendfile"):
            sent = os.sendfile(target, source, start, min(end - start, _CHUNK))
        else:
            os.lseek(source, start, os.SEEK_SET)
            sent = os.write(target, os.read(source, min(end - start, _CHUNK)))
        if not sent:
            raise OSError(f"it ends {end - start} bytes early")
        start += sent


class Lent(VideoReader):
    """A reader whose file is deleted when it is closed. Errors name the video, not the temporary path of its bytes."""

    def __init__(self, name: str, path: str, reader: VideoReader, resources: contextlib.ExitStack) -> None:
        self.path, self._lent, self._reader, self._resources = name, path, reader, resources

    def __len__(self) -> int:
        return len(self._reader)

    def frames(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        try:
            return self._reader.frames(indices)
        except VideoError as error:
            raise renamed(error, self._lent, self.path) from None

    def close(self) -> None:
        self._reader.close()
        self._resources.close()

    def __enter__(self) -> Lent:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def renamed(error: VideoError, path: str, name: str) -> VideoError:
    """The same error, of `name`."""
    return VideoError(str(error).replace(path, name))
