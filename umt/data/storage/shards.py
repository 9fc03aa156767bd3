"""Tar shards as `umt data shard` writes them, and their index, by which any video of them is read without the others.

The index, `shards.idx`, lies beside the shards: a line of JSON that names them, then a line for each video,
`shard start size sha256 path`, parted by tabs. `start` is the place of the video's first byte in the tar file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umt.data.storage import remote
from umt.data.storage.urls import is_url, join
from umt.data.video_list import VideoList
from umt.errors import AnnotationError

INDEX = "shards.idx"
_FORMAT, _VERSION = "umt shards", 1


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
    """One video of one shard, and what is known of both."""

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
    head = {"format": _FORMAT, "version": _VERSION, "videos": len(rows), "shards": [vars(shard) for shard in shards]}
    return "\n".join([json.dumps(head), *rows, ""]).encode("utf-8", "surrogateescape")


def read_index(content: bytes, source: str) -> tuple[tuple[Shard, ...], list[Place]]:
    """What `write_index` wrote. Raises AnnotationError naming `source` for anything else."""
    try:
        head, *rows = content.decode("utf-8", "surrogateescape").split("\n")
        facts = json.loads(head)
        if (facts["format"], facts["version"]) != (_FORMAT, _VERSION):
            raise ValueError(f"version {facts['version']} of it, where this program reads {_VERSION}")
        shards = tuple(Shard(**shard) for shard in facts["shards"])
        places = []
        for row in rows[:-1]:
            shard, start, size, digest, path = row.split("\t", 4)
            places.append(Place(path, int(shard), int(start), int(size), digest))
        if len(places) != facts["videos"] or rows[-1]:
            raise ValueError(f"{len(places)} of {facts['videos']} videos are in it")
    except (ValueError, KeyError, TypeError) as error:
        raise AnnotationError(
            f"{source} is no whole index of shards ({error}). Copy it again, or write it by umt data shard."
        ) from None
    return shards, places


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
    shards, places = read_index(content, source)
    if not is_url(folder):
        _check_sizes(folder, shards)
    return _rows(folder, shards, places, videos)


def _rows(folder: str, shards: tuple[Shard, ...], places: list[Place], videos: VideoList) -> Shards:
    known = {place.path: number for number, place in enumerate(places)}
    row_of = [known.get(videos.path(row), -1) for row in range(len(videos))]
    nowhere = Place("", -1, 0, 0, "00" * 32)
    found = [places[number] if number >= 0 else nowhere for number in row_of]
    return Shards(
        folder,
        shards,
        np.array([place.shard for place in found], dtype=np.int32),
        np.array([place.start for place in found], dtype=np.int64),
        np.array([place.size for place in found], dtype=np.int64),
        np.frombuffer(bytes.fromhex("".join(place.digest for place in found)), np.uint8).reshape(-1, 32),
    )


def _check_sizes(folder: str, shards: tuple[Shard, ...]) -> None:
    for shard in shards:
        path = join(folder, shard.name)
        try:
            size = os.path.getsize(path)
        except OSError:
            raise AnnotationError(f"{path} is not there, but {INDEX} beside it names it. Copy it again.") from None
        if size != shard.size:
            raise AnnotationError(
                f"{path} has {size} bytes, but {INDEX} beside it says {shard.size}. Copy it again, or write both anew."
            )
