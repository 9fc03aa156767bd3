"""Validation during training, and the final test from many views, on one process or many.

A result belongs to its row of the annotation list. Ranks exchange results of rows, not sums, so that a row that came
twice counts once, a row that is missing is noticed, and the numbers do not depend on the number of processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from umt.data.loading.batch import Batch
from umt.engine.runtime import broadcast_object, gather_objects, rank, unwrap, world_size
from umt.errors import PreemptedError, UserError
from umt.evaluation.metrics import top_k
from umt.evaluation.multi_label import MultiLabelScores, MultiLabelSummary, summarise_multi_label
from umt.evaluation.partial import PartialWriter, partial_path, partial_ranks, read_partial
from umt.evaluation.scores import ScoresError, ViewScores
from umt.evaluation.summary import Summary, summarise
from umt.tasks.base import Task

log = logging.getLogger(__name__)
Autocast = Callable[[], AbstractContextManager[object]]
Progress = Callable[[int, int], None]  # (done, of how many): videos in a test, clips in a validation, of this process
Stop = Callable[[], str | None]  # why this process is to stop; None while it is not
SCORES_FILE = "scores.npz"
_NAN = float("nan")


@dataclass(frozen=True)
class Validation:
    """Mean loss and accuracies (percent) over `videos` videos, each of which counted once.

    `unreadable` of them could not be read: they are wrong, and have no part in the loss. `many`: of a multi-label list,
    which has no accuracies (nan); nor have the unreadable a part in it.
    """

    loss: float
    acc1: float
    acc5: float
    videos: int
    unreadable: int = 0
    many: MultiLabelScores | None = None

    def metrics(self) -> dict[str, float]:
        """The numbers by name, as a log has them."""
        if self.many is None:
            found = {"loss": self.loss, "acc1": self.acc1, "acc5": self.acc5}
        else:
            many = self.many
            found = {"loss": self.loss, "map": many.map, "f1_micro": many.f1_micro, "f1_macro": many.f1_macro}
        return {**found, **({"unreadable": self.unreadable} if self.unreadable else {})}


@contextlib.contextmanager
def evaluating(task: Task) -> Iterator[None]:
    """The task's model in evaluation mode, without gradients, and out of its DDP wrapper; all of it undone at the end.

    Out of the wrapper because ranks may have different numbers of batches, and its collectives would wait for ever.
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


