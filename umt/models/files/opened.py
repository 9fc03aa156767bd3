"""Files of weights as this process has them: each is opened once and handed on. No torch.

A dry run looks at a file's header (names, shapes, flags), a record wants its hash, a model its tensors. The first of
them opens the file, which stays open until its tensors are read, or others have taken its place. Headers are small and
kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import struct
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from umt.errors import CheckpointError
from umt.models.files.pickles import DAMAGE, Reader, Storage, Stored, data_of, pickles_in

_MOST = 4  # files that are open at once
_LONGEST = 100 << 20  # bytes of a header: the names of a million tensors
_CHUNK = 1 << 20
_START = 512
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch's files before version 1.6

_opened: dict[tuple[str, int, int, int, int], WeightsFile] = {}
_lock = threading.RLock()  # a thread that reads has the file's position for itself


class Header(NamedTuple):
    """What a file holds, its tensors as `Stored`.

    Attributes:
        protocol: of its pickle. `bare`: the pickle is all of the file, which torch does not write.
        unknown: names in it that weights do not need.
    """

    content: Any
    protocol: int = 2
    bare: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether torch would read the same without objections."""
        return self.protocol == 2 and not self.bare and not self.unknown


class WeightsFile:
    """One file of weights; made by `open_file`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[IO[bytes]]:
        """The file at its beginning, for this thread alone. Raises `CheckpointError` where it cannot be opened."""
        with _lock:
            if self._file is None:
                try:
                    self._file = self.path.open("rb")
                except OSError as error:
                    raise CheckpointError(
                        f"{self.path} cannot be read ({error.strerror}). Check its permissions."
                    ) from error
            self._file.seek(0)
            yield self._file

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def close(self) -> None:
        """Closes the file; what is asked for next opens it again."""
        with _lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    @functools.cached_property
    def format(self) -> Literal["torch", "torch before 1.6", "torchscript", "safetensors"]:
        """By the first bytes. Raises `CheckpointError` for what people have instead of a checkpoint."""
        with self.reading() as file:
            start = file.read(_START)
            if instead := what_it_is_instead(start):
                raise CheckpointError(f"{self.path} is {instead}")
            if self.path.suffix == ".safetensors" or start[8:9] == b"{":  # 8 bytes with the length of a header in JSON
                return "safetensors"
            if start.startswith(b"PK\x03\x04"):
                with contextlib.suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
                    with zipfile.ZipFile(file) as archive:
                        scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
                    return "torchscript" if scripted else "torch"
                raise CheckpointError(f"{self.path} is truncated: its end is missing. Copy or download it again.")
        if not start.startswith((b"\x80", b"}", b"(")):  # pickle protocols; older torch files are bare pickles
            raise CheckpointError(
                f"{self.path} is not a PyTorch checkpoint. Weights must be a file that torch.save or safetensors wrote."
            )
        return "torch before 1.6"

    @functools.cached_property
    def header(self) -> Header | None:
        """What the file holds, without the values of its tensors; None where only torch could say it.

        Nothing of a pickle is imported or run. Raises `CheckpointError` as `format` does.
        """
        read = {"safetensors": _safetensors, "torch": _archive, "torch before 1.6": _before_archives}.get(self.format)
        if read is None:
            return None
        try:
            with self.reading() as file:
                return read(file)
        except DAMAGE:
            return None

    def sha256(self) -> str:
        """In hexadecimal digits."""
        state = self.path.stat()
        return _sha256(str(self.path), state.st_size, state.st_mtime_ns)


def open_file(path: Path) -> WeightsFile:
    """The file `path`, the same object as long as it does not change. Raises `CheckpointError` if there is none."""
    try:
        state = path.stat()
    except OSError:
        raise CheckpointError(f"{path} does not exist. Check the path of the weights.") from None
    key = (str(path), os.getpid(), state.st_ino, state.st_size, state.st_mtime_ns)  # a forked process has its own
    with _lock:
        file = _opened.pop(key, None) or WeightsFile(path)
        for old in [other for other in _opened if other[0] == key[0]]:
            _opened.pop(old).close()
        while len(_opened) >= _MOST:
            _opened.pop(next(iter(_opened))).close()
        _opened[key] = file
    return file


def close_all() -> None:
    """Closes every file of weights, e.g. when a run has started: a file that is open keeps its place on the disk."""
    with _lock:
        for file in _opened.values():
            file.close()


def sha256_of(path: Path) -> str:
    """Of a file, in hexadecimal digits; computed once in a process as long as it does not change."""
    file = open_file(path)
    was_open = file.is_open
    digits = file.sha256()
    if not was_open:
        file.close()
    return digits


@functools.lru_cache(maxsize=64)
def _sha256(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open_file(Path(path)).reading() as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def what_it_is_instead(start: bytes) -> str:
    """What people have in place of weights, by the first bytes, as the end of a sentence; "" if it may be weights."""
    if not start:
        return "empty (0 bytes). Copy or download it again."
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the weights themselves. Run: git lfs pull"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not weights: the download failed. Fetch it again from its link."
    return ""


# ---- headers by format


def _safetensors(file: IO[bytes]) -> Header:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LONGEST:
        raise ValueError("no safetensors file")
    entries: Mapping[str, Any] = json.loads(file.read(length))
    return Header({
        name: Stored(Storage("", "", 0), 0, tuple(map(int, entry["shape"])), ())
        for name, entry in entries.items() if name != "__metadata__"
    })  # fmt: skip


def _archive(file: IO[bytes]) -> Header:
    with zipfile.ZipFile(file) as archive:
        return _described(data_of(archive)[1])


def _before_archives(file: IO[bytes]) -> Header:
    (magic,) = pickles_in(file, 1, longest=_LONGEST)
    if Reader(magic).load() != _MAGIC:
        return _described(magic)._replace(bare=True)
    _version, _system, content = pickles_in(file, 3, longest=_LONGEST)
    return _described(content)


def _described(pickled: bytes) -> Header:
    reader = Reader(pickled)
    protocol = pickled[1] if pickled.startswith(b"\x80") else 0
    return Header(reader.load(), protocol, unknown=tuple(reader.unknown))
