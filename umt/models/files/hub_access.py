"""Asking the Hugging Face hub: no long retries where it cannot be reached, and sentences for its errors. No torch."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from umt.errors import CheckpointError, install

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


@contextlib.contextmanager
def hub_errors(
    name: str, repository: str, *, file: str | None = None, revision: str | None = None, uploading: bool = False
) -> Iterator[None]:
    """Errors of the hub's package become `CheckpointError`s that begin with `name`; also where it is not installed."""
    try:
        from huggingface_hub import errors
    except ImportError:
        raise CheckpointError(f"{name} needs huggingface_hub. Run: {install('hub')}") from None
    http_error: Any = errors.HfHubHTTPError.__bases__[0]  # of its HTTP client, which differs between its versions
    login = "run: hf auth login"
    try:
        yield
        return
    except errors.GatedRepoError:
        why = f" is behind a licence form: accept it on https://huggingface.co/{repository}, then {login}"
    except errors.RepositoryNotFoundError:
        why = f": the hub has no {repository}, or it is private. Check the name, or {login}"
    except errors.RevisionNotFoundError:
        why = f": {repository} has no revision {revision}. Leave it out for the newest."
    except errors.LocalTokenNotFoundError:
        why = f": the hub does not know who you are. To log in, {login}"
    except errors.HFValidationError as error:
        why = f" is not a name of the hub: {_first(error)}"
    except errors.EntryNotFoundError as error:
        local = isinstance(error, errors.LocalEntryNotFoundError)
        why = (
            _unreachable(error, uploading)
            if local
            else f": {repository} has no file {file}. Look at its files on the hub."
        )
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        why = f": the hub refuses, {status}: {_first(error)}."
        why += f" To log in, {login}" if status in (401, 403) else ""
    except (OSError, http_error, errors.OfflineModeIsEnabled) as error:
        why = _unreachable(error, uploading)
    raise CheckpointError(f"{name}{why}")


def _unreachable(error: Exception, uploading: bool) -> str:
    if uploading:
        return f": the hub cannot be reached ({_first(error)}). Try where there is a network, or use a folder."
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
    return (
        f" is not in the hub's cache here, and {why}. Fetch it where there is a network (hf download), or name a file."
    )


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
