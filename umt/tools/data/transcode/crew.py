"""Transcodes in processes of their own: a video that hangs or kills its process is one failure, not the end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

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
    jobs: Iterable[Job], settings: Settings, *, workers: int, limit: float
) -> Iterator[tuple[Job, Outcome]]:
    """Every job with what became of it, in any order. Raises OutputError when the disk is full.

    A video that takes more than `limit` seconds, or whose process dies, has failed.
    """
    left = iter(jobs)
    crew = [_Worker(settings) for _ in range(workers)]
    try:
        while True:
            for worker in crew:
                if worker.job is None and (job := next(left, None)) is not None:
                    worker.give(job, limit)
            busy = [worker for worker in crew if worker.job is not None]
            if not busy:
                return
            pause = max(min(worker.deadline for worker in busy) - time.monotonic(), 0)
            wait([worker.connection for worker in busy], timeout=pause)
            for worker in busy:
                outcome = worker.outcome(limit)
                if outcome is None:
                    continue
                if isinstance(outcome, OutputError):
                    raise outcome
                assert worker.job is not None
                yield worker.job, outcome
                if worker.gone:
                    _remove_unfinished(worker.job)
                    crew[crew.index(worker)] = _Worker(settings)
                worker.job = None
    finally:
        for worker in crew:
            worker.end()
            if worker.job is not None:
                _remove_unfinished(worker.job)


def _remove_unfinished(job: Job) -> None:
    with suppress(FileNotFoundError):
        os.unlink(job.target + UNFINISHED)


class _Worker:
    def __init__(self, settings: Settings) -> None:
        # Spawned: nothing of this process, its threads above all, is in the way.
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end, settings), daemon=True)
        self._process.start()
        far_end.close()
        self.job: Job | None = None
        self.deadline = 0.0
        self.gone = False

    def give(self, job: Job, limit: float) -> None:
        self.job, self.deadline = job, time.monotonic() + limit
        with suppress(BrokenPipeError):  # it died meanwhile, which `outcome` finds
            self.connection.send(job)

    def outcome(self, limit: float) -> Outcome | OutputError | None:
        """What became of the job; None: it is still being done."""
        try:
            if self.connection.poll():
                answer: Outcome | OutputError = self.connection.recv()
                return answer
        except (EOFError, ConnectionResetError):
            self._process.join()
            self.gone = True
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"the process that transcoded it died: {how}"
        if time.monotonic() < self.deadline:
            return None
        self.end()
        self.gone = True
        return f"no end after {limit:g} s (--time_limit)"

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection[Any, Any], settings: Settings) -> None:
    import av

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    av.logging.set_level(av.logging.PANIC)  # decoders' complaints; what matters comes as an error
    with suppress(EOFError, BrokenPipeError):  # the parent has gone
        while True:
            job = connection.recv()
            answer: Written | str | OutputError
            try:
                answer = transcode(job.source, job.target, settings)
            except (VideoError, OSError) as error:
                answer = str(error)
            except OutputError as error:
                answer = error
            connection.send(answer)
