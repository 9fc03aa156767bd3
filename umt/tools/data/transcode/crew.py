"""Transcodes in processes of their own: a video that hangs or kills its process is one failure, not the end."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from umt.data.loading.pool import Pool
from umt.errors import OutputError, VideoError
from umt.tools.data.transcode.encode import UNFINISHED, Settings, Written, transcode


@dataclass(frozen=True)
class Job:
    """A video and where its copy goes, both as paths; `name` is the copy's path within --out."""

    source: str
    target: str
    name: str


Outcome = Written | str  # of a failure its cause


def transcode_all(
    jobs: Sequence[Job], settings: Settings, *, workers: int, limit: float
) -> Iterator[tuple[Job, Outcome]]:
    """Every job with what became of it, in any order. Raises OutputError when the disk is full.

    A video that takes more than `limit` seconds, or whose process dies, has failed.
    """
    if not jobs:
        return
    # Spawned: small, and nothing of this process, its threads above all, is in the way.
    pool = Pool(
        functools.partial(_transcode, settings=settings),
        workers=min(workers, len(jobs)),
        prefetch=1,
        start_method="spawn",
        timeout=limit,
        start=_start,
        lost=functools.partial(_lost, limit=limit),
    )
    try:
        for number, outcome in pool.finished(jobs):
            if isinstance(outcome, OutputError):
                raise outcome
            yield jobs[number], outcome
    finally:
        pool.close()


def _start() -> None:
    import av

    av.logging.set_level(av.logging.PANIC)  # decoders' complaints; what matters comes as an error


def _transcode(job: Job, settings: Settings) -> Outcome | OutputError:
    try:
        return transcode(job.source, job.target, settings)
    except (VideoError, OSError) as error:
        return str(error)
    except OutputError as error:
        return error


def _lost(job: Job, how: str, limit: float) -> str:
    """The cause, where the process of a job has ended; takes away what it had written of the copy."""
    with suppress(OSError):
        os.unlink(job.target + UNFINISHED)
    return f"transcoding it ended with {how}" if how else f"no end after {limit:g} s (--time_limit)"
