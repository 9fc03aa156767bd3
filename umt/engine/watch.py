"""Notices a process of the run that is dead or hangs, names it, and ends the others, which would wait indefinitely.

Every process tells the store, once a second, that it lives and how far it is. Rank 0 listens to all, the others to
rank 0. Who finds a rank silent, or finds that no rank has advanced, for longer than the timeout, writes a verdict, and
all read it and say it before they end. A rank that stops by an error of its own writes the verdict itself.

This runs in threads: the main thread may be waiting in a collective. A process that is stopped or killed does not beat;
one that hangs beats, but keeps reporting the same step.
"""

from __future__ import annotations

import datetime
import faulthandler
import json
import os
import re
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from types import TracebackType

import torch.distributed as dist

from umt.engine.preemption import Preemption
from umt.engine.runtime import Runtime, rendezvous
from umt.errors import EXIT_PEER_LOST, PeerLostError, PreemptedError, UserError

PERIOD = 1.0  # seconds between beats
SILENT = 5.0  # seconds without a beat that tell a dead peer from a living one once a collective has failed
NEXT = "The job ends; the same command goes on from the last checkpoint."
STARTING, DATA, STEP, SAVING, VALIDATION = range(5)  # parts of a step, in their order


@dataclass(frozen=True)
class _Verdict:
    """Why the run ends, what its processes exit with, and the rank that shows where it hangs (-1: none)."""

    text: str
    code: int = EXIT_PEER_LOST
    hung: int = -1


@dataclass
class _Heard:
    """What this process has last heard from a rank, and when by this process's own clock."""

    host: str = "a host that has not reported"
    beat: int = -1
    tick: int = -1
    position: tuple[int, int] = (-1, STARTING)
    what: str = "the start"
    at: float = field(default_factory=time.monotonic)
    advanced: float = field(default_factory=time.monotonic)


