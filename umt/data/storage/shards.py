"""Tar shards as `umt data shard` writes them, and their index, by which any video of them is read without the others.

The index, `shards.idx`, is next to the shards: a line of JSON that names them, then a line for each video,
`shard start size sha256 path`, separated by tabs. `start` is the place of the video's first byte in the tar file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.video_list import VideoList
from umt.data.storage import remote
from umt.data.storage.urls import is_url, join
from umt.errors import AnnotationError
from umt.formats import Format

INDEX = "shards.idx"
_KIND, _COLUMNS = "umt shards", 5
FORMAT = Format("an index of shards", AnnotationError, key="version")


@dataclass(frozen=True)
class Shard:
    """A tar file. `digest` is the SHA-256 of all of it."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Place:
    """Where a video is: `size` bytes of shard number `shard` from `start` on. `digest` is their SHA-256."""

    path: str
    shard: int
    start: int
    size: int
    digest: str


@dataclass(frozen=True)
class Member:
    """One video of a shard, and what is known of both."""

    url: str
    start: int
    size: int
    digest: str
    shard_size: int
    shard_digest: str


@dataclass(frozen=True, eq=False)
class Shards:
    """The shards of a folder or URL, and for every row of one list where it is. Arrays, so that workers share them."""

    folder: str
    shards: tuple[Shard, ...]
    shard: NDArray[np.int32]  # (rows,) number of the shard; -1: in none
    start: NDArray[np.int64]  # (rows,)
    size: NDArray[np.int64]  # (rows,)
    digest: NDArray[np.uint8]  # (rows, 32)

    def member(self, row: int) -> Member | None:
        """Where `row` is; None if it is in no shard."""
        number = int(self.shard[row])
        if number < 0:
            return None
        shard = self.shards[number]
        return Member(
            join(self.folder, shard.name),
            int(self.start[row]),
            int(self.size[row]),
            self.digest[row].tobytes().hex(),
            shard.size,
            shard.digest,
        )

    def name(self, row: int, path: str) -> str:
        """How messages name a row: the shard and the path in its list."""
        number = int(self.shard[row])
        return f"{join(self.folder, self.shards[number].name if number >= 0 else INDEX)}:{path}"


def write_index(shards: Iterable[Shard], places: Iterable[Place]) -> bytes:
    """The content of an index file."""
    rows = [f"{p.shard}\t{p.start}\t{p.size}\t{p.digest}\t{p.path}" for p in places]
    head = {"format": _KIND, **FORMAT.stamp(), "videos": len(rows), "shards": [vars(shard) for shard in shards]}
    return "\n".join([json.dumps(head), *rows, ""]).encode("utf-8", "surrogateescape")


@dataclass(frozen=True, eq=False)
class _Index:
    """An index, column by column: hundreds of thousands of videos are read in a second."""

    shards: tuple[Shard, ...]
    paths: list[str]
    shard: NDArray[np.int64]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    digest: NDArray[np.uint8]  # (videos, 32)


def read_index(content: bytes, source: str) -> tuple[tuple[Shard, ...], list[Place]]:
    """What `write_index` wrote. Raises AnnotationError naming `source` for anything else."""
    index = _read(content, source)
    digests = [digest.tobytes().hex() for digest in index.digest]
    shard, start, size = index.shard.tolist(), index.start.tolist(), index.size.tolist()
    return index.shards, list(map(Place, index.paths, shard, start, size, digests))


def _read(content: bytes, source: str) -> _Index:
    try:
        head, newline, rows = content.decode("utf-8", "surrogateescape").partition("\n")
        facts = json.loads(head)
        if facts["format"] != _KIND:
            raise ValueError(f"its format is {facts['format']!r}, not {_KIND!r}")
        FORMAT.check(facts, source)
        shards = tuple(Shard(**shard) for shard in facts["shards"])
        if not newline or (rows and not rows.endswith("\n")):
            raise ValueError("it ends in the middle of a line")
        fields = rows[:-1].replace("\n", "\t").split("\t") if rows else []
        if len(fields) != _COLUMNS * rows.count("\n"):  # a path with a tab in it
            fields = [field for row in rows[:-1].split("\n") for field in row.split("\t", _COLUMNS - 1)]
        shard, start, size = (np.array([int(n) for n in fields[i::_COLUMNS]], dtype=np.int64) for i in range(3))
        digest = np.frombuffer(bytes.fromhex("".join(fields[3::_COLUMNS])), np.uint8).reshape(-1, 32)
        index = _Index(shards, fields[4::_COLUMNS], shard, start, size, digest)
        if {len(shard), len(start), len(size), len(digest), len(index.paths)} != {facts["videos"]}:
            raise ValueError(f"{len(index.paths)} of {facts['videos']} videos are in it")
        if len(shard) and not 0 <= shard.min() <= shard.max() < len(shards):
            raise ValueError("a video is in a shard that it does not name")
    except AnnotationError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise AnnotationError(
            f"{source} is not a complete index of shards ({error}). Copy it again, or write it by umt data shard."
        ) from None
    return index


def open_shards(videos: VideoList) -> Shards | None:
    """The shards that the prefix of `videos` holds; None where it holds plain files.

    Raises AnnotationError for a damaged index, or a local shard that is missing or has another size than it says.
    """
    folder = videos.prefix
    source = join(folder, INDEX)
    if not folder:
        return None
    if is_url(folder):
        try:
            content = remote.read(source)
        except remote.MissingError:
            return None
        except remote.RemoteError as error:
            raise AnnotationError(f"--prefix ({folder}) cannot be read: {error}.") from None
    else:
        try:
            with open(source, "rb") as file:
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise AnnotationError(f"{source} cannot be read: {error.strerror}. Check its permissions.") from None
    index = _read(content, source)
    if not is_url(folder):
        _check_sizes(folder, index.shards)
    return _rows(folder, index, videos)


def _rows(folder: str, index: _Index, videos: VideoList) -> Shards:
    known = {path: number for number, path in enumerate(index.paths)}
    numbers = np.array([known.get(videos.path(row), -1) for row in range(len(videos))], dtype=np.int64)
    # A video in no shard has number -1, which is the last of each column: nowhere.
    return Shards(
        folder,
        index.shards,
        np.append(index.shard, -1)[numbers].astype(np.int32),
        np.append(index.start, 0)[numbers],
        np.append(index.size, 0)[numbers],
        np.concatenate([index.digest, np.zeros((1, 32), np.uint8)])[numbers],
    )


def _check_sizes(folder: str, shards: tuple[Shard, ...]) -> None:
    for shard in shards:
        path = join(folder, shard.name)
        try:
            size = os.path.getsize(path)
        except OSError:
            raise AnnotationError(f"{path} is not there, but {INDEX} next to it names it. Copy it again.") from None
        if size != shard.size:
            raise AnnotationError(
                f"{path} has {size} bytes, but {INDEX} next to it says {shard.size}. Copy it, or write both again."
            )
