"""Processes that look at files, replaced when a file kills or hangs them."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from umt.errors import UserError
from umt.tools.data.check.looking import Facts

_START = 300.0  # seconds that a process may take to import its decoders, from a slow disk too
_GRACE = 5.0  # seconds after its limit in which a process should have ended itself


class Task(NamedTuple):
    """A file to look at; `frames` is -1 for a video, else the listed number of images in a folder.

    `part`: the tar file, place and size of one that is in a shard.
    """

    file: int
    path: str
    frames: int
    part: tuple[str, int, int] | None = None


def look_at(tasks: Iterable[Task], *, workers: int, limit: float, decoder: str) -> Iterator[tuple[Task, Facts]]:
    """Facts of each file, in any order. A file that takes more than `limit` seconds or kills its process says so.

    `limit` 0: none.
    """
    source, lock, stop = iter(tasks), threading.Lock(), threading.Event()
    answers: queue.Queue[tuple[Task, Facts] | Exception | None] = queue.Queue(maxsize=64 * workers)
    crew: set[_Worker] = set()

    def tend() -> None:
        worker: _Worker | None = None
        try:
            while not stop.is_set():
                with lock:
                    task = next(source, None)
                if task is None:
                    break
                if worker is None:
                    worker = _Worker()
                    crew.add(worker)
                facts = worker.ask(task, decoder, limit)
                if facts.problem in ("hangs", "crashes"):
                    crew.discard(worker)
                    worker.end()
                    worker = None
                answers.put((task, facts))
        except Exception as error:  # noqa: BLE001 (handed to the thread that asked)
            answers.put(error)
        finally:
            if worker is not None:
                crew.discard(worker)
                worker.end()
            answers.put(None)

    threads = [threading.Thread(target=tend, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        left = len(threads)
        while left:
            answer = answers.get()
            if isinstance(answer, Exception):
                raise answer
            if answer is None:
                left -= 1
            else:
                yield answer
    finally:
        stop.set()
        while any(thread.is_alive() for thread in threads):
            for worker in list(crew):
                worker.kill()
            with suppress(queue.Empty):  # some may wait to put an answer that nobody wants
                answers.get(timeout=0.1)


class _Worker:
    """A process of `umt.tools.data.check.worker`."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "umt.tools.data.check.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            if not self._line(_START):
                self.end()
                said.seek(0)
                last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                raise UserError(f"The process that decodes does not start: {(last or ['it says nothing'])[0]}")

    def ask(self, task: Task, decoder: str, limit: float) -> Facts:
        assert self._process.stdin is not None
        question = {**task._asdict(), "decoder": decoder, "limit": limit}
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            line = self._line(limit + _GRACE if limit else None)
        except BrokenPipeError:
            line = b""
        if line:
            return Facts(**json.loads(line))
        code = self._process.poll() if line is None else self._process.wait()
        if line is None or code == -signal.SIGALRM:
            return Facts("hangs", f"no end after {limit:g} s")
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return Facts("crashes", f"the process that decoded it died: {name}")

    def _line(self, seconds: float | None) -> bytes | None:
        """What the process says next: b"" when it has ended, None when it says nothing for so long (None: for ever)."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else None

    def kill(self) -> None:
        """Ends it in the middle of what it does; whoever waits for it learns so."""
        self._process.kill()

    def end(self) -> None:
        """Kills and buries it. One that hangs in the kernel, on a disk that is gone, is left to its fate."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
