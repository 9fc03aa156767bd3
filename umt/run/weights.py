"""The weights that a run starts from, where they lie elsewhere: fetched once, and recorded with their hash."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from umt.engine import runtime
from umt.errors import UserError
from umt.models.files.fetch import fetch, is_remote, path_here
from umt.models.files.opened import sha256_of

log = logging.getLogger(__name__)


def at_hand(source: str) -> None:
    """Fetches `source` if it lies elsewhere: the main process first, while the others wait, then they find it there.

    Those on a machine that does not share its cache fetch it themselves, one at a time. Raises CheckpointError in all
    processes alike.
    """
    if not source or not is_remote(source):
        return
    failed: UserError | None = None
    if runtime.is_main():
        try:
            log.info("%s: %s", source, fetch(source))
        except UserError as error:  # the other ranks wait for this one: they raise the same
            failed = error
    failed = runtime.broadcast_object(failed)
    if failed is not None:
        raise failed
    fetch(source)


def started_from(weights: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Flag -> source and sha256 of the weights that a run started from; without a hash where they are a folder."""
    sources: dict[str, dict[str, str]] = {}
    for flag, source in weights.items():
        path = path_here(source)
        sources[flag] = {"source": source, **({"sha256": sha256_of(path)} if path and path.is_file() else {})}
    return sources
