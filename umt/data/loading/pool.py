"""Processes that make the items of a plan ahead, and outlive a reader that hangs or crashes.

torch's DataLoader ends with its first dead worker and waits indefinitely for a hanging one. Here a worker that reads
one file for too long is killed, one that has died is noticed, and both are replaced. The caller chooses what becomes of
their items:

- by default its file is refused from then on (`umt.data.video.guard`) and another worker makes the same items again. So
  no item is lost, and the result is the same wherever and whenever it happens;
- with `lost`, where an item is a file, that item is settled at once by what `lost` returns for it.

A thread of the parent hands out the work, collects what comes back and looks after the workers; the consumer only takes
finished items.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.util
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from multiprocessing.connection import Connection
from typing import Any

from umt.data.loading.worker import Raised, work
from umt.data.video.guard import Board
from umt.errors import UserError

log = getLogger(__name__)

TICK = 1.0  # seconds between two looks at what the workers read
CRASHES = 2  # of one file until it is refused: a single one may be the machine's fault
DEATHS = 3  # of workers that were reading nothing, until the run stops
AHEAD = 64  # items for each worker that may wait for the consumer of `Pool.finished`

Lost = Callable[[Any, str], Any]


@dataclass
class _Worker:
    process: Any
    pipe: Connection[Any, Any]
    board: Board
    refused: int = 0  # files that it knows not to read
    doing: set[tuple[int, int]] = field(default_factory=set)  # (plan, number) handed out and not come back
    written: int = -1  # the state of its board at the last look
    looked: float = 0.0
    stuck: float = 0.0  # seconds that the board has been seen unchanged


class _Crew:
    """The workers and the thread that serves them. Everything here but `_lock`'s users runs in that thread."""

    def __init__(
        self,
        make: Callable[[Any], Any],
        *,
        workers: int,
        prefetch: int,
        start_method: str | None,
        timeout: float,
        start: Callable[[], None],
        receive: Callable[[Any], Any],
        lost: Lost | None,
    ) -> None:
        self._make, self._start, self._receive, self._lost = make, start, receive, lost
        self._timeout, self._prefetch = timeout, prefetch
        self._context: Any = multiprocessing.get_context(start_method)
        self._refused: list[tuple[str, str]] = []
        self._crashes: Counter[str] = Counter()
        self._deaths = 0
        self._lock = threading.Condition()
        self._turn = 0  # counts the plans; items of an earlier plan are dropped
        self._plan: Sequence[Any] = ()
        self._todo: list[int] = []  # numbers to hand out before those from `_fresh` on: their workers were lost
        self._fresh = self._taken = self._ahead = 0
        self._ready: dict[int, Any] = {}
        self._ended = self._closing = False
        self._failure: Exception | None = None
        self._bell, self._ring = multiprocessing.Pipe(duplex=False)
        self._workers = [self._hire() for _ in range(workers)]
        self._thread = threading.Thread(target=self._serve, name="loader", daemon=True)
        self._thread.start()

    # ---- the consumer's side

    def begin(self, plan: Sequence[Any], ahead: int) -> int:
        with self._lock:
            self._turn += 1
            self._plan, self._todo, self._fresh, self._taken = plan, [], 0, 0
            self._ahead = ahead * len(self._workers)
            self._ready.clear()
        self._wake()
        return self._turn

    def take(self, turn: int, number: int | None = None) -> tuple[int, Any]:
        """Item `number`, or the next one that is ready, with its number."""
        with self._lock:
            while number not in self._ready if number is not None else not self._ready:
                if self._failure is not None or self._ended or turn != self._turn:
                    raise self._failure or RuntimeError("no more batches: others were asked for, or the run has ended")
                self._lock.wait()
            if number is None:
                number = next(iter(self._ready))
            item = self._ready.pop(number)
            self._taken += 1
        self._wake()
        if isinstance(item, Raised):
            raise RuntimeError(f"a process that loads data stopped with an error:\n{item.text}")
        return number, item

    def close(self) -> None:
        self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            _end(worker)
            self._settle(worker, signal.SIGKILL.name)
        self._bell.close()
        self._ring.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # closed
            self._ring.send_bytes(b"")

    # ---- the thread

    def _serve(self) -> None:
        try:
            while not self._closing:
                self._hand_out()
                busy = any(worker.doing for worker in self._workers)
                tick = min(TICK, self._timeout / 4) if busy and self._timeout else None
                places: list[Any] = [self._bell]
                for worker in self._workers:
                    places += [worker.pipe, worker.process.sentinel]
                ready = set(multiprocessing.connection.wait(places, tick))
                while self._bell.poll():
                    self._bell.recv_bytes()
                for worker in list(self._workers):
                    if worker.pipe in ready:
                        self._collect(worker)
                    elif worker.process.sentinel in ready:
                        self._crashed(worker)
                    elif tick is not None and self._is_stuck(worker, 2 * tick):
                        self._hangs(worker)
        finally:
            with self._lock:
                self._ended = True
                self._lock.notify_all()

    def _hand_out(self) -> None:
        """Gives work to the worker that has least of it, but never further ahead of the consumer than `_ahead`."""
        with self._lock:
            while True:
                worker = min(self._workers, key=lambda w: len(w.doing))
                if len(worker.doing) >= self._prefetch:
                    return
                if self._todo:
                    number = self._todo.pop(0)
                elif self._fresh < min(self._taken + self._ahead, len(self._plan)):
                    number, self._fresh = self._fresh, self._fresh + 1
                else:
                    return
                worker.doing.add((self._turn, number))
                message = (self._turn, number, self._plan[number], dict(self._refused[worker.refused :]))
                worker.refused = len(self._refused)
                try:
                    worker.pipe.send(message)
                except OSError:  # it is dead, as its sentinel will show: then this is handed out again
                    return

    def _collect(self, worker: _Worker) -> None:
        try:
            turn, number, item = worker.pipe.recv()
        except (EOFError, OSError):  # it died, perhaps while handing over
            self._crashed(worker)
            return
        if isinstance(item, Raised) and item.starting:
            cause = f"A worker process cannot start: {item.last_line}. Mend that, and start the same command again."
            self._fail(UserError(cause))
            return
        worker.doing.discard((turn, number))
        try:
            item = self._receive(item)
        except RuntimeError:
            item = Raised(traceback.format_exc())
        self._keep(turn, number, item)

    def _keep(self, turn: int, number: int, item: Any) -> None:
        with self._lock:
            if turn == self._turn:
                if isinstance(item, Raised) and self._lost is not None:
                    item = self._lost(self._plan[number], item.last_line)
                self._ready[number] = item
                self._lock.notify_all()

    def _fail(self, failure: Exception) -> None:
        with self._lock:
            self._failure = failure
            self._lock.notify_all()

    def _is_stuck(self, worker: _Worker, most: float) -> bool:
        """Only time in which this thread was running counts: a job that is suspended as a whole does not hang."""
        now = time.monotonic()
        passed, worker.looked = now - worker.looked, now
        written, name = worker.board.read()
        if written != worker.written or not name:
            worker.written, worker.stuck = written, 0.0
            return False
        worker.stuck += min(passed, most)
        return worker.stuck >= self._timeout

    def _hangs(self, worker: _Worker) -> None:
        written, name = worker.board.read()
        if written != worker.written:  # it has just gone on
            return
        _end(worker)
        if self._lost is None:
            self._refuse(name, f"reading it took longer than --decode_timeout {self._timeout:g} seconds")
        self._settle(worker, "")
        self._replace(worker)

    def _crashed(self, worker: _Worker) -> None:
        worker.process.join(timeout=5)
        code, (_, name) = worker.process.exitcode, worker.board.read()
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
        if self._settle(worker, how):
            self._replace(worker)
            return
        how += ", as for lack of memory" if code == -signal.SIGKILL else ""
        if name and self._lost is None:
            self._crashes[name] += 1
            log.warning("the process that was reading %s has died (%s) and is replaced", name, how)
            if self._crashes[name] >= CRASHES:
                self._refuse(name, f"each process that read it died: {how}")
        else:
            self._deaths += 1
            if self._deaths >= DEATHS:
                hint = " Is /dev/shm full? (docker run --shm-size)" if code == -signal.SIGBUS else ""
                self._fail(RuntimeError(f"processes that load data keep dying ({how}).{hint}"))
        self._replace(worker)

    def _settle(self, worker: _Worker, how: str) -> bool:
        """Lets `lost` say what becomes of the item that the ended `worker` was making; False: there is none."""
        _, name = worker.board.read()
        if self._lost is None or not name:
            return False
        turn, number = map(int, name.split())
        if (turn, number) in worker.doing:
            worker.doing.discard((turn, number))
            if turn == self._turn:
                self._keep(turn, number, self._lost(self._plan[number], how))
        return True

    def _refuse(self, name: str, cause: str) -> None:
        if name not in dict(self._refused):
            self._refused.append((name, cause))
            log.warning("%s counts as unreadable: %s", name, cause)

    def _replace(self, worker: _Worker) -> None:
        _end(worker)
        with self._lock:
            self._todo = sorted({*self._todo, *(number for turn, number in worker.doing if turn == self._turn)})
        self._workers[self._workers.index(worker)] = self._hire()

    def _hire(self) -> _Worker:
        here, there = self._context.Pipe()
        board = Board(self._context)
        arguments = (self._make, self._start, there, board, self._lost is not None)
        process = self._context.Process(target=work, args=arguments, name="loader", daemon=True)
        process.start()
        there.close()
        return _Worker(process, here, board, looked=time.monotonic())


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join(timeout=1)  # waiting for a dead file server it cannot even be killed: it is left behind
    worker.pipe.close()


