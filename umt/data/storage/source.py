"""Opens the rows of a list, whether they are local files, URLs or members of tar shards."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from umt.data.lists.video_list import VideoList
from umt.data.storage import remote
from umt.data.storage.cache import Cache
from umt.data.storage.frames import RemoteFrames
from umt.data.storage.lending import Lent, path_of_bytes, path_of_part, renamed
from umt.data.storage.shards import Member, Shards, open_shards
from umt.data.storage.urls import is_url
from umt.data.video import guard
from umt.data.video.decoders import VideoReader
from umt.data.video.probe import unreadable
from umt.data.video.reader import open_folder
from umt.errors import VideoError


@dataclass(frozen=True)
class Storage:
    """Where the bytes of a list's rows are. Plain values: every process that reads makes its own clients.

    Attributes:
        shards: the tar shards that hold the rows; None: each row is a file or URL of its own.
        cache: keeps copies of what comes from a remote store; None: no copies.
        whole_shards: with shards and cache: remote shards are copied as a whole, not video by video.
    """

    shards: Shards | None = None
    cache: Cache | None = None
    whole_shards: bool = False

    def open(
        self, videos: VideoList, row: int, read: Callable[[str], VideoReader], *, alone: bool = False
    ) -> VideoReader:
        """The reader that `read` opens on a local path of the row's bytes. Raises VideoError naming the row.

        `alone`: nothing else of its shard will be needed, so the shard is not copied as a whole.
        """
        name = self.name(videos, row)
        if self.shards is None and not is_url(name):
            return read(name)
        resources = contextlib.ExitStack()
        try:
            path = resources.enter_context(self.path(videos, row, alone=alone))
            try:
                reader = read(path)
            except VideoError as error:
                raise renamed(error, path, name) from None
        except BaseException:
            resources.close()
            raise
        return Lent(name, path, reader, resources)

    def open_frames(self, videos: VideoList, row: int, length: int | None, template: str | None) -> VideoReader:
        """The row's folder of frames: `length` images named by `template`, or all of them. Raises VideoError."""
        name = self.name(videos, row)
        if self.shards is None and is_url(name):
            return RemoteFrames(name, length, template, self._remote_file)
        return open_folder(name, length, template)

    @contextlib.contextmanager
    def path(self, videos: VideoList, row: int, *, alone: bool = False) -> Iterator[str]:
        """A local path of the row's bytes, valid in the context. Raises VideoError naming the row."""
        name = self.name(videos, row)
        with contextlib.ExitStack() as resources:
            try:
                guard.end()  # a slow store is not a decoder that hangs; requests have their own time-outs
                path = resources.enter_context(self._path(videos, row, name, alone))
                guard.begin(name)
            except remote.MissingError as error:
                raise unreadable(name, f"{error}; is --prefix right?") from None
            except remote.RemoteError as error:
                raise unreadable(name, error) from None
            except OSError as error:
                raise unreadable(name, error.strerror or error) from None
            yield path

    def name(self, videos: VideoList, row: int) -> str:
        """The file, URL or member of a shard that the row is, for messages."""
        return videos.file(row) if self.shards is None else self.shards.name(row, videos.path(row))

    def there(self, videos: VideoList, row: int) -> bool:
        """Whether the row's file, folder, object or member exists. Raises VideoError where a store does not answer."""
        name = self.name(videos, row)
        if self.shards is not None:
            return self.shards.member(row) is not None
        try:
            return remote.exists(name) if is_url(name) else os.path.exists(name)
        except remote.RemoteError as error:
            raise unreadable(name, error) from None

    @property
    def fetches_shards(self) -> bool:
        """Whether remote shards are copied as a whole."""
        return self.shards is not None and self.cache is not None and self.whole_shards and is_url(self.shards.folder)

    def ahead(self, row: int) -> None:
        """Fetches the shard of a row that will be needed into the cache. Errors are left to the reader of the row."""
        member = None if self.shards is None else self.shards.member(row)
        if member is None or self.cache is None or not self.fetches_shards:
            return
        with contextlib.suppress(remote.RemoteError):
            self.cache.ahead(_shard_key(member), member.shard_size, lambda path: _download_shard(member, path))

    # ---- paths, by kind

    def _path(self, videos: VideoList, row: int, name: str, alone: bool) -> contextlib.AbstractContextManager[str]:
        if self.shards is None:
            return self._remote_file(name) if is_url(name) else contextlib.nullcontext(name)
        member = self.shards.member(row)
        if member is None:
            raise remote.MissingError(f"not in the shards of {self.shards.folder}")
        if not is_url(member.url):
            return path_of_part(member.url, member.start, member.size)
        return self._remote_member(member, alone)

    @contextlib.contextmanager
    def _remote_file(self, url: str) -> Iterator[str]:
        if self.cache is not None:
            with contextlib.ExitStack() as resources:
                held = None
                with contextlib.suppress(remote.UnsizedError):
                    held = resources.enter_context(self._cached_file(self.cache, url))
                if held is not None:
                    yield held
                    return
        with path_of_bytes(remote.read(url)) as path:
            yield path

    @staticmethod
    def _cached_file(cache: Cache, url: str) -> contextlib.AbstractContextManager[str | None]:
        facts = remote.stat(url)
        return cache.get(
            f"{url}\n{facts.tag}\n{facts.size}", facts.size, lambda path: remote.download(url, path, facts.size)
        )

    @contextlib.contextmanager
    def _remote_member(self, member: Member, alone: bool) -> Iterator[str]:
        if self.cache is None:
            with path_of_bytes(_fetch(member)) as path:
                yield path
            return
        if self.whole_shards and not alone:
            with self.cache.get(
                _shard_key(member), member.shard_size, lambda path: _download_shard(member, path)
            ) as shard:
                if shard is not None:
                    with path_of_part(shard, member.start, member.size) as path:
                        yield path
                    return
        else:
            with self.cache.get(
                f"{member.url}\n{member.digest}\n{member.size}", member.size, lambda path: _write(path, _fetch(member))
            ) as held:
                if held is not None:
                    yield held
                    return
        with path_of_bytes(_fetch(member)) as path:
            yield path


PLAIN_FILES = Storage()


def storage_of(videos: VideoList, *, cache: Cache | None = None, whole_shards: bool = False) -> Storage:
    """Where the rows of `videos` are: in shards if its prefix is a folder that `umt data shard` has written.

    Raises AnnotationError for a damaged index.
    """
    return Storage(open_shards(videos), cache, whole_shards)


def _fetch(member: Member) -> bytes:
    content = remote.read(member.url, member.start, member.size)
    if hashlib.sha256(content).hexdigest() != member.digest:
        raise remote.RemoteError(f"{member.url} does not hold the bytes that its index says; is it complete?")
    return content


def _write(path: str, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(content)


def _shard_key(member: Member) -> str:
    return f"{member.url}\n{member.shard_digest}\n{member.shard_size}"


def _download_shard(member: Member, path: str) -> None:
    remote.download(member.url, path, member.shard_size)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while content := file.read(1 << 22):
            digest.update(content)
    if digest.hexdigest() != member.shard_digest:
        raise remote.RemoteError(f"{member.url} does not hold the bytes that its index says; is it complete?")
