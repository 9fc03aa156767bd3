"""The finished rows of a test that is still running, so that a killed one goes on from them.

One file per rank, only ever appended to: a header with the fingerprint of the test, then a record for each finished
row: its number, its length, its results and a checksum. What a crash or a full disk cut off in the middle fails its
checksum and is computed again; a file with another fingerprint (another checkpoint, list or number of views) is never
read. Plain appends, because the locks of a database do not hold on NFS.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from umt.errors import OutputError
from umt.evaluation.results import Results

_MAGIC = b"umt partial results 2\n"
_HEAD = struct.Struct("<qQ")  # row, bytes of its results
_CHECKSUM = struct.Struct("<I")
_CHUNK = 1 << 20  # a damaged length does not make the reader ask for more memory than there are bytes in the file


def partial_path(folder: Path, rank: int) -> Path:
    """Where rank `rank` keeps its finished rows."""
    return folder / f"scores.rank{rank}.partial"


def partial_ranks(folder: Path) -> list[int]:
    """Ranks that left a file in `folder`, whatever the number of ranks then and now."""
    names = (path.name.split(".")[1].removeprefix("rank") for path in folder.glob("scores.rank*.partial"))
    return sorted(int(name) for name in names if name.isdecimal())


def pack(row: int, data: bytes) -> bytes:
    """One record."""
    record = _HEAD.pack(row, len(data)) + data
    return record + _CHECKSUM.pack(zlib.crc32(record))


def unpack(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(row, results) of each whole record; nothing behind a damaged one is aligned."""
    while True:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        row, length = _HEAD.unpack(head)
        parts = [head]
        while length > 0 and (part := file.read(min(length, _CHUNK))):
            parts.append(part)
            length -= len(part)
        checksum = file.read(_CHECKSUM.size)
        record = b"".join(parts)
        if length or len(checksum) < _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != zlib.crc32(record):
            return
        yield row, record[_HEAD.size :]


def read_partial(path: Path, results: Results) -> int:
    """Adds the whole records of `path` to `results`; returns the length of its good part in bytes, 0 if none."""
    header = _header(results)
    try:
        with open(path, "rb") as file:
            if file.read(len(header)) != header:
                return 0
            good = len(header)
            for row, data in unpack(file):
                results.load(row, data)
                good = file.tell()
            return good
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error.strerror}); remove it to test from the start.") from error


class PartialWriter:
    """Appends finished rows to a rank's file, after the `good` bytes that `read_partial` accepted."""

    def __init__(self, path: Path, results: Results, good: int = 0) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk refused is not tried again, out of place, when the file is closed.
            self._file = open(path, "r+b" if good else "wb", buffering=0)  # noqa: SIM115  (closed by __exit__)
            self._file.truncate(good)
            self._file.seek(good)
            if not good:
                self._write(_header(results))
        except OSError as error:
            raise self._cannot(error) from error

    def append(self, row: int, data: bytes) -> None:
        """Writes the results of one finished row and hands them to the operating system."""
        try:
            self._write(pack(row, data))
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


def _header(results: Results) -> bytes:
    return _MAGIC + results.fingerprint().encode() + b"\n"
