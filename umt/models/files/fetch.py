"""Weights by any of the names that people have for them, as a file or folder on this machine. No torch.

    fetch("weights.pth"), fetch("https://host/weights.pth#sha256=0123..."), fetch("hf://OpenGVLab/UMT/FILE"),
    fetch("b16_ptk710_ftk710_ftk400_f8_res224")

Files by URL lie in `cache_folder()`, those of the hub in its own cache. A download is written under a temporary name
and renamed when it is whole; one that was cut off continues where it stopped; of processes that want the same file one
fetches it and the others wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from umt.errors import CheckpointError
from umt.models.files import published
from umt.models.files.hub_access import asking_the_hub, hub_errors
from umt.models.files.opened import open_file, what_it_is_instead

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_HEX = re.compile(r"[0-9a-f]{64}")
# What of a hub's repository is a model: its descriptions and its weights, in the first of the forms that it has.
_DESCRIPTIONS = ["*.json", "*.txt", "README.md"]
_WEIGHTS = ["model*.safetensors", "pytorch_model*.bin", "open_clip*.safetensors", "open_clip*.bin"]


def is_remote(source: str) -> bool:
    """Whether `source` is a URL, a name of the hub, or a row of the published zoo that is no file here."""
    name = source.split("#sha256=")[0]
    if name.startswith(("https://", "http://", "hf://")):
        return True
    return not os.path.exists(name) and published.find(name) is not None


def path_here(source: str) -> Path | None:
    """Where `source` lies on this machine, without asking any network; None if it would have to be fetched."""
    name = source.split("#sha256=")[0]
    if not is_remote(name):
        path = Path(name).expanduser()
        return path if path.exists() else None
    row = published.find(name) if "://" not in name else None
    place = _cached(row.url if row else name)
    if place.exists():
        return place
    repo, revision, file = _hub_name(f"{published.MIRROR}/{row.file}" if row else name) or ("", None, None)
    if not file:
        return None
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    cached = try_to_load_from_cache(repo, file, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def hint(name: str) -> str:
    """What to do about a path that does not exist: the published names that it resembles; "" if there are none."""
    near = published.nearest(name) if "/" not in name else []
    return f"The nearest published weights are {' and '.join(near)}." if near else ""


def cache_folder() -> Path:
    """Where files by URL are kept: UMT_CACHE, else umt in XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get("UMT_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "umt"


def fetch(source: str | os.PathLike[str], *, sha256: str = "") -> Path:
    """The file or folder that `source` names, on this machine; downloaded if it is not.

    Args:
        source: a path; https://...; hf://OWNER/REPO/FILE or hf://OWNER/REPO (@REVISION may follow REPO);
            or a name of the published zoo. `#sha256=HEX` after it is the hash that the file must have.
        sha256: the same, as a keyword.

    Raises `CheckpointError`.
    """
    name, _, suffix = str(source).partition("#sha256=")
    expected = (sha256 or suffix).lower()
    if expected and not _HEX.fullmatch(expected):
        raise CheckpointError(
            f"{source}: a sha256 has 64 hexadecimal digits, and '{expected}' does not. Copy it whole."
        )
    path = _place_of(name)
    if expected:
        _check_hash(path, expected, name)
    return path


def _place_of(name: str) -> Path:
    if name.startswith("hf://"):
        return _from_hub(name)
    if name.startswith(("https://", "http://")):
        return _from_url(name)
    path = Path(name).expanduser()
    if path.exists():
        return path
    row = published.find(name)
    if row is not None:
        return _from_zoo(row)
    raise CheckpointError(f"{name} does not exist. {hint(name) or 'Check the path of the weights.'}")


def _check_hash(path: Path, expected: str, name: str) -> None:
    if path.is_dir():
        raise CheckpointError(f"{name} is a folder, which has no sha256. Name the file of weights in it.")
    digits = open_file(path).sha256()  # it stays open for what reads it next
    if digits != expected:
        raise CheckpointError(
            f"{name} has the sha256 {digits}, not {expected}: it is another file, or damaged. "
            f"Remove {path} and fetch it again, or correct the hash."
        )


# ---- by URL


def _cached(url: str) -> Path:
    """The place of a file by URL in the cache; the folder's name distinguishes files of one name."""
    try:
        path = urllib.parse.urlsplit(url).path
    except ValueError as error:
        raise CheckpointError(f"{url} cannot be fetched: {error}. Check the link.") from None
    folder = cache_folder() / "weights" / hashlib.sha256(url.encode()).hexdigest()[:16]
    return folder / (Path(urllib.parse.unquote(path)).name or "weights")


def _from_url(url: str) -> Path:
    path = _cached(url)
    folder = path.parent
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / ".lock"):
            if not path.exists():
                _download(url, path)
    except urllib.error.HTTPError as error:
        raise CheckpointError(
            f"{url} cannot be fetched: the server says {error.code} {error.reason}. Check the link, or name a file."
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CheckpointError(
            f"{url} cannot be fetched: {reason}. Check the network, or fetch it elsewhere and name the file."
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{url} cannot be kept in {folder}: {error.strerror or error}. "
            "Free some space, or name another folder in UMT_CACHE."
        ) from None
    return path


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Waits until no other process fetches the same file."""
    with lock.open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: two processes may both download; whole files still take each other's place
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(url: str, path: Path) -> None:
    part, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".tag")
    headers = {"User-Agent": "umt", "Accept-Encoding": "identity"}
    known = tag.read_text() if tag.exists() and part.exists() else ""
    if known:  # the server sends the rest only if the file is still the same
        headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": known}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not known:
            raise
        part.unlink()
        return _download(url, path)
    with answer:
        start = part.stat().st_size if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        if not start:  # what is there is part of another file, and must not get the new one's tag
            part.unlink(missing_ok=True)
        tag.write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        with part.open("ab" if start else "wb") as file, _bar(path.name, start, total) as bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    received = part.stat().st_size
    if total is not None and received != total:
        raise CheckpointError(
            f"{url} was cut off after {received} of {total} bytes. "
            "Start the same command again: it continues from there."
        )
    with part.open("rb") as file:
        beginning = file.read(512)
    if problem := what_it_is_instead(beginning):
        part.unlink()
        raise CheckpointError(f"{url} is {problem}")
    os.replace(part, path)
    tag.unlink()


def _bar(name: str, start: int, total: int | None) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(desc=name, initial=start, total=total, unit="B", unit_scale=True, leave=False, disable=None)


class _NoBar(contextlib.nullcontext[Any]):
    def __enter__(self) -> _NoBar:
        return self

    def update(self, n: int) -> None:
        pass


# ---- by name


def _from_zoo(row: published.Published) -> Path:
    try:
        return _from_url(row.url)
    except CheckpointError as first:
        try:
            return _from_hub(f"{published.MIRROR}/{row.file}")
        except CheckpointError as second:
            raise CheckpointError(f"{row.name} has two addresses, and neither works. {first} {second}") from None


def _hub_name(name: str) -> tuple[str, str | None, str | None] | None:
    """hf://OWNER/REPO@REVISION/FILE in its parts; None for another name."""
    match = re.fullmatch(r"hf://(?:models/)?([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?", name.rstrip("/"))
    return None if match is None else (match[1], match[2], match[3])


def _from_hub(name: str) -> Path:
    parts = _hub_name(name)
    if parts is None:
        raise CheckpointError(f"{name} is not a name of the hub. It reads hf://OWNER/REPO/FILE, or hf://OWNER/REPO.")
    repo, revision, file = parts
    with hub_errors(name, repo, file=file, revision=revision), asking_the_hub():
        import huggingface_hub

        if file:
            return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
        for pattern in _WEIGHTS:
            files = [*_DESCRIPTIONS, pattern]
            folder = Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=files))
            if any(folder.glob(pattern)):
                return folder
    raise CheckpointError(f"{name} has no {' or '.join(_WEIGHTS)}. Name the file: {name}/FILE")
