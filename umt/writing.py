"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """A place to write to, beside `path`, that takes its place when the block ends well, and vanishes when it does not.

    The folder is made. `flush`: the bytes are on the disk before the name is theirs. The place has the number of the
    process in its name, so that several that write the same file do not disturb each other. Raises OSError.
    """
    place = path.with_name(f".{path.name}.{os.getpid()}.part")
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
