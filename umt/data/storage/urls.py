"""What is a URL, and how paths are joined to one. No fsspec here: a local run never imports it."""

from __future__ import annotations

import os
import re

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is read through fsspec: `s3://bucket/key`, `https://host/file` and so on."""
    return _URL.match(os.fspath(path)) is not None


def join(prefix: str, path: str) -> str:
    """`path` below `prefix`, a folder or URL; a `path` that is absolute or a URL is returned as it is."""
    if is_url(path):
        return path
    if is_url(prefix):
        return f"{prefix.rstrip('/')}/{path.lstrip('/')}" if not prefix.endswith("://") else prefix + path
    return os.path.join(prefix, path)


def protocol(url: str) -> str:
    """`s3` of `s3://bucket/key`."""
    return url.split("://", 1)[0].lower()
