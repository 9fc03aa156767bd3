"""The finished videos of a test that is still running, so that a killed one goes on from them.

One file a rank, only ever appended to: a header with the fingerprint of the test, then a record for each finished video
with a checksum. What a crash or a full disk cut off in the middle fails its checksum and is computed again; a file with
another fingerprint (another checkpoint, list or number of views) is never read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from umt.errors import OutputError
from umt.evaluation.scores import ViewScores

_MAGIC = b"umt partial scores 1\n"
_ROW = struct.Struct("<q")
_CHECKSUM = struct.Struct("<I")


def partial_path(folder: Path, rank: int) -> Path:
    """Where rank `rank` keeps its finished videos."""
    return folder / f"scores.rank{rank}.partial"


def partial_ranks(folder: Path) -> list[int]:
    """Ranks that left a file in `folder`, whatever the number of ranks then and now."""
    found = (path.name.split(".")[1].removeprefix("rank") for path in folder.glob("scores.rank*.partial"))
    return sorted(int(rank) for rank in found if rank.isdecimal())


def read_partial(path: Path, scores: ViewScores) -> int:
    """Adds the whole records of `path` to `scores`; returns the length of its good part in bytes, 0 if none."""
    header = _header(scores)
    try:
        with open(path, "rb") as file:
            if file.read(len(header)) != header:
                return 0
            good = len(header)
            for row, logits in _records(file, scores):
                scores.add_video(row, logits)
                good = file.tell()
            return good
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}); remove it to test from the start.") from error


class PartialWriter:
    """Appends finished videos to a rank's file, after the `good` bytes that `read_partial` accepted."""

    def __init__(self, path: Path, scores: ViewScores, good: int = 0) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk refused is not tried again, out of place, when the file is closed.
            self._file = open(path, "r+b" if good else "wb", buffering=0)  # noqa: SIM115  (closed by __exit__)
            self._file.truncate(good)
            self._file.seek(good)
            if not good:
                self._write(_header(scores))
        except OSError as error:
            raise self._cannot(error) from error

    def append(self, row: int, logits: NDArray[np.float32]) -> None:
        """Writes the views (S, C, K) of one finished video and hands them to the operating system."""
        record = _ROW.pack(row) + np.ascontiguousarray(logits, "<f4").tobytes()
        try:
            self._write(record + _CHECKSUM.pack(zlib.crc32(record)))
        except OSError as error:
            raise self._cannot(error) from error

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]

    def _cannot(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.path}: test scores cannot be written ({error.strerror}). Free the disk or change --output_dir; "
            f"the videos finished so far are kept."
        )

    def __enter__(self) -> PartialWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _header(scores: ViewScores) -> bytes:
    return _MAGIC + scores.fingerprint().encode() + b"\n"


def _records(file: BinaryIO, scores: ViewScores) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Records up to the first that is cut or fails its checksum: nothing behind it can be trusted to be aligned."""
    shape = scores.clips, scores.crops, scores.classes
    length = _ROW.size + 4 * int(np.prod(shape))
    while True:
        record = file.read(length + _CHECKSUM.size)
        if len(record) < length + _CHECKSUM.size:
            return
        body, checksum = record[:length], record[length:]
        if _CHECKSUM.unpack(checksum)[0] != zlib.crc32(body):
            return
        yield _ROW.unpack(body[: _ROW.size])[0], np.frombuffer(body, "<f4", offset=_ROW.size).reshape(shape)
