"""Asking the Hugging Face hub without its package's long retries: offline, one sentence comes at once. No torch."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

_TIMEOUT = 5.0  # seconds for a connection
_BELIEVED = 60.0  # seconds for which an answer is kept: the network may come back
_REPORTS_RETRIES = "huggingface_hub.utils._http"


def hub_is_reachable() -> bool:
    """Whether the hub accepts a connection. Behind a proxy it is not tried: only the proxy would know."""
    from huggingface_hub import constants

    if urllib.request.getproxies().keys() & {"http", "https", "all"}:
        return True
    return _connects(constants.ENDPOINT, int(time.monotonic() / _BELIEVED))


@functools.lru_cache(maxsize=8)
def _connects(address: str, _: int) -> bool:
    parts = urllib.parse.urlsplit(address)
    try:
        where = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
        with socket.create_connection(where, timeout=_TIMEOUT):
            return True
    except (OSError, ValueError):  # ValueError of a port or host name that is none
        return False


@contextlib.contextmanager
def asking_the_hub() -> Iterator[None]:
    """Inside, the hub's package does not report retries, and uses only its cache where the hub cannot be reached.

    That is its own offline mode, which is otherwise set before the package is imported.
    """
    try:
        from huggingface_hub import constants
    except ImportError:  # the caller says what to install, if it is needed
        yield
        return
    log = logging.getLogger(_REPORTS_RETRIES)
    level, offline = log.level, constants.HF_HUB_OFFLINE
    log.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = offline or not hub_is_reachable()
    try:
        yield
    finally:
        log.setLevel(level)
        constants.HF_HUB_OFFLINE = offline
