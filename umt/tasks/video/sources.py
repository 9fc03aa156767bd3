"""The lists that a run reads, from --data_path, --prefix and --split; each of them may be given once for several lists.

A path may be a URL, so it is text here and no `Path`, which would take one of its slashes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from umt.data import catalog
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, ConfigError
from umt.tasks.video.flags import DataConfig


@dataclass(frozen=True)
class Source:
    """One --data_path: a list or a folder of lists, with its prefix and separator."""

    path: str
    prefix: str
    separator: str


def sources(data: DataConfig) -> tuple[Source, ...]:
    """One per --data_path. Raises ConfigError where --prefix, --split or --data_weights differ in their number."""
    paths = _several(data.data_path)
    columns = []
    for flag, given in (("prefix", data.prefix), ("split", data.split)):
        values = _several(given)
        if len(values) not in (1, len(paths)):
            raise ConfigError(
                f"--{flag} ({' '.join(values)}) has {len(values)} values for {len(paths)} lists of --data_path. "
                "Give one for all, or one for each."
            )
        columns.append(values * len(paths) if len(values) == 1 else values)
    weights = data.data_weights
    if weights is not None and len(weights) != len(paths):
        raise ConfigError(
            f"--data_weights ({' '.join(f'{w:g}' for w in weights)}) has {len(weights)} values for {len(paths)} lists "
            f"of --data_path. Give one for each."
        )
    return tuple(Source(*values) for values in zip(paths, *columns, strict=True))


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def check_data(data: DataConfig) -> None:
    """Raises ConfigError for flags of the lists that contradict each other."""
    catalog.get(data.data_set)
    lists = sources(data)
    if not all(source.separator for source in lists):
        raise ConfigError("--split () must be the character between the columns of the lists. Try --split ','.")
    if data.shard_shuffle and not data.cache_dir and any(is_url(source.prefix) for source in lists):
        raise ConfigError(
            f"--shard_shuffle ({data.shard_shuffle}) reads remote shards as a whole and needs a place for them. "
            "Add --cache_dir, or leave it out."
        )


def require_path(given: str) -> None:
    """Raises AnnotationError unless `given` exists."""
    if not os.path.exists(given):
        raise AnnotationError(
            f"--data_path ({given}) does not exist. Check the path; the scripts of exp/ take it from DATA_PATH."
        )


def check_prefixes(data: DataConfig) -> None:
    """Raises AnnotationError for a --prefix that is no folder."""
    for source in sources(data):
        if source.prefix and not is_url(source.prefix) and not os.path.isdir(source.prefix):
            raise AnnotationError(
                f"--prefix ({source.prefix}) is not a folder. It is joined before the paths of the lists."
            )


def counted(files: Sequence[str], data_set: str, classes: int | None = None) -> tuple[int | None, str]:
    """Rows of the training lists `files`, counted where they are here, else the official number; and its origin."""
    if files[0] and all(map(os.path.isfile, files)):
        from umt.data.lists.reading import count_rows

        return sum(map(count_rows, files)), f"counted in {' and '.join(files)}"
    lacking = next((path for path in files if not os.path.isfile(path)), files[0])
    why = f"{lacking} is not looked at" if is_url(lacking) else f"{lacking or '.'} is not there"
    official = catalog.official_size(data_set, classes) if len(files) == 1 else None
    return (None, f"unknown, {why}") if official is None else (official, f"official size, {why}")
