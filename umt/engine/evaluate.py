"""Validation during training, and the final test, on one process or many; knows `Results`, not what is in them.

A result belongs to its row of the annotation list. Ranks exchange results of rows, not sums, so that a row that came
twice counts once, a row that is missing is noticed, and the numbers do not depend on the number of processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from umt.data.loading.batch import Batch
from umt.engine.runtime import broadcast_object, gather_objects, rank, unwrap, world_size
from umt.errors import PreemptedError, UserError
from umt.evaluation.partial import PartialWriter, pack, partial_path, partial_ranks, read_partial, unpack
from umt.evaluation.results import Results, Summary
from umt.tasks.base import Task

log = logging.getLogger(__name__)
Autocast = Callable[[], AbstractContextManager[object]]
Progress = Callable[[int, int], None]  # (rows done by this process, rows to do by all)
Stop = Callable[[], str | None]  # why this process is to stop; None while it is not
_BLOCK = 16 << 20  # bytes of results that one process sends to another at once


@dataclass(frozen=True)
class Evaluation:
    """The summary of an evaluation, the same on every process, and the file that it can be recomputed from."""

    summary: Summary
    path: Path | None  # None: nothing is kept of a validation
    resumed: int = 0  # rows that an earlier, interrupted run had finished


@contextlib.contextmanager
def evaluating(task: Task) -> Iterator[None]:
    """The task's model in evaluation mode, without gradients, and out of its DDP wrapper; all of it undone at the end.

    Out of the wrapper because ranks may have different numbers of batches, and its collectives would wait indefinitely.
    """
    wrapped = task.model
    if isinstance(wrapped, nn.parallel.DistributedDataParallel):
        task.model = wrapped.module
    training = task.model.training
    task.model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        task.model.train(training)
        task.model = wrapped


def evaluate(
    task: Task,
    loader: Callable[[frozenset[int]], Iterable[Batch]],
    results: Results,
    *,
    folder: str | Path | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    unreadable_is_wrong: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Evaluation:
    """Fills `results` from all processes and summarises them; the same answer on every process.

    With a `folder`, finished rows are appended to one file per rank there, so that a killed test goes on from them,
    also with another number of processes; `results.save` writes the whole there, and then these files go.

    Args:
        loader: makes this process's batches without the rows that it is given, which are finished. A row that could
            not be read comes as an entry of `Batch.failures` ({"row", "path", "cause"}).
        results: empty.
        batch_size: samples in one forward pass, at most; None: a batch at a time.
        autocast: makes the context of a forward pass.
        unreadable_is_wrong: count unreadable rows as wrong and report them; otherwise they are an error.
        progress: called after each batch.
        stop: asked after each batch whether to give up, and why.

    Raises ScoresError when a result is missing at the end, UserError for an unreadable row, OutputError for a full
    disk, PreemptedError when some process's `stop` has a reason.
    """
    keep = _Keep(None if folder is None else Path(folder), results)
    finished = keep.finished()
    to_do, done = len(results) - len(finished), 0
    failures: list[tuple[int, str, str]] = []
    with keep, evaluating(task):
        for batch in loader(finished):
            failures += [(int(f["row"]), str(f["path"]), str(f["cause"])) for f in batch.failures]
            rows = _score(task, batch, results, batch_size, device, autocast)
            for row in rows:
                keep.append(row)
            done += len(rows) + len(batch.failures)
            if progress is not None:
                progress(done, to_do)
            if stop is not None and stop():
                break
    _agree_to_go_on(stop, keep.so_far)
    unreadable = sorted({failure for part in gather_objects(failures) for failure in part})
    if unreadable and not unreadable_is_wrong:
        row, path, cause = unreadable[0]
        raise UserError(
            f"{path} (row {row}) cannot be read: {cause}. So {len(unreadable)} of {len(results)} videos: mend them, or "
            f"count them as wrong with --count_unreadable_as_wrong. The others are scored and kept."
        )
    for row, _, cause in unreadable:
        if rank() == 0:
            log.warning("row %s counts as wrong: %s", row, cause)
        results.count_as_wrong(row, cause)
    _collect(results, device)
    outcome: tuple[Summary, Path | None] | UserError | None = None
    if rank() == 0:
        try:
            outcome = results.summarise(), None if folder is None else results.save(Path(folder))
        except UserError as error:  # the other ranks wait for this one: they raise the same
            outcome = error
    outcome = broadcast_object(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    assert outcome is not None
    keep.remove()
    return Evaluation(*outcome, len(finished))


class _Keep:
    """What is kept of a test while it runs; of a validation (`folder` None), nothing."""

    def __init__(self, folder: Path | None, results: Results) -> None:
        self.folder, self.results = folder, results
        self.so_far = "the videos tested so far are kept"
        if folder is None:
            self.so_far = "validation is not finished and starts again"
        self._good = 0
        self._writer: PartialWriter | None = None

    def finished(self) -> frozenset[int]:
        """Collective. Takes up what earlier runs finished; their rows."""
        if self.folder is None:
            return frozenset()
        for old in self._mine():
            length = read_partial(partial_path(self.folder, old), self.results)
            self._good = length if old == rank() else self._good
        rows = frozenset(row for part in gather_objects(self.results.finished()) for row in part)
        if rows and rank() == 0:
            log.info("%d of %d videos were finished by an earlier run of this test", len(rows), len(self.results))
        return rows

    def _mine(self) -> set[int]:
        """Each file of an earlier run is read by one rank only, whatever the number of ranks then.

        No rank writes to a file that another reads, so there is nothing to wait for.
        """
        assert self.folder is not None
        return {old for old in {*partial_ranks(self.folder), rank()} if old % world_size() == rank()}

    def append(self, row: int) -> None:
        """Writes down that a row is finished."""
        if self._writer is not None:
            self._writer.append(row, self.results.dump(row))

    def remove(self) -> None:
        """When the results are whole on the disk."""
        for old in self._mine() if self.folder is not None else ():
            partial_path(self.folder, old).unlink(missing_ok=True)  # type: ignore[arg-type]

    def __enter__(self) -> None:
        if self.folder is not None:
            self._writer = PartialWriter(partial_path(self.folder, rank()), self.results, self._good)

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.__exit__(None, None, None)


def weights_digest(model: nn.Module) -> str:
    """Digest of every parameter and buffer of `model`, whatever wraps it: tells checkpoints apart, not files."""
    digest = hashlib.sha256()
    for name, value in unwrap(model).state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _score(
    task: Task, batch: Batch, results: Results, size: int | None, device: torch.device | str, autocast: Autocast
) -> list[int]:
    """Adds the results of `batch`; the rows that are complete with them."""
    outputs = []
    for part in batch.parts(size or max(len(batch), 1)):
        with autocast():
            outputs.append((part, task.evaluation_step(part.to(device))))
    # Only now: taking an output may wait for the device, which has all of the batch to do by then.
    return [row for part, output in outputs for row in results.take(part, output)]


def _agree_to_go_on(stop: Stop | None, so_far: str) -> None:
    """Collective. Raises PreemptedError on all ranks when one of them has a reason to stop."""
    reasons = [reason for reason in gather_objects(stop() if stop is not None else None) if reason]
    if reasons:
        raise PreemptedError(f"{reasons[0]}: {so_far}")


def _collect(results: Results, device: torch.device | str) -> None:
    """Brings every rank's finished rows to rank 0, one rank at a time and a block at a time, so that memory stays low.

    Through the processes, not through a shared folder, which nodes may not have. A row that two ranks have counts once,
    the lower rank's.
    """
    if world_size() == 1:
        return
    via = torch.device("cpu") if "gloo" in str(dist.get_backend_config()) else torch.device(device)
    if rank() > 0:
        for records in _blocks(results):
            dist.send(torch.tensor([len(records)], device=via), dst=0)
            dist.send(torch.frombuffer(bytearray(records), dtype=torch.uint8).to(via), dst=0)
        dist.send(torch.tensor([0], device=via), dst=0)
        return
    for source in range(1, world_size()):
        while size := _received(torch.empty(1, dtype=torch.int64, device=via), source).item():
            block = _received(torch.empty(int(size), dtype=torch.uint8, device=via), source)
            for row, data in unpack(io.BytesIO(block.cpu().numpy().tobytes())):
                results.load(row, data)


def _received(buffer: Tensor, source: int) -> Tensor:
    dist.recv(buffer, src=source)
    return buffer


def _blocks(results: Results) -> Iterator[bytes]:
    """The records of all finished rows, some megabytes at a time."""
    block = bytearray()
    for row in results.finished():
        block += pack(row, results.dump(row))
        if len(block) > _BLOCK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