def _nothing() -> None:
    pass


def _unchanged(item: Any) -> Any:
    return item


class Pool:
    """`workers` processes that apply `make` to the entries of a plan.

    Args:
        make: entry -> item, in a worker. Without `lost` it calls `guard.begin` with the name of each file it reads.
        workers: processes, at least 1.
        prefetch: items that are made ahead, for each worker.
        start_method: "fork", "spawn", "forkserver"; None: the platform's.
        timeout: seconds that reading one file (with `lost`: making one item) may take; 0: any time.
        start: called in each worker before its first item.
        receive: called with each item in a thread of this process, e.g. to pin its memory.
        lost: (entry, how) -> the item to take instead, for an entry that took longer than `timeout` (how ""), whose
            process died (SIGSEGV, exit code 1) or raised (the error's text), or that `close` ends. Called in a thread
            of this process, when nothing works on that entry any more.
    """

    def __init__(
        self,
        make: Callable[[Any], Any],
        *,
        workers: int,
        prefetch: int = 2,
        start_method: str | None = None,
        timeout: float = 0.0,
        start: Callable[[], None] = _nothing,
        receive: Callable[[Any], Any] = _unchanged,
        lost: Lost | None = None,
    ) -> None:
        self._prefetch = prefetch
        self._crew = _Crew(
            make,
            workers=workers,
            prefetch=prefetch,
            start_method=start_method,
            timeout=timeout,
            start=start,
            receive=receive,
            lost=lost,
        )
        # At exit it must go before multiprocessing ends its processes, whose deaths would be taken for crashes.
        self.close: Callable[[], None] = multiprocessing.util.Finalize(self, self._crew.close, exitpriority=100)

    def run(self, plan: Sequence[Any]) -> Iterator[Any]:
        """The items of `plan` in its order. A later call ends an earlier one.

        Raises RuntimeError for what `make` raises, UserError where `start` does.
        """
        turn = self._crew.begin(plan, self._prefetch)
        for number in range(len(plan)):
            yield self._crew.take(turn, number)[1]

    def finished(self, plan: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """As `run`, but each with its place in `plan`, in the order in which they are finished: for small items."""
        turn = self._crew.begin(plan, AHEAD)
        for _ in range(len(plan)):
            yield self._crew.take(turn)