def validate(
    task: Task,
    loader: Iterable[Batch],
    *,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    videos: int | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Validation:
    """Evaluates `task` on single views; the same result on every process.

    Args:
        loader: this process's share of the rows, one clip a row. Entries of `Batch.failures` are rows that could not
            be read and that whoever made the loader wants counted as wrong.
        autocast: makes the context of a forward pass.
        videos: rows of the whole list, if known: fewer or more results than that are an error.
        progress: told (clips done, clips of the whole list or 0) after each batch.
        stop: asked after each batch whether to give up, and why.

    Raises ScoresError for a row without a label, or when rows are missing; PreemptedError when some process's `stop`
    has a reason.
    """
    rows, losses, ranks = [], [], []
    several: list[tuple[Tensor, Tensor]] = []  # probabilities and labels of a multi-label list, (B, K) each
    unread: list[int] = []
    done = 0
    with evaluating(task):
        for batch in loader:
            for failure in batch.failures:
                log.warning("row %s counts as wrong: %s", failure["row"], failure["cause"])
                unread.append(int(failure["row"]))
            if len(batch):
                clips = batch.to(device)
                with autocast():
                    logits = task.evaluation_step(clips).float()
                rows.append(batch.row)
                if clips.label.ndim == 2:
                    entropy = F.binary_cross_entropy_with_logits(logits, clips.label, reduction="none")
                    losses.append(entropy.mean(1))
                    several.append((logits.sigmoid(), clips.label))
                else:
                    _refuse_unlabelled(batch, logits.shape[-1])
                    losses.append(F.cross_entropy(logits, clips.label, reduction="none"))
                    ranks.append(_ranks(logits, clips.label))
            done += len(batch) + len(batch.failures)
            if progress is not None:
                progress(done, videos or 0)
            if stop is not None and stop():
                break
    _agree_to_go_on(stop, "validation is not finished and starts anew")
    share = tuple(
        torch.cat(part).cpu().numpy() if part else np.empty(0, kind)
        for part, kind in ((rows, np.int64), (losses, np.float32), (ranks, np.int64))
    )
    parts = gather_objects(share)
    row, loss, place = (np.concatenate([part[i] for part in parts]) for i in range(3))
    row, first = np.unique(row, return_index=True)
    lost = len({r for part in gather_objects(unread) for r in part} - set(row.tolist()))
    total = len(row) + lost
    if videos is not None and total != videos:
        raise ScoresError(
            f"validation has results for {total} of {videos} videos: no accuracy over a part of the list."
        )
    if not len(row):
        raise ScoresError("validation read no video; check the list that --data_path gives for validation.")
    mean_loss = float(loss[first].mean(dtype=np.float64))
    tables = [part for part in gather_objects(_table(several)) if part is not None]
    if tables:
        probability, truth = (np.concatenate([part[i] for part in tables])[first] for i in range(2))
        return Validation(mean_loss, _NAN, _NAN, total, lost, MultiLabelScores.of(probability, truth > 0))
    acc1, acc5 = (top_k(place[first], k) * len(row) / total for k in (1, 5))
    return Validation(mean_loss, acc1, acc5, total, lost)


def _table(several: Sequence[tuple[Tensor, Tensor]]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Probabilities and labels of all batches, (N, K) each; None without any."""
    if not several:
        return None
    probability, truth = (torch.cat([pair[i] for pair in several]).float().cpu().numpy() for i in range(2))
    return probability, truth


@dataclass(frozen=True)
class TestResult:
    """Summary of a test, the same on every process, and the scores file that it can be recomputed from."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    summary: Summary | MultiLabelSummary
    scores_path: Path
    resumed: int  # videos that an earlier, interrupted run had finished


def run_test(
    task: Task,
    loader: Callable[[frozenset[int]], Iterable[Batch]],
    *,
    scores: ViewScores,
    folder: str | Path,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
    autocast: Autocast = nullcontext,
    unreadable_is_wrong: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> TestResult:
    """Scores every view of every video, writes `folder/scores.npz` and summarises it.

    Finished videos are appended to a file a rank, so that a killed test goes on from them, also with another number of
    processes. The files go when the scores are whole on the disk.

    Args:
        loader: makes this process's batches without the rows that it is given, which are finished. A batch holds
            views of one or more videos, in any order. A video that could not be read comes as an entry of
            `Batch.failures` ({"row", "path", "cause"}).
        scores: empty, describes the test (rows, labels, views, provenance). Its fingerprint decides which partial files
            belong to this test, so the provenance must tell checkpoints apart (`weights_digest`).
        batch_size: views in one forward pass, at most.
        unreadable_is_wrong: count unreadable videos as wrong and report them; otherwise they are an error.
        progress: told (videos done by this process in this run, videos still to do by all) after each batch.
        stop: asked after each batch whether to give up, and why.

    Raises ScoresError when a view is missing at the end, UserError for an unreadable video, OutputError for a full
    disk, PreemptedError when some process's `stop` has a reason.
    """
    folder = Path(folder)
    me, processes = rank(), world_size()
    good = 0
    # Each file of an earlier run is read by one rank only, whatever the number of ranks then. No rank writes to a file
    # that another reads, so there is nothing to wait for.
    for old in {*partial_ranks(folder), me}:
        if old % processes == me:
            length = read_partial(partial_path(folder, old), scores)
            good = length if old == me else good
    finished = frozenset(row for part in gather_objects(scores.finished()) for row in part)
    if finished and me == 0:
        log.info("%d of %d videos were finished by an earlier run of this test", len(finished), len(scores))
    to_do, done = len(scores) - len(finished), 0
    failures: list[tuple[int, str, str]] = []
    with PartialWriter(partial_path(folder, me), scores, good) as writer, evaluating(task):
        for batch in loader(finished):
            failures += [(int(f["row"]), str(f["path"]), str(f["cause"])) for f in batch.failures]
            done += len(batch.failures)
            for row in _score(task, batch, scores, batch_size, device, autocast):
                writer.append(row, scores.logits[scores.place(row)])
                done += 1
            if progress is not None:
                progress(done, to_do)
            if stop is not None and stop():
                break
    _agree_to_go_on(stop, "the videos tested so far are kept")
    unreadable = sorted({failure for part in gather_objects(failures) for failure in part})
    if unreadable and not unreadable_is_wrong:
        row, path, cause = unreadable[0]
        raise UserError(
            f"{path} (row {row}) cannot be read: {cause}. So {len(unreadable)} of {len(scores)} videos: mend them, or "
            f"count them as wrong with --count_unreadable_as_wrong. The others are scored and kept."
        )
    for row, _, cause in unreadable:
        scores.count_as_wrong(row, cause)
    _collect(scores, device)
    file = folder / SCORES_FILE
    outcome: Summary | MultiLabelSummary | UserError | None = None
    if me == 0:
        try:
            outcome = summarise_multi_label(scores) if scores.multi_label else summarise(scores)
            scores.save(file)
        except UserError as error:  # the other ranks wait for this one: they raise the same
            outcome = error
    outcome = broadcast_object(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    assert outcome is not None
    for old in {*partial_ranks(folder), me}:
        if old % processes == me:
            partial_path(folder, old).unlink(missing_ok=True)
    return TestResult(outcome, file, len(finished))


def weights_digest(model: nn.Module) -> str:
    """Digest of every parameter and buffer of `model`, whatever wraps it: tells checkpoints apart, not files."""
    digest = hashlib.sha256()
    for name, value in unwrap(model).state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _score(
    task: Task, batch: Batch, scores: ViewScores, batch_size: int, device: torch.device | str, autocast: Autocast
) -> Iterator[int]:
    """Adds the views of `batch` to `scores`; yields each row that is complete with them."""
    outputs: list[Tensor] = []
    for start in range(0, len(batch), batch_size):
        views = batch[start : start + batch_size].to(device)
        with autocast():
            outputs.append(task.evaluation_step(views).float())
    if not outputs:
        return
    logits = torch.cat(outputs).cpu().numpy()  # the only place that waits for the device
    fresh: dict[int, bool] = {}
    views_of = zip(batch.row.tolist(), batch.clip.tolist(), batch.crop.tolist(), logits, strict=True)
    for row, clip, crop, one in views_of:
        fresh[row] = scores.add(row, clip, crop, one) or fresh.get(row, False)
    for row, new in fresh.items():
        if new and scores.seen[scores.place(row)].all():
            yield row


def _agree_to_go_on(stop: Stop | None, so_far: str) -> None:
    """Collective. Raises PreemptedError on all ranks when one of them has a reason to stop."""
    reasons = [reason for reason in gather_objects(stop() if stop is not None else None) if reason]
    if reasons:
        raise PreemptedError(f"{reasons[0]}: {so_far}")


def _collect(scores: ViewScores, device: torch.device | str) -> None:
    """Brings every rank's views to rank 0, one rank at a time, so that it needs memory for one share beside its own."""
    if world_size() == 1:
        return
    # Through the processes, not through a shared folder, which nodes may not have.
    via = torch.device("cpu") if "gloo" in str(dist.get_backend_config()) else torch.device(device)
    held = np.flatnonzero(scores.seen.any(axis=(1, 2)))
    holdings = gather_objects((held, scores.seen[held]))
    if rank() > 0:
        if len(held):
            dist.send(torch.from_numpy(scores.logits[held]).to(via), dst=0)
        return
    for source in range(1, world_size()):
        places, seen = holdings[source]
        if not len(places):
            continue
        buffer = torch.empty((len(places), *scores.logits.shape[1:]), device=via)
        dist.recv(buffer, src=source)
        logits = buffer.cpu().numpy()
        fresh = seen & ~scores.seen[places]  # a view that two ranks have counts once, the lower rank's
        rows, clips, crops = np.nonzero(fresh)
        scores.logits[places[rows], clips, crops] = logits[rows, clips, crops]
        scores.seen[places] |= seen


def _ranks(logits: Tensor, label: Tensor) -> Tensor:
    """`metrics.label_rank` on the device: logits (B, K), label (B,) -> (B,)."""
    own = logits.gather(1, label[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < label[:, None]
    rank_of = ((logits > own) | ((logits == own) & lower)).sum(1)
    return torch.where(logits.isnan().any(1), logits.shape[1], rank_of)


def _refuse_unlabelled(batch: Batch, classes: int) -> None:
    bad = ((batch.label < 0) | (batch.label >= classes)).nonzero()
    if len(bad):
        i = int(bad[0])
        raise ScoresError(
            f"{batch.paths[i] if batch.paths else f'row {int(batch.row[i])}'}: label {int(batch.label[i])} is outside "
            f"0..{classes - 1}; validation needs a label for every video."
        )
