"""Reads URLs through fsspec: whole objects, ranges of them, and facts about them.

Every process makes its own clients, at its first read. A client that a fork copied shares sockets and an event loop
with its parent, so it is never used; nor is it ever deleted, since closing it would close the parent's.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from umt.data.storage.urls import protocol
from umt.errors import AnnotationError, ConfigError, install

ATTEMPTS = 4  # of any request, in all
PAUSE = 0.5  # seconds before the second attempt; doubled before each further one
SILENCE = 30.0  # seconds without a byte after which an attempt has failed
_BLOCK = 32 << 20  # bytes of one request of a download

T = TypeVar("T")

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp",
             "hf": "huggingface_hub"}  # fmt: skip
_clients: dict[tuple[int, str], Any] = {}
_making = threading.Lock()


def _forked() -> None:
    """A thread of the parent may have held the lock at the moment of the fork, and is not here to release it."""
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class RemoteError(Exception):
    """A URL that cannot be read. The text is the cause in a few words; the caller knows the URL."""


class MissingError(RemoteError):
    """There is no such bucket or object."""


class UnsizedError(RemoteError):
    """The store does not say the size of an object."""


@dataclass(frozen=True)
class Stat:
    """What a store says of an object. `tag` changes when its content does; "" where a store has none."""

    size: int
    tag: str = ""


def client(url: str) -> Any:
    """This process's fsspec file system for `url`. Raises ConfigError where a package is missing."""
    name = protocol(url)
    key = (os.getpid(), name)
    with _making:
        if key not in _clients:
            _clients[key] = _new_client(name)
        return _clients[key]


def _new_client(name: str) -> Any:
    package = _PACKAGES.get(name, "fsspec")
    try:
        import fsspec

        # No listings are kept: a file that is there now must be seen now.
        filesystem = fsspec.filesystem(name, skip_instance_cache=True, use_listings_cache=False, **_options(name))
        if hasattr(filesystem, "retries"):
            filesystem.retries = 1
        return filesystem
    except ImportError as error:
        missing = error.name or package
        raise ConfigError(
            f"{name}:// needs the package {missing}, which is not installed. "
            f"Try {install('gs' if package == 'gcsfs' else 'storage')}."
        ) from None
    except ValueError:
        raise ConfigError(
            f"{name}:// is not a kind of URL that fsspec knows. It reads s3://, gs://, hf://, https:// and others."
        ) from None


def _options(name: str) -> dict[str, Any]:
    """Options by which a client soon stops waiting for a silent store, and leaves trying again to `_try`.

    Attempts within attempts take minutes. Everything else that the user has configured for fsspec is kept.
    """
    from fsspec.config import conf

    configured = conf.get(name, {})
    if _PACKAGES.get(name) == "s3fs":
        settings = {
            "read_timeout": SILENCE,
            **configured.get("config_kwargs", {}),
            "retries": {"total_max_attempts": 1},
        }
        return {"config_kwargs": settings}
    if _PACKAGES.get(name) == "aiohttp":
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
        return {"client_kwargs": {"timeout": timeout, **configured.get("client_kwargs", {})}}
    return {}


def stat(url: str) -> Stat:
    """Size and tag of an object. Raises RemoteError."""
    facts = _try(url, lambda fs: fs.info(url))
    if facts.get("type") == "directory":
        raise MissingError("a folder, not a file")
    if facts.get("size") is None:
        raise UnsizedError("its size is not known")
    tags = (facts.get(name) for name in ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "created"))
    return Stat(int(facts["size"]), next((str(tag).strip('"') for tag in tags if tag), ""))


def exists(url: str) -> bool:
    """Whether there is such an object or folder. Raises RemoteError where the store does not say."""
    try:
        _try(url, lambda fs: fs.info(url))
    except MissingError:
        return False
    return True


