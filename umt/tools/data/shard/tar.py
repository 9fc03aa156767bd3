"""Writes the tar files of `umt data shard` in parallel: each whole or not at all, and only those that are missing."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from umt.data.storage import remote
from umt.data.storage.shards import INDEX, Place, Shard, read_index, write_index
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, OutputError
from umt.writing import whole

log = logging.getLogger(__name__)

BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Video:
    """A file that is to be packed. `size` 0: it is not there; `changed`: when, in seconds, 0 if unknown."""

    path: str  # as the list writes it
    label: int
    file: str
    size: int = 0
    changed: float = 0.0


@dataclass
class Part:
    """A tar file to write: its videos in order, numbered from `first` on within their list."""

    name: str
    first: int
    videos: list[Video] = field(default_factory=list)


def padded(size: int) -> int:
    """Bytes that `size` bytes of content take in a tar file."""
    return -(-size // BLOCK) * BLOCK


def facts_of(video: Video) -> bytes:
    """The JSON member of a video: its path in the list and its label, if it has one."""
    facts: dict[str, str | int] = {"path": video.path}
    if video.label >= 0:
        facts["label"] = video.label
    return json.dumps(facts, sort_keys=True).encode()


def write_all(out: Path, parts: list[Part], workers: int) -> dict[str, tuple[Shard, list[Place]]]:
    """Name -> shard and places of its videos, whether written now or there already."""
    written = dict(_already(out, parts))
    todo = [part for part in parts if part.name not in written]
    stop = threading.Event()
    total = sum(video.size for part in todo for video in part.videos)
    if written:
        log.info("%d of %d shards are there already", len(written), len(parts))
    with (
        tqdm(desc="writing", total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        running = {pool.submit(_write, out, part, bar, stop): part.name for part in todo}
        try:
            for done in as_completed(running):
                written[running[done]] = done.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return written


def _already(out: Path, parts: list[Part]) -> Iterator[tuple[str, tuple[Shard, list[Place]]]]:
    """Shards that are there and up to date: the same videos, sizes and labels, none changed since."""
    known: dict[str, tuple[Shard, list[Place]]] = {}
    for path in [out / INDEX, *sorted(out.glob("*-*.idx"))]:
        with suppress(OSError, AnnotationError):
            shards, places = read_index(path.read_bytes(), str(path))
            by_shard: dict[int, list[Place]] = {}
            for place in places:
                by_shard.setdefault(place.shard, []).append(place)
            known |= {shard.name: (shard, by_shard.get(number, [])) for number, shard in enumerate(shards)}
    for part in parts:
        if part.name not in known:
            continue
        shard, places = known[part.name]
        with suppress(OSError):
            facts = os.stat(out / part.name)
            same = [(p.path, p.size) for p in places] == [(v.path, v.size) for v in part.videos]
            newer = facts.st_mtime >= max(video.changed for video in part.videos)
            if same and newer and facts.st_size == shard.size and _has_facts(out / part.name, part, places):
                yield part.name, (shard, places)


def _has_facts(path: Path, part: Part, places: list[Place]) -> bool:
    with path.open("rb") as file:
        for video, place in zip(part.videos, places, strict=True):
            facts = facts_of(video)
            file.seek(place.start + padded(place.size) + BLOCK)
            if file.read(len(facts)) != facts:
                return False
    return True


class _Hashed:
    """A file being written, and the hash of its content so far."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> None:
        self.file.write(content)
        self.hash.update(content)
        self.size += len(content)


def _write(out: Path, part: Part, bar: tqdm[None], stop: threading.Event) -> tuple[Shard, list[Place]]:
    places = []
    with whole(out / part.name) as unfinished, unfinished.open("wb") as file:
        hashed = _Hashed(file)
        for number, video in enumerate(part.videos, part.first):
            facts, ending = facts_of(video), os.path.splitext(video.file)[1] or ".mp4"
            hashed.write(_header(f"{number:09d}{ending}", video.size))
            start, digest = hashed.size, hashlib.sha256()
            for content in _content(video):
                if stop.is_set():
                    raise OSError("stopped")
                hashed.write(content)
                digest.update(content)
                bar.update(len(content))
            places.append(Place(video.path, 0, start, video.size, digest.hexdigest()))
            hashed.write(bytes(padded(video.size) - video.size))
            hashed.write(_header(f"{number:09d}.json", len(facts)))
            hashed.write(facts.ljust(padded(len(facts)), b"\0"))
        end = 2 * BLOCK + hashed.size
        hashed.write(bytes(-(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE - hashed.size))
    shard = Shard(part.name, hashed.size, hashed.hash.hexdigest())
    put((out / part.name).with_suffix(".idx"), write_index([shard], places))  # until all shards are there
    return shard, places


def _header(name: str, size: int) -> bytes:
    """It does not depend on when, where and by whom it is written."""
    facts = tarfile.TarInfo(name)
    facts.size, facts.mode = size, 0o644
    return facts.tobuf(tarfile.GNU_FORMAT)


def _content(video: Video) -> Iterator[bytes]:
    left = video.size
    for content in _chunks(video):
        left -= len(content)
        if content and left >= 0:
            yield content
    if left:
        raise OutputError(f"{video.file} changed while it was read. Start the same command again when it is at rest.")


def _chunks(video: Video) -> Iterator[bytes]:
    if is_url(video.file):
        try:
            yield remote.read(video.file)
        except remote.RemoteError as error:
            raise AnnotationError(f"{video.file} cannot be read: {error}.") from None
        return
    try:
        with open(video.file, "rb") as file:
            while content := file.read(_CHUNK):
                yield content
    except OSError as error:
        raise AnnotationError(f"{video.file} cannot be read: {error.strerror}.") from None


def put(path: Path, content: bytes) -> None:
    """Writes a small file, whole or not at all."""
    with whole(path, flush=False) as unfinished:
        unfinished.write_bytes(content)
