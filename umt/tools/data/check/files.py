"""What is on the disk: looked up and hashed by threads, decoded by processes."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from umt.data.storage.shards import Member, Shards, open_shards
from umt.data.storage.urls import is_url
from umt.tools.data.check.across import Files, Place, twins
from umt.tools.data.check.cache import Cache, Stamp
from umt.tools.data.check.findings import Finding
from umt.tools.data.check.looking import Facts, Task, look_at

Bar = Callable[[int, str], Callable[[], None]]  # (total, what) -> a step of it
_THREADS = 16  # network disks answer slowly, but many at once
_AT_ONCE = 64  # files that a thread takes in one go
_CHUNK = 1 << 20
T = TypeVar("T")
A = TypeVar("A")


@dataclass
class Seen:
    """A file or folder on the disk: `problem` is a kind of finding, "" if it can be opened."""

    problem: str = ""
    cause: str = ""
    stamp: Stamp | None = None
    identity: tuple[int, int] = (0, 0)  # device and number: the same for links to one file
    images: int = 0  # in a folder
    member: Member | None = None  # of a tar shard


def on_disk(files: Files, bar: Bar) -> list[Seen]:
    """The state of every file of `files`. Raises AnnotationError for a damaged index of shards."""
    step = bar(len(files.names), "finding")
    frames = files.frames.tolist()
    shards = {id(checked): open_shards(checked.videos) for checked in files.lists}

    def find(file: int) -> Seen:
        if any(shards.values()):
            place = files.places(file)[0]
            archive = shards.get(id(place.list))
            if archive is not None:
                return _in_shards(archive, place)
        return _find(files.names[file], frames[file])

    return list(_in_threads(find, range(len(frames)), step))


def _in_shards(shards: Shards, place: Place) -> Seen:
    member = shards.member(place.row)
    if member is None:
        return Seen("missing", f"not in the shards of {shards.folder}")
    stamp = Stamp(f"{member.digest} in shards", member.size, 0)  # the same content is the same file, wherever it lies
    return Seen("" if member.size else "empty", stamp=stamp, member=member)


def _in_threads(work: Callable[[A], T], over: Sequence[A], step: Callable[[], None]) -> Iterator[T]:
    def some(start: int) -> list[T]:
        return [work(item) for item in over[start : start + _AT_ONCE]]

    with ThreadPoolExecutor(_THREADS) as pool:
        for answers in pool.map(some, range(0, len(over), _AT_ONCE)):
            for answer in answers:
                step()
                yield answer


def _find(name: str, frames: int) -> Seen:
    if is_url(name):
        return _elsewhere(name, frames)
    try:
        status = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        return Seen("missing", _too_many_columns(name))
    except (OSError, ValueError) as error:
        return Seen("unreadable", getattr(error, "strerror", None) or str(error))
    folder, changed = stat.S_ISDIR(status.st_mode), status.st_mtime_ns
    seen = Seen(stamp=Stamp(os.path.abspath(name), status.st_size, changed), identity=(status.st_dev, status.st_ino))
    if folder != (frames >= 0):
        seen.problem, seen.cause = "wrong_type", "a folder" if folder else "a file"
    elif folder:
        # The size of a folder says nothing, the number of its images does.
        seen.stamp = Stamp(os.path.abspath(name), frames, changed)
        _count(name, frames, seen)
    elif status.st_size == 0:
        seen.problem = "empty"
    elif not stat.S_ISREG(status.st_mode):
        seen.problem, seen.cause = "wrong_type", "neither a file nor a folder"
    elif not os.access(name, os.R_OK):
        seen.problem, seen.cause = "unreadable", "Permission denied"
    return seen


def _too_many_columns(name: str) -> str:
    """A hint, where frame folders are listed and videos are expected, or a line has a column too many."""
    for separator in ",; |\t":
        path, _, number = name.rpartition(separator)
        if number.strip().isdecimal() and os.path.exists(path):
            return "the folder before the number is there: --use_decord False?" if os.path.isdir(path) else (
                "the file before the number is there: is there a column too many?"
            )  # fmt: skip
    return ""


def _elsewhere(url: str, frames: int) -> Seen:
    if frames >= 0:
        return Seen("remote")
    from umt.data.storage import remote

    try:
        status = remote.stat(url)
    except remote.MissingError as error:
        return Seen("missing", str(error))
    except remote.RemoteError as error:
        return Seen("unreadable", str(error))
    # A store that gives no tag is known to have changed by the size alone.
    return Seen("" if status.size else "empty", stamp=Stamp(url, status.size, zlib.crc32(status.tag.encode())))


def _count(name: str, frames: int, seen: Seen) -> None:
    try:
        names = {entry for entry in os.listdir(name) if entry.lower().endswith((".jpg", ".jpeg", ".png"))}
    except OSError as error:
        seen.problem, seen.cause = "unreadable", error.strerror or str(error)
        return
    seen.images = len(names)
    lacking = [number for number in range(1, frames + 1) if f"img_{number:05}.jpg" not in names]
    if not names:
        seen.problem, seen.cause = "empty", "no image in it"
    elif lacking:
        seen.problem = "frames_missing"
        seen.cause = f"{frames} listed, {len(names)} images; no img_{lacking[0]:05}.jpg"


def of_disk(files: Files, seen: Sequence[Seen]) -> Iterator[Finding]:
    """Findings about the state of the files on the disk."""
    by_identity: dict[tuple[int, int], list[int]] = defaultdict(list)
    for file, state in enumerate(seen):
        if state.problem:
            yield from (place.finding(state.problem, state.cause) for place in files.places(file))
            continue
        if state.identity[1]:  # some network disks give files no number
            by_identity[state.identity].append(file)
        if 0 < files.frames[file] < state.images:
            cause = f"{files.frames[file]} listed, {state.images} images"
            yield from (place.finding("frame_count", cause) for place in files.places(file))
    yield from twins(files, [group for group in by_identity.values() if len(group) > 1], "a link to the file of")


def same_content(files: Files, seen: Sequence[Seen], cache: Cache, bar: Bar) -> Iterator[Finding]:
    """Files with the same bytes. Only files of equal size are read."""
    by_size: dict[int, list[int]] = defaultdict(list)
    identities = set()
    for file, state in enumerate(seen):
        if not state.problem and state.stamp is not None and state.identity not in identities and not state.images:
            if state.identity[1]:
                identities.add(state.identity)
            by_size[state.stamp.size].append(file)
    alike = [file for group in by_size.values() if len(group) > 1 for file in group]
    known = {file: _known_hash(seen[file], cache) for file in alike}
    unknown = [file for file, digest in known.items() if digest is None]
    step = bar(len(unknown), "hashing")
    for file, digest in zip(unknown, _in_threads(lambda f: _hash(files.names[f]), unknown, step), strict=True):
        stamp = seen[file].stamp
        if digest is not None and stamp is not None:
            known[file] = digest
            cache.keep(stamp, digest)
    groups: dict[str, list[int]] = defaultdict(list)
    for file, digest in known.items():
        if digest is not None:
            groups[digest].append(file)
    yield from twins(files, [group for group in groups.values() if len(group) > 1], "the content of")


def _known_hash(seen: Seen, cache: Cache) -> str | None:
    if seen.member is not None:
        return seen.member.digest
    return None if seen.stamp is None else cache.hash(seen.stamp)


def _hash(name: str) -> str | None:
    digest = hashlib.blake2b(digest_size=20)
    try:
        for block in _blocks(name):
            digest.update(block)
    except OSError:  # decoding reports it
        return None
    return digest.hexdigest()


def _blocks(name: str) -> Iterator[bytes]:
    if is_url(name):
        from umt.data.storage import remote

        try:
            yield remote.read(name)
        except remote.RemoteError as error:
            raise OSError(str(error)) from None
        return
    with open(name, "rb") as file:
        while block := file.read(_CHUNK):
            yield block


def decoded(
    files: Files, seen: Sequence[Seen], cache: Cache, bar: Bar, *, workers: int, limit: float, decoder: str
) -> tuple[dict[int, Facts], int]:
    """Facts of every file that can be opened, by its number; and how many were known from an earlier check."""
    facts: dict[int, Facts] = {}
    tasks: dict[int, Task] = {}
    for file, state in enumerate(seen):
        if state.problem or state.stamp is None:
            continue
        # A folder's time of change tells when a file was added or removed, not whether one was written again.
        known = cache.facts(state.stamp)
        if known is not None:
            facts[file] = known
        else:
            part = None if state.member is None else (state.member.url, state.member.start, state.member.size)
            tasks[file] = Task(files.names[file], int(files.frames[file]), part)
    before, numbers = len(facts), list(tasks)
    step = bar(len(tasks), "decoding")
    for place, result in look_at(list(tasks.values()), workers=workers, limit=limit, decoder=decoder):
        step()
        file = numbers[place]
        facts[file] = result
        stamp = seen[file].stamp
        if stamp is not None and result.problem not in ("hangs", "crashes"):  # these may be the machine's fault
            cache.keep(stamp, result)
    cache.flush()
    return facts, before


def of_facts(files: Files, facts: dict[int, Facts], clip: int) -> Iterator[Finding]:
    """Findings about decoded files; `clip`: frames that one clip spans."""
    for file in sorted(facts):
        for kind, detail in _judge(facts[file], clip):
            yield from (place.finding(kind, detail) for place in files.places(file))


def _judge(facts: Facts, clip: int) -> Iterator[tuple[str, str]]:
    if facts.problem:
        yield facts.problem, facts.cause
        return
    if facts.damaged:
        yield "damaged", f"{facts.damaged} errors from the decoder, first: {facts.damage}"
    if facts.announced and facts.announced != facts.frames:
        yield "frame_count", f"{facts.announced} announced, {facts.frames} decoded"
    if facts.frames < clip:
        yield "short", f"{facts.frames} frames, a clip spans {clip}"
    if facts.width % 2 or facts.height % 2:
        yield "odd_size", f"{facts.width} x {facts.height}"
