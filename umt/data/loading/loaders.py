"""Loaders: rows in an order that depends on (seed, epoch) alone, read ahead by worker processes, as `Batch`es.

A worker receives (epoch, rows) and nothing else, so the number of workers changes nothing, and starting in mid-epoch
is starting at a later number: what was skipped is never decoded.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from umt.data.loading.batch import Batch, Failure
from umt.data.loading.epoch_order import Draws, EpochOrder, Shuffled, fetched_ahead
from umt.data.loading.memory import keep_freed_memory
from umt.data.loading.pool import Pool
from umt.errors import ConfigError, UserError

# Epoch, rows of one batch (`umt.data.loading.epoch_order`), and rows whose shards will be wanted soon.
Work = tuple[int, tuple[int, ...], tuple[int, ...]]


class Samples(Protocol):
    """A data set: from rows to samples, and from samples to a batch."""

    def __len__(self) -> int:
        """Rows of its list."""

    def read(self, epoch: int, row: int) -> tuple[list[Any], list[Failure]]:
        """The samples of `row` in `epoch`, and the rows that could not be read for them."""

    def collate(self, samples: list[Any], failures: list[Failure]) -> Any:
        """Samples in their order as a batch (`umt.data.loading.batch.Batch`)."""

    def fetch_ahead(self, rows: Sequence[int]) -> None:
        """Begins to fetch what rows that come soon will need, where that is far away."""


@dataclass(frozen=True)
class _Batches:
    """Makes the batch of a `Work`. An error for a person travels as a value: raised, it would arrive as a traceback."""

    samples: Samples

    def __call__(self, work: Work) -> Batch | UserError:
        epoch, rows, ahead = work
        if ahead:
            self.samples.fetch_ahead(ahead)
        samples: list[Any] = []
        failures: list[Failure] = []
        try:
            for row in rows:
                read, failed = self.samples.read(epoch, row)
                samples += read
                failures += failed
        except UserError as error:
            return error
        batch: Batch = self.samples.collate(samples, failures)
        return batch


def _start_worker() -> None:
    """One thread: workers are the parallelism, and threads within them would fight for the same cores."""
    torch.set_num_threads(1)
    keep_freed_memory()
    _opencv_alone()
    _leave_signals_to_the_parent()


def _leave_signals_to_the_parent() -> None:
    """A scheduler signals every process of a job, and a run that is to stop still needs the batches of its last step.

    So a worker ends by SIGTERM only when its parent sends it, and takes no notice of SIGUSR1 and SIGUSR2.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # threads made later inherit this

    parent = os.getppid()

    def wait() -> None:
        # Also where its parent was killed: a worker that hangs would never end.
        while os.getppid() == parent:
            received = signal.sigtimedwait({signal.SIGTERM}, 5)
            if received is not None and received.si_pid == parent:
                break
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _opencv_alone() -> None:
    """OpenCV without threads of its own. Before a fork too: a forked child would wait for the threads of its parent."""
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(0)


@dataclass(frozen=True)
class _Pin:
    """Page-locks what has arrived, in the thread that receives it."""

    device: int

    def __call__(self, item: Any) -> Any:
        torch.cuda.set_device(self.device)  # a thread begins on GPU 0, whatever its process works on
        return item if isinstance(item, UserError) else item.pin_memory()


