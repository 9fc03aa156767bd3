"""Files that are there whole or not at all, and the sentence about those that cannot be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from umt.errors import OutputError


@contextlib.contextmanager
def whole(path: Path, *, flush: bool = True, shared: bool = False) -> Iterator[Path]:
    """A place to write to, beside `path`, that takes its place when the block ends well, and vanishes when it does not.

    The folder is made. `flush`: the bytes are on the disk before the name is theirs. `shared`: several processes may
    write the file at once; each has a place of its own. Otherwise the place has one name, so that what a killed process
    left is overwritten rather than piled up. Raises OSError.
    """
    place = path.with_name(f".{path.name}.{os.getpid()}.part" if shared else f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield place
        if flush:
            with open(place, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(place, path)
    except BaseException:
        with contextlib.suppress(OSError):
            place.unlink()
        raise


@contextlib.contextmanager
def output_errors(what: str, remedy: str) -> Iterator[None]:
    """An OSError of the block becomes an OutputError: "WHAT cannot be written: REASON. REMEDY"."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what} cannot be written: {error.strerror or error}. {remedy}") from error