def names(url: str) -> list[str]:
    """Names of the objects in a folder. Raises RemoteError."""
    paths = _try(url, lambda fs: fs.ls(url, detail=False))
    return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths]


def read(url: str, start: int = 0, size: int | None = None) -> bytes:
    """`size` bytes of an object from `start` on; without `size` all of it. Raises RemoteError, also for fewer."""
    if size == 0:
        return b""

    def once(fs: Any) -> bytes:
        content: bytes = fs.cat_file(url) if size is None else fs.cat_file(url, start=start, end=start + size)
        if size is not None and len(content) >= start + size > size:
            content = content[start : start + size]  # a server that knows no ranges sends everything
        if size is not None and len(content) != size:
            raise OSError(f"{len(content)} bytes came instead of {size}")
        return content

    return _try(url, once)


def read_list(url: str) -> bytes:
    """The content of a list of videos. Raises AnnotationError that says why it cannot be read."""
    try:
        return read(url)
    except MissingError as error:
        raise AnnotationError(f"{url} does not exist: {error}. Check the path.") from None
    except RemoteError as error:
        raise AnnotationError(f"{url} cannot be read: {error}.") from None


def download(url: str, path: str, size: int) -> None:
    """Writes an object of `size` bytes into the local file `path`, which exists. Raises RemoteError, and OSError."""
    with open(path, "r+b") as file:
        for start in range(0, size, _BLOCK):
            file.write(read(url, start, min(_BLOCK, size - start)))


def _try(url: str, once: Callable[[Any], T]) -> T:
    """`once` with a client, again after errors that may pass. Raises RemoteError."""
    fs = client(url)
    for attempt in range(ATTEMPTS):
        try:
            return once(fs)
        except _failures() as raised:
            error = _cause(raised)
            final = _final(error)
            if final is not None:
                raise final from None
            if attempt + 1 == ATTEMPTS:
                words = " ".join(str(error).split())[:200]
                raise RemoteError(f"{type(error).__name__}: {words}, after {ATTEMPTS} attempts") from None
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError("unreachable")


def _cause(error: Exception) -> Exception:
    """The true cause: fsspec reports any answer of a web server, and none, as a file that is not there."""
    cause = error.__cause__
    hidden = isinstance(cause, Exception) and type(cause).__module__.startswith("aiohttp")
    return cause if hidden and isinstance(cause, Exception) else error


def _failures() -> tuple[type[Exception], ...]:
    """What the stores' libraries raise, of those that are loaded."""
    kinds: list[type[Exception]] = [OSError, TimeoutError, ValueError]
    for module, names in _RAISED.items():
        loaded = sys.modules.get(module)
        kinds += [getattr(loaded, name) for name in names if hasattr(loaded, name)]
    return tuple(kinds)


_RAISED = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "asyncio": ("TimeoutError",),
    "fsspec.exceptions": ("FSTimeoutError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "gcsfs.retry": ("HttpError",),
    "huggingface_hub.errors": ("HfHubHTTPError",),
    "httpx": ("HTTPError",),
    "httpx2": ("HTTPError",),
}


def _final(error: Exception) -> RemoteError | None:
    """The error in words if a second attempt cannot help; None if it may."""
    text, name = str(error), type(error).__name__
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if name in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "TokenRetrievalError"):
        return RemoteError(
            "no credentials; for s3:// set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "and for a public bucket FSSPEC_S3_ANON=true"
        )
    if isinstance(error, FileNotFoundError) or status == 404:
        bucket = "bucket" in text.lower() and "not exist" in text.lower()
        return MissingError("no such bucket" if bucket else "no such object")
    if isinstance(error, PermissionError) or status in (401, 403):
        return RemoteError(f"access denied: {' '.join(text.split())[:200] or 'check the credentials'}")
    if isinstance(error, IsADirectoryError):
        return MissingError("a folder, not a file")
    return RemoteError(" ".join(text.split())[:200]) if isinstance(error, ValueError) else None
