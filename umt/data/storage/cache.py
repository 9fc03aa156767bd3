"""A folder of copies of remote objects, of limited size, shared by all processes of a machine.

An object's name is a hash of its URL, its tag and its size, so that a changed object is another one. It is written
under a temporary name and renamed, so that it is there as a whole or not at all. The least recently used is deleted
first. A disk that is full or cannot be written ends the caching, with one warning, and never the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: no locks between processes; the limit is then kept only roughly
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_STRIPES = 64  # locks that keep two processes from fetching the same object at once
_LOW = 0.9  # eviction goes down to this share of the limit, so that not every object evicts
_ABANDONED = 3600.0  # seconds after which a file that is being written belongs to a process that died
_broken: set[str] = set()  # folders that this process has stopped storing in


@dataclass(frozen=True)
class Cache:
    """Objects below `folder`, of at most `limit` bytes together. Holds no open file, so it can be sent to workers."""

    folder: str
    limit: int

    def prepare(self, *, main: bool = True) -> None:
        """Makes the folder, deletes what dead processes left, and counts; a new run may warn again. Never raises.

        `main`: this process does so for all of this machine; the others only need the folder.
        """
        try:
            for name in ("objects", "writing", "locks"):
                os.makedirs(os.path.join(self.folder, name), exist_ok=True)
            if main:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.folder, "warned"))
                with self._lock("count"):
                    self._clear_abandoned()
                with self._counted() as count:
                    count.write(count.read())
        except OSError as error:
            self._give_up(error, quietly=not main)

    @contextlib.contextmanager
    def get(self, name: str, size: int, fetch: Callable[[str], None]) -> Iterator[str | None]:
        """A path of the object `name` of `size` bytes, valid in the context even if it is evicted meanwhile.

        `fetch` writes it to a path if it is not there. None: it cannot be stored; read it from the store.
        """
        held = self._find(name, size) or self._store(name, size, fetch, wait=True)
        try:
            yield None if held is None else held.path
        finally:
            if held is not None:
                held.close()

    def ahead(self, name: str, size: int, fetch: Callable[[str], None]) -> None:
        """Fetches an object that will be needed, unless it is there or another process is fetching it."""
        held = self._find(name, size) or self._store(name, size, fetch, wait=False)
        if held is not None:
            held.close()

    # ---- one object

    def _place(self, name: str) -> str:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        return os.path.join(self.folder, "objects", digest[:2], digest[2:])

    def _find(self, name: str, size: int) -> _Held | None:
        try:
            held = _Held(self._place(name), os.path.join(self.folder, "writing"))
        except OSError:
            return None
        if held.size != size:  # half an object after a crash of the machine
            held.close()
            return None
        return held

    def _store(self, name: str, size: int, fetch: Callable[[str], None], *, wait: bool) -> _Held | None:
        if size > self.limit or self.folder in _broken:
            return None
        place = self._place(name)
        try:
            with self._lock(f"object-{int(os.path.basename(place)[:8], 16) % _STRIPES}", wait=wait) as locked:
                if not locked:
                    return None
                return self._find(name, size) or self._write(place, name, size, fetch)
        except OSError as error:
            self._give_up(error)
            return None

    def _write(self, place: str, name: str, size: int, fetch: Callable[[str], None]) -> _Held | None:
        temporary = os.path.join(self.folder, "writing", f"{os.getpid()}-{secrets.token_hex(8)}")
        if not self._reserve(size, temporary):
            return None
        try:
            fetch(temporary)
            if os.path.getsize(temporary) != size:
                raise OSError(f"{os.path.getsize(temporary)} bytes were written instead of {size}")
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.replace(temporary, place)
        except BaseException:
            with contextlib.suppress(OSError):
                self._release(size, temporary)
            raise
        return self._find(name, size)

    # ---- how much there is

    def _reserve(self, size: int, path: str) -> bool:
        """Makes room for `size` bytes and reserves it by the file `path`, which is counted; False: there is no room.

        What other processes are writing cannot be evicted.
        """
        with self._counted() as count:
            total = count.read() + size
            if total > self.limit:
                total = self._evict(max(int(self.limit * _LOW) - size, 0)) + size
                count.write(total - size)
            if total > self.limit:
                return False
            with open(path, "wb") as reserved:
                reserved.truncate(size)
            count.write(total)
            return True

    def _release(self, size: int, path: str) -> None:
        """Gives up what was reserved: file and count together, so that a count in between cannot subtract it twice."""
        with self._counted() as count:
            os.unlink(path)
            count.write(count.read() - size)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[_Count]:
        with self._lock("count"), open(os.path.join(self.folder, "count"), "a+b") as file:
            yield _Count(file, lambda: self._evict(self.limit))

    def _evict(self, limit: int) -> int:
        """Deletes the least recently used until at most `limit` bytes are left; returns how many are."""
        # First what is being written: an object that is finished meanwhile is counted twice, not overlooked.
        writing = sum(_size(entry.path) for entry in os.scandir(os.path.join(self.folder, "writing")))
        objects: list[tuple[int, int, str]] = []
        for part in os.scandir(os.path.join(self.folder, "objects")):
            for entry in os.scandir(part.path):
                with contextlib.suppress(FileNotFoundError):
                    facts = entry.stat()
                    objects.append((facts.st_mtime_ns, facts.st_size, entry.path))
        total = sum(size for _, size, _ in objects) + writing
        for _, size, path in sorted(objects):
            if total <= limit:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
        return total

    def _clear_abandoned(self) -> None:
        for entry in os.scandir(os.path.join(self.folder, "writing")):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > _ABANDONED:
                    os.unlink(entry.path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.folder, "count"))  # the next one that needs it counts again

    @contextlib.contextmanager
    def _lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        if fcntl is None:
            yield True
            return
        with open(os.path.join(self.folder, "locks", name), "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _give_up(self, error: OSError, *, quietly: bool = False) -> None:
        _broken.add(self.folder)
        if quietly:
            return
        try:
            os.close(os.open(os.path.join(self.folder, "warned"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return  # another process has warned
        except OSError:
            pass
        log.warning(
            "--cache_dir (%s) cannot be written: %s. The run goes on and reads from the remote store each time.",
            self.folder, error.strerror or error,
        )  # fmt: skip


class _Count:
    """Bytes that are stored and reserved, in a file; `recount` counts them if the file has no number."""

    def __init__(self, file: BinaryIO, recount: Callable[[], int]) -> None:
        self._file, self._recount = file, recount

    def read(self) -> int:
        self._file.seek(0)
        content = self._file.read(8)
        return int(struct.unpack("<q", content)[0]) if len(content) == 8 else self._recount()

    def write(self, total: int) -> None:
        self._file.truncate(0)
        self._file.write(struct.pack("<q", max(total, 0)))
        self._file.flush()


class _Held:
    """An object that cannot vanish: kept by a file that this process has open (Linux), else by another link to it."""

    def __init__(self, place: str, links: str) -> None:
        self._file = os.open(place, os.O_RDONLY)
        self._link: str | None = None
        try:
            with contextlib.suppress(PermissionError):
                os.utime(place)  # used now; most machines do not record when a file was last read
            self.size = os.fstat(self._file).st_size
            self.path = f"/proc/{os.getpid()}/fd/{self._file}"
            if not sys.platform.startswith("linux"):
                self._link = self.path = os.path.join(links, f"{os.getpid()}-{secrets.token_hex(8)}")
                os.link(place, self._link)
        except OSError:
            os.close(self._file)
            raise

    def close(self) -> None:
        os.close(self._file)
        if self._link is not None:
            os.unlink(self._link)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