class Watch:
    """A context around the work of a run. Without peers it does nothing."""

    def __init__(
        self,
        *,
        rank: int = 0,
        size: int = 1,
        address: str = "",
        port: int = 0,
        timeout_minutes: float = 30.0,
        preemption: Preemption | None = None,
        attempt: str = "0",
    ) -> None:
        """`address`, `port`: of the store where the processes met. `attempt`: tells restarts in one store apart."""
        self.rank, self.size = rank, size
        self.timeout = 60 * timeout_minutes
        self.preemption = preemption or Preemption()
        self._where = address, port, attempt
        self._own = _Heard(host=socket.gethostname(), tick=0, beat=0)
        self._heard = {peer: _Heard() for peer in (range(size) if rank == 0 else (0,))}
        self._verdict: _Verdict | None = None
        self._store: dist.Store | None = None
        self._answered = time.monotonic()  # when the store last did
        self._lost = False  # whether the connection to the store has ended
        self._acknowledged = 0  # ranks that know the verdict
        self._closed = threading.Event()  # ends the judging: the main thread is on its way out
        self._quiet = threading.Event()  # ends the talking
        self._threads: list[threading.Thread] = []

    @classmethod
    def over(cls, run: Runtime, *, timeout_minutes: float, preemption: Preemption | None = None) -> Watch:
        """The watch of a run that `runtime.start` has begun, in this process's environment."""
        address, port = rendezvous(run.world, os.environ) if run.world.size > 1 else ("", 0)
        return cls(
            rank=run.world.rank,
            size=run.world.size,
            address=address,
            port=port,
            timeout_minutes=timeout_minutes,
            preemption=preemption,
            attempt=os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
        )

    # ---- told by the run

    def at(self, global_step: int, part: int, what: str) -> None:
        """The run has come to this part of this step; `what` is for people."""
        self._own.position, self._own.what = (global_step, part), what
        self._own.tick += 1

    def tick(self) -> None:
        """The run has advanced within what it does, e.g. by a batch of a validation."""
        self._own.tick += 1

    # ---- life

    def __enter__(self) -> Watch:
        if self.size > 1:
            address, port, attempt = self._where
            # A connection of its own: that of the process group may be blocked in a call of the main thread.
            timeout = datetime.timedelta(seconds=max(self.timeout, 10))
            store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timeout)
            self._store = dist.PrefixStore(f"umt/watch/{attempt}", store)
            self._answered = time.monotonic()
            for work in (self._talk, self._judge):
                self._threads.append(threading.Thread(target=work, name=f"watch{work.__name__}", daemon=True))
                self._threads[-1].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is None:
            return
        if error is None:
            dist.barrier()  # the store may live in rank 0: nobody leaves while another still works
        self._closed.set()
        try:
            # Those who stop because they were asked to have agreed on it, and met since.
            if isinstance(error, Exception) and not isinstance(error, PreemptedError):
                found = self._find_dead_peer() if _is_of_a_collective(error) else None
                self._tell(found, error)
                if found is not None:
                    raise PeerLostError(found.text, found.code) from error
        finally:
            self._quiet.set()
            for thread in self._threads:  # one that outlives the interpreter may crash it
                thread.join(timeout=2 * PERIOD)

    def _tell(self, found: _Verdict | None, error: Exception) -> None:
        """Tells the others why this rank stops, and waits until they know. `found`: the peer that it stops for."""
        if found is None:
            own, code = self._own, 2 if isinstance(error, UserError) else EXIT_PEER_LOST
            said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error} (at {own.what})"
            found, expected = _Verdict(f"rank {self.rank} on {own.host} stopped: {said}", code), self.size
        else:
            expected = self.size - 1
        self._verdict = self._verdict or found
        end = time.monotonic() + SILENT
        while time.monotonic() < end and self._acknowledged < expected and not self._lost:
            time.sleep(0.1)

    def _find_dead_peer(self) -> _Verdict | None:
        """After a collective has failed: the verdict, or the peer that has been silent since; None if all live."""
        began = time.monotonic()
        while time.monotonic() < began + 2 * SILENT:
            if self._verdict is not None:
                return self._verdict
            # The last beat of the dead may have been heard a little after the collective failed.
            others = {peer: heard for peer, heard in self._heard.items() if peer != self.rank}
            silent = [peer for peer, heard in others.items() if heard.at < began + 2 * PERIOD]
            if time.monotonic() > began + SILENT and silent:
                return self._silence(silent[0])
            if self._lost and self.rank > 0:
                return self._silence(0)
            time.sleep(0.1)
        return None

    # ---- threads

    def _talk(self) -> None:
        """All traffic with the store. It may block as long as the store does not answer; `_judge` notices."""
        store, own = self._store, self._own
        assert store is not None
        present: set[int] = set()
        acknowledged = False
        try:
            while not self._quiet.is_set():
                own.beat += 1
                store.set(f"beat/{self.rank}", json.dumps([own.host, own.beat, own.tick, *own.position, own.what]))
                for peer in self._heard:
                    if peer in present or store.check([f"beat/{peer}"]):
                        present.add(peer)
                        self._hear(peer, json.loads(store.get(f"beat/{peer}")))
                if self._verdict is not None:
                    store.compare_set("verdict", "", json.dumps(asdict(self._verdict)))  # the first one stays
                if store.check(["verdict"]):
                    self._verdict = _Verdict(**json.loads(store.get("verdict")))
                    if not acknowledged:
                        acknowledged = True
                        store.add("acknowledged", 1)
                    self._acknowledged = store.add("acknowledged", 0)
                if self.preemption.reason is not None:
                    store.compare_set("stop", "", self.preemption.reason)
                elif store.check(["stop"]):
                    self.preemption.ask(store.get("stop").decode())
                self._answered = time.monotonic()
                self._quiet.wait(PERIOD if self._verdict is None else PERIOD / 5)
        except (RuntimeError, OSError):  # DistError is a RuntimeError
            self._lost = True

    def _hear(self, peer: int, message: list[str | int]) -> None:
        heard, now = self._heard[peer], time.monotonic()
        host, beat, tick, step, part, what = message
        if beat != heard.beat:
            heard.at = now
        if tick != heard.tick:
            heard.advanced = now
        heard.host, heard.beat, heard.tick, heard.what = str(host), int(beat), int(tick), str(what)
        heard.position = int(step), int(part)

    def _judge(self) -> None:
        before = time.monotonic()
        ended_at: float | None = None
        while not self._closed.wait(PERIOD / 2):
            now = time.monotonic()
            if now - before > 10 * PERIOD:
                self._forgive()  # this process itself was stopped, or the machine slept
            before = now
            if self._verdict is None:
                self._look(now)
                continue
            ended_at = ended_at or now
            # The main thread may be on its way out with the same error, and has more to say about it.
            if now - ended_at > 2 * PERIOD:
                self._end(self._verdict)

    def _look(self, now: float) -> None:
        """Sets the verdict if there is something to find; `_talk` takes it to the others."""
        for peer, heard in self._heard.items():
            if peer != self.rank and now - heard.at > self.timeout:
                self._verdict = self._silence(peer)
                return
        if self.rank > 0 and (self._lost or now - self._answered > self.timeout):
            # The store is with rank 0, or with the launcher: without it the run cannot be held together.
            self._verdict = self._silence(0)
        if self.rank == 0 and all(now - heard.advanced > self.timeout for heard in self._heard.values()):
            last = min(heard.position for heard in self._heard.values())
            peer, heard = min(
                ((peer, heard) for peer, heard in self._heard.items() if heard.position == last),
                key=lambda pair: pair[1].advanced,
            )
            self._verdict = _Verdict(
                f"no rank has advanced for {self.timeout:.0f} s (--timeout_minutes), and rank {peer} on {heard.host} "
                f"is the furthest behind, at {heard.what}. {NEXT}",
                hung=peer,
            )

    def _silence(self, peer: int) -> _Verdict:
        heard = self._heard.get(peer, _Heard())
        return _Verdict(
            f"rank {peer} on {heard.host} is gone or stopped: no sign of life for {time.monotonic() - heard.at:.0f} s, "
            f"and the last was at {heard.what}. {NEXT}"
        )

    def _forgive(self) -> None:
        now = time.monotonic()
        self._answered = now
        for heard in self._heard.values():
            heard.at = heard.advanced = now

    def _end(self, verdict: _Verdict) -> None:
        """Ends this process from a thread: the main thread may never come back from where it is."""
        if verdict.hung == self.rank:
            faulthandler.dump_traceback()  # where it hangs
        sys.stderr.write(f"umt (rank {self.rank}): {verdict.text}\n")
        sys.stderr.flush()
        os._exit(verdict.code)


def _is_of_a_collective(error: Exception) -> bool:
    """Whether `error` may come from another process's end: the back ends have no type of their own for it."""
    words = r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|socket|store"
    return isinstance(error, RuntimeError) and re.search(words, str(error), re.IGNORECASE) is not None
