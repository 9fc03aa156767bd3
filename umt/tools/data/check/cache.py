"""What earlier checks saw of files, so that a check looks only at what is new or has changed.

Keyed by path, size, time of change and the versions of the decoders. A cache that cannot be used is no reason to stop:
the check says so and looks at every file.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from umt.errors import OutputError
from umt.formats import Format
from umt.tools.data.check.looking import Facts

log = logging.getLogger(__name__)

FORMAT = Format("a cache of checks", OutputError, key="user_version")  # of the table
_LOOKING = 1  # raised when looking at a file finds more
_FLUSH = 500  # answers between writes; files whose answers a crash loses are looked at again


class Stamp(NamedTuple):
    """A file as it was when looked at."""

    path: str
    size: int
    changed: int  # nanoseconds


def cache_folder() -> Path:
    """The user's: $UMT_CACHE, else `umt` in $XDG_CACHE_HOME or ~/.cache."""
    if given := os.environ.get("UMT_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "umt"


def versions(decoder: str) -> str:
    """The versions of everything that looks at a file: another version may see something else."""
    parts = [f"looking {_LOOKING}", f"decoder {decoder}"]
    for name in ("av", "decord", "torchcodec"):
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(parts)


class Cache:
    """Facts about files and hashes of their contents, in an SQLite file; `folder` None: remembers nothing."""

    def __init__(self, folder: Path | None, version: str) -> None:
        self._version = version
        self._waiting: list[tuple[str, int, int, str, str]] = []
        self._base: sqlite3.Connection | None = None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._base = sqlite3.connect(folder / "check.sqlite", timeout=20)
                (number,) = self._base.execute(f"PRAGMA {FORMAT.key}").fetchone()
                FORMAT.check({FORMAT.key: number}, folder / "check.sqlite")
                self._base.execute(
                    "CREATE TABLE IF NOT EXISTS seen (path TEXT, size INTEGER, changed INTEGER, version TEXT, "
                    "what TEXT, PRIMARY KEY (path, version)) WITHOUT ROWID"
                )
                if not number:  # new, or written before the file had a number
                    self._base.execute(f"PRAGMA {FORMAT.key} = {FORMAT.number}")
            except (OSError, sqlite3.Error, OutputError) as error:
                self._give_up(folder, error)

    def _give_up(self, folder: Path | str, error: Exception) -> None:
        log.warning(
            "The cache %s cannot be used (%s): every file is looked at. Another place: --cache DIR.",
            folder,
            str(error).rstrip("."),
        )
        self._base = None

    def facts(self, stamp: Stamp) -> Facts | None:
        """What was seen of a file that has not changed since."""
        content = self._get(stamp, self._version)
        return None if content is None else Facts(**json.loads(content))

    def hash(self, stamp: Stamp) -> str | None:
        """The hash of its content."""
        return self._get(stamp, "hash")

    def keep(self, stamp: Stamp, seen: Facts | str) -> None:
        """Remembers facts, or a hash."""
        if isinstance(seen, str):
            self._waiting.append((*_key(stamp), "hash", seen))
        else:
            self._waiting.append((*_key(stamp), self._version, json.dumps(asdict(seen))))
        if len(self._waiting) >= _FLUSH:
            self.flush()

    def _get(self, stamp: Stamp, version: str) -> str | None:
        if self._base is None:
            return None
        path, size, changed = _key(stamp)
        try:
            row: Sequence[str] | None = self._base.execute(
                "SELECT what FROM seen WHERE path = ? AND version = ? AND size = ? AND changed = ?",
                (path, version, size, changed),
            ).fetchone()
        except sqlite3.Error as error:
            self._give_up("", error)
            return None
        return row[0] if row else None

    def flush(self) -> None:
        """Writes what has been kept since the last write."""
        if self._base is not None and self._waiting:
            try:
                with self._base:
                    self._base.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", self._waiting)
            except sqlite3.Error as error:
                self._give_up("", error)
        self._waiting = []

    def close(self) -> None:
        """Writes and closes."""
        self.flush()
        if self._base is not None:
            self._base.close()


def _key(stamp: Stamp) -> tuple[str, int, int]:
    # SQLite stores UTF-8; the bytes of other names are escaped.
    return stamp.path.encode("utf-8", "backslashreplace").decode(), stamp.size, stamp.changed
