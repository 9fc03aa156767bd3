"""What was read from a file, kept while the file stays as it is, so that a process opens every list once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from umt.data.storage.urls import is_url

_MOST = 32  # files whose content is kept; the lists of a run are a handful
# Nanoseconds. The clock of a file system ticks every few milliseconds: within a tick a file may be written twice.
_JUST_WRITTEN = 50_000_000

T = TypeVar("T")
_kept: dict[Hashable, dict[Hashable, Any]] = {}


def once(paths: Iterable[str], what: Hashable, read: Callable[[], T]) -> T:
    """`read()`, called once for `what` as long as the files or folders `paths` do not change.

    A URL is read once in the life of the process. What was read is shared, so it must not be changed. Errors are not
    kept.
    """
    key = tuple(map(_identity, paths))
    if None in key:
        return read()
    results = _kept.pop(key, {})
    _kept[key] = results  # the last used stands last
    while len(_kept) > _MOST:
        del _kept[next(iter(_kept))]
    if what not in results:
        results[what] = read()
    return results[what]


def _identity(path: str) -> Hashable:
    """What changes when the content does; None where that cannot be known."""
    if is_url(path):
        return path
    try:
        facts = os.stat(path)
    except OSError:
        return None
    if abs(time.time_ns() - facts.st_mtime_ns) < _JUST_WRITTEN:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
