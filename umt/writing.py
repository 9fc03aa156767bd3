"""Files that are there whole or not at all, and the sentence about those that cannot be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from umt.errors import OutputError


@contextlib.contextmanager
def whole(path: Path, *, flush: bool = True, shared: bool = False) -> Iterator[Path]:
    """A temporary path next to `path`, which replaces `path` when the block ends well and is removed when it fails.

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
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path`, whole, when the block ends well, and vanishes when it does not.

    Raises:
        OutputError: the disk is full or the folder cannot be written; what `path` held before is still there.
    """
    temporary = temporary_of(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        kept = "The previous one is intact." if path.exists() else "Nothing was written."
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}. {kept} "
            "Free some space or choose another --output_dir, then start the same command again: it resumes."
        ) from error
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def temporary_of(path: Path) -> Path:
    """One fixed name, so that what a killed process left is overwritten rather than piled up."""
    return path.with_name("." + path.name.lstrip(".") + ".writing")


def sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut; some network file systems refuse, and then it is theirs to keep."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def output_errors(what: str, remedy: str) -> Iterator[None]:
    """An OSError of the block becomes an OutputError: "WHAT cannot be written: REASON. REMEDY"."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what} cannot be written: {error.strerror or error}. {remedy}") from error