@dataclass
class Workers:
    """How batches are made ahead. 0 `num_workers`: in this process. Nothing here changes what is in a batch.

    `start_method`: "fork", "spawn" or "forkserver"; None is the platform's. `timeout`: seconds after which a video that
    is still being read counts as unreadable (0: never); without workers it never does, for a reader that hangs can only
    be ended together with its process.
    """

    num_workers: int = 0
    pin_memory: bool = False
    prefetch: int = 2  # batches that each worker has ready
    start_method: str | None = None
    timeout: float = 0.0
    _pool: Pool | None = field(default=None, init=False, repr=False)

    def run(self, clips: Samples, plan: Sequence[Work]) -> Iterator[Any]:
        """The batches of `plan`, in its order. Workers outlive a call, so one object serves one data set."""
        make = _Batches(clips)
        if self.num_workers and self._pool is None:
            _opencv_alone()
            pin: dict[str, Any] = {"receive": _Pin(torch.cuda.current_device())} if self.pin_memory else {}
            self._pool = Pool(
                make,
                workers=self.num_workers,
                prefetch=self.prefetch,
                start_method=self.start_method,
                timeout=self.timeout,
                start=_start_worker,
                **pin,
            )
        for item in map(make, plan) if self._pool is None else self._pool.run(plan):
            if isinstance(item, UserError):
                raise item
            yield item.pin_memory() if self.pin_memory and self._pool is None else item

    def close(self) -> None:
        """Ends the worker processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class TrainLoader:
    """Micro-batches of `batch_size` videos for this rank.

    An epoch is one permutation of all rows, or what `epochs` says instead: a function of (seed, epoch). Micro-batch b
    of rank r of W takes its places from (b * W + r) * batch_size on, so a step sees the same videos however many ranks
    share it. What does not fill a last step of batch_size * world_size * accumulation videos is left out of the epoch.
    """

    def __init__(
        self,
        clips: Samples,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        workers: Workers | None = None,
        epochs: EpochOrder | None = None,
    ) -> None:
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.epochs = epochs or Shuffled(len(clips))
        self.rank, self.world_size, self.accumulation = rank, world_size, accumulation
        self.workers = workers or Workers()
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"--batch_size ({batch_size}) x {world_size} processes x {accumulation} accumulated batches = "
                f"{batch_size * world_size * accumulation} videos a step, but the list has only {len(clips)}. "
                f"Try --batch_size {max(len(clips) // (world_size * accumulation), 1)}."
            )

    def __len__(self) -> int:
        """Rows of the list."""
        return len(self.clips)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return len(self.clips) // (self.batch_size * self.world_size * self.accumulation)

    def micro_batches_per_epoch(self) -> int:
        """Micro-batches that `batches` gives each rank in an epoch."""
        return self.steps_per_epoch * self.accumulation

    def order(self, epoch: int) -> Draws:
        """All draws of `epoch`, on every rank the same."""
        return self.epochs.draws(self.seed, epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """This rank's micro-batches of `epoch` from number `start` on."""
        order = self.order(epoch)
        ahead = self._ahead(order, start)
        plan: list[Work] = []
        for number in range(start, self.micro_batches_per_epoch()):
            first = (number * self.world_size + self.rank) * self.batch_size
            rows = tuple(order[first : first + self.batch_size].tolist())
            plan.append((epoch, rows, tuple(ahead.get(number, ()))))
        return self.workers.run(self.clips, plan)

    def _ahead(self, order: Draws, start: int) -> dict[int, list[int]]:
        """Micro-batch -> rows whose shards its worker begins to fetch, in order of their use."""
        made: dict[int, list[int]] = {}
        per_batch = self.world_size * self.batch_size
        for place, row in fetched_ahead(self.epochs, order[start * per_batch :]):
            made.setdefault(start + place // per_batch, []).append(row)
        return made

    def close(self) -> None:
        """Ends the worker processes."""
        self.workers.close()


class EvalLoader:
    """Every row once over all ranks, none padded: rank r of W takes rows r, r + W, ...; rows in `done` are left out.

    A batch holds all views of up to `batch_size` videos. It may hold no clip, only failures.
    """

    def __init__(
        self,
        clips: Samples,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        done: Collection[int] = (),
        workers: Workers | None = None,
    ) -> None:
        self.clips, self.batch_size, self.workers = clips, batch_size, workers or Workers()
        done = frozenset(done)
        self.rows = [row for row in range(rank, len(clips), world_size) if row not in done]

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        size = self.batch_size
        plan: list[Work] = [(0, tuple(self.rows[i : i + size]), ()) for i in range(0, len(self.rows), size)]
        return self.workers.run(self.clips, plan)

    def close(self) -> None:
        """Ends the worker processes."""
        self.workers.close()


class TestLoader(EvalLoader):
    """An `EvalLoader` whose batches are the S x C views of one video each, in the order of the rows."""

    __test__ = False  # a name that begins with Test is not a test of pytest's

    def __init__(
        self,
        clips: Samples,
        *,
        rank: int = 0,
        world_size: int = 1,
        done: Collection[int] = (),
        workers: Workers | None = None,
    ) -> None:
        super().__init__(clips, batch_size=1, rank=rank, world_size=world_size, done=done, workers=workers)
