"""A folder that appears under its name when it is whole, and not before."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from umt.errors import OutputError


def check_target(path: Path, overwrite: bool) -> None:
    """Raises OutputError where `path` must not be taken: it is not empty, and no export that may be replaced."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise OutputError(f"--output ({path}) is a file. Name a folder.")
    if not _is_export(path):
        raise OutputError(f"--output ({path}) holds something else than an export. Name a new folder.")
    if not overwrite:
        raise OutputError(f"--output ({path}) has an export already. Name a new folder, or give --overwrite.")


def _is_export(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return "umt_model" in json.loads((path / "config.json").read_text(encoding="utf-8"))
    return False


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends well, and vanishes when it does not."""
    check_target(path, overwrite)
    filling, old = (path.with_name(f".{path.name}.{what}") for what in ("exporting", "replaced"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in (filling, old):
            shutil.rmtree(left_behind, ignore_errors=True)
        filling.mkdir()
        yield filling
        if path.exists():
            path.rename(old)
        filling.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"--output ({path}) could not be written: {error.strerror or error}. "
            "Free some space, or name a folder that you may write."
        ) from error
    finally:
        shutil.rmtree(filling, ignore_errors=True)
