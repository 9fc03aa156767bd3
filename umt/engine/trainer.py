"""The training loop. Everything comes from outside; every random draw and rate is a function of the step's number.

Reading order: `Trainer.fit` (epochs), `_train_epoch` (steps), `_finish_epoch` (validation, log, checkpoint), `state`
and `resume`. A step is one update of the weights, made of `accumulation` micro-batches on each rank (step.py). It is
known by (epoch, step in the epoch), and global_step = epoch * steps_per_epoch + step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from umt.data.batch import Batch
from umt.engine import checkpoints, replay, runtime
from umt.engine.ema import Ema
from umt.engine.logs import RunLog
from umt.engine.meters import Meters
from umt.engine.runtime import Runtime
from umt.engine.step import Schedule, StepResult, TrainingStep
from umt.engine.strategies.base import Strategy
from umt.errors import CheckpointError, UserError, VideoError
from umt.tasks.base import Task

log = logging.getLogger(__name__)


class NonFiniteError(UserError):
    """A loss or gradient that is no number; names the samples and the file that replays the step."""


class BatchSource(Protocol):
    """The training data, in an order that depends on the epoch's number alone."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches of `epoch` from number `start` on, without decoding those before it."""


@dataclass(frozen=True)
class TrainerOptions:
    """How a run proceeds. `steps_per_epoch` counts optimiser steps, each of `accumulation` micro-batches a rank."""

    epochs: int
    steps_per_epoch: int
    accumulation: int = 1
    seed: int = 0
    output_dir: Path | None = None  # None: nothing is saved
    save_ckpt: bool = True
    save_ckpt_freq: int = 50  # epochs between numbered checkpoints; the last epoch always has one
    save_every_minutes: float = 15  # 0: at the end of epochs only
    save_every_steps: int = 0  # 0: by the clock only
    best_metric: str = "acc1"  # of what `validate` returns, the higher the better
    max_overflows: int = 25  # fp16 overflows in a row; each halves the loss scale, so 25 take it from 2^16 to 2^-9
    failure_budget: int | None = None  # distinct unreadable training videos that are still accepted; None: any number


@dataclass
class Progress:
    """Where a run stands: the next step to take, and what has been seen on the way."""

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int | None = None
    overflows: int = 0  # in this epoch
    overflows_in_a_row: int = 0
    failed_rows: list[int] = field(default_factory=list)  # distinct rows of the list that could not be read


class Trainer:
    """Trains `task.model`; see the module's docstring."""

    def __init__(
        self,
        task: Task,
        strategy: Strategy,
        data: BatchSource,
        *,
        options: TrainerOptions,
        lr: Schedule,
        weight_decay: Schedule | None = None,
        runtime: Runtime | None = None,
        run_log: RunLog | None = None,
        validate: Callable[[], Mapping[str, float]] | None = None,
        ema: Ema | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """The task must be on the runtime's device already.

        Args:
            task: what is trained.
            strategy: holds the task's model and its optimiser.
            data: the rank's micro-batches.
            options: see `TrainerOptions`.
            lr: rate by global step, scaled by each group's `lr_scale`.
            weight_decay: by global step, for the groups whose decay is not 0; None leaves the optimiser's.
            runtime: device, precision and processes.
            run_log: where the record goes; None keeps silent.
            validate: metrics of the present `task.model`, which is in evaluation mode. None: no validation.
            ema: a moving average of the task's model; validated too, as ema_<metric>.
            config: the resolved configuration, plain values only; stored in checkpoints and needed by a replay.

        Raises:
            OutputError: the output folder cannot be written.
        """
        self.task = task
        self.data = data
        self.options = options
        self.runtime = runtime or Runtime()
        self.run_log = run_log or RunLog(None, main=False)
        self.validate = validate
        self.ema = ema
        self.config = dict(config or {})
        self.meters = Meters()
        self.progress = Progress()
        self._saved_at = time.monotonic()
        if options.output_dir is not None and self.runtime.is_main:
            checkpoints.check_writable(options.output_dir)
        self.training_step = TrainingStep(
            task,
            strategy,
            runtime=self.runtime,
            lr=lr,
            weight_decay=weight_decay,
            seed=options.seed,
            ema=ema,
        )
        self.strategy = strategy
        self.model = strategy.model

    # ---- running

    def fit(self) -> dict[str, Any]:
        """Trains from where the progress stands to the last epoch -> the last line that it wrote to log.txt, if any.

        Raises:
            NonFiniteError: a loss or gradient is no number.
            OutputError: a checkpoint or log could not be written; the previous checkpoint is intact.
            VideoError: more training videos than `failure_budget` could not be read.
        """
        line: dict[str, Any] = {}
        self.run_log.rewind(epoch=self.progress.epoch, global_step=self._global_step(self.progress.step))
        runtime.barrier()
        try:
            while self.progress.epoch < self.options.epochs:
                line = self._finish_epoch(self._train_epoch())
        finally:
            self.run_log.close()
        return line

    def _train_epoch(self) -> dict[str, float]:
        """The epoch's remaining steps -> wall-clock fields for the log."""
        options, progress = self.options, self.progress
        self.model.train()
        steps = options.steps_per_epoch
        self.run_log.start_epoch(progress.epoch, epochs=options.epochs, first_step=progress.step, steps=steps)
        with contextlib.closing(_Feed(self.data.batches(progress.epoch, progress.step * options.accumulation))) as feed:
            for step in range(progress.step, steps):
                began = time.perf_counter()
                micro_batches = feed.take(options.accumulation, f"step {step + 1} of {steps} of epoch {progress.epoch}")
                waited = time.perf_counter() - began
                result = self._train_step(step, micro_batches)
                progress.step = step + 1
                samples = sum(map(len, micro_batches)) * self.runtime.world.size
                self.run_log.step(progress.epoch, step, result.values, waited=waited, samples=samples)
                if result.votes["save"]:
                    self.save([checkpoints.LATEST])
        return self.run_log.end_steps()

    def _train_step(self, step: int, micro_batches: list[Batch]) -> StepResult:
        global_step = self._global_step(step)
        votes = {"save": float(self._save_is_due(step)), "failures": float(sum(len(b.failures) for b in micro_batches))}
        result = self.training_step.run(global_step, micro_batches, votes)
        if result.votes["failures"]:
            self._record_failures(global_step, micro_batches)
        if result.overflow:
            self._count_overflow(global_step, micro_batches, result)
        elif not result.updated:
            self._stop_non_finite(global_step, micro_batches, result)
        else:
            self.progress.overflows_in_a_row = 0
        self.meters.add(result.values)
        return result

    # ---- what can go wrong in a step

    def _count_overflow(self, global_step: int, micro_batches: list[Batch], result: StepResult) -> None:
        self.progress.overflows += 1
        self.progress.overflows_in_a_row += 1
        log.info("step %d: fp16 overflow, step skipped, loss scale now %g", global_step, result.values["loss_scale"])
        if self.progress.overflows_in_a_row >= self.options.max_overflows:
            log.error("%d fp16 overflows in a row are no accident", self.progress.overflows_in_a_row)
            self._stop_non_finite(global_step, micro_batches, result)

    def _stop_non_finite(self, global_step: int, micro_batches: list[Batch], result: StepResult) -> None:
        """Saves what replays the step, on every rank that saw it, and stops the run on all of them."""
        rank, losses = self.runtime.world.rank, torch.tensor(result.micro_losses)
        guilty = (~losses.isfinite()).nonzero().flatten().tolist()
        if not result.bad_loss:
            guilty = list(range(len(micro_batches)))  # only the gradient is bad: any of them may have made it
        text = "another rank names its samples"
        if guilty:
            names = [name for micro in guilty for name in _names(micro_batches[micro])]
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            what = f"loss {[round(v, 4) for v in result.micro_losses]}" if result.bad_loss else "the gradient"
            text = f"{what} is not finite on rank {rank}, from {', '.join(names[:8])}{more}"
            if self.options.output_dir is not None:
                path = self.options.output_dir / f"nonfinite-{global_step}-rank{rank}.pth"
                replay.save(
                    path,
                    task=self.task,
                    model=self.model,
                    batches={m: micro_batches[m] for m in guilty},
                    seeds={m: self.training_step.micro_seed(global_step, m) for m in guilty},
                    global_step=global_step,
                    precision=self.runtime.precision,
                    scale=result.values.get("loss_scale", 1.0),
                    config=self.config,
                )
                text += f". To replay it: umt replay {path}"
        runtime.barrier()  # no rank leaves while another still writes
        raise NonFiniteError(
            f"Training stopped in epoch {self.progress.epoch}, step {global_step % self.options.steps_per_epoch}, "
            f"before the weights changed: {text}. Common cures: --precision bf16 or fp32, a lower --lr, --clip_grad 1."
        )

    def _record_failures(self, global_step: int, micro_batches: list[Batch]) -> None:
        """Ledger of training videos that were replaced, from all ranks, and the budget that stops the run."""
        mine = [failure for batch in micro_batches for failure in batch.failures]
        rows = set(self.progress.failed_rows)
        for failure in [f for found in runtime.gather_objects(mine) for f in found]:
            rows.add(int(failure["row"]))
            log.warning("row %s %s could not be read and was replaced: %s", *map(failure.get, ("row", "path", "cause")))
            self.run_log.failure({"step": global_step, "epoch": self.progress.epoch, **failure})
        self.progress.failed_rows = sorted(rows)
        budget = self.options.failure_budget
        if budget is not None and len(rows) > budget:
            where = self.options.output_dir / "failures.jsonl" if self.options.output_dir else "the messages above"
            raise VideoError(
                f"{len(rows)} training videos could not be read, more than the {budget} allowed (see {where}). "
                "Mend them or take them off the list."
            )

    # ---- ends of epochs

    def _finish_epoch(self, clock: Mapping[str, float]) -> dict[str, Any]:
        """Validation, the epoch's line of log.txt, checkpoints; moves the progress to the next epoch."""
        progress, epoch = self.progress, self.progress.epoch
        line: dict[str, Any] = {f"train_{name}": mean for name, mean in self.meters.means().items()}
        if self.runtime.precision == "fp16":
            line["train_overflows"] = progress.overflows
        line |= clock
        metrics = self._validate(line)
        names = []
        if (epoch + 1) % self.options.save_ckpt_freq == 0 or epoch + 1 == self.options.epochs:
            names.append(checkpoints.numbered(epoch))
        value = metrics.get(self.options.best_metric)
        if value is not None and not math.isnan(value) and (progress.best is None or value > progress.best):
            progress.best, progress.best_epoch = value, epoch
            names.append(checkpoints.BEST)
        if progress.best is not None:
            line |= {"best": progress.best, "best_epoch": progress.best_epoch}
        line |= {"epoch": epoch, "n_parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad)}

        progress.epoch, progress.step, progress.overflows = epoch + 1, 0, 0
        self.meters.clear()
        # The line comes before the checkpoint: a kill between them costs a redone epoch, whose line replaces this one.
        self.run_log.epoch(line, global_step=self._global_step(0))
        self.save([*names, checkpoints.LATEST])
        return line

    def _validate(self, line: dict[str, Any]) -> dict[str, float]:
        """Metrics of the weights and of their moving average; they go into `line` as val_*."""
        if self.validate is None:
            return {}
        began = time.perf_counter()
        with self.evaluating():
            metrics = dict(self.validate())
        if self.ema is not None:
            with self.evaluating(ema=True):
                metrics |= {f"ema_{name}": value for name, value in self.validate().items()}
        metrics = {name: float(value) for name, value in runtime.broadcast_object(metrics).items()}
        line |= {f"val_{name}": value for name, value in metrics.items()}
        line["val_seconds"] = round(time.perf_counter() - began, 3)
        return metrics

    @contextlib.contextmanager
    def evaluating(self, *, ema: bool = False) -> Iterator[None]:
        """`task.model` is the bare model (or its moving average) in evaluation mode, under no_grad and autocast."""
        wrapped, was_training = self.task.model, self.model.training
        average = self.ema.module if ema and self.ema is not None else None
        with self.strategy.whole_model() if average is None else contextlib.nullcontext(average) as model:
            self.task.model = model.eval()
            try:
                with torch.no_grad(), self.runtime.autocast():
                    yield
            finally:
                self.task.model = wrapped
                self.model.train(was_training)

    # ---- state

    def _save_is_due(self, step: int) -> bool:
        options = self.options
        if options.output_dir is None or not options.save_ckpt or not self.runtime.is_main:
            return False
        if options.save_every_steps and (step + 1) % options.save_every_steps == 0:
            return True
        minutes = (time.monotonic() - self._saved_at) / 60
        return options.save_every_minutes > 0 and minutes >= options.save_every_minutes

    def save(self, names: list[str]) -> None:
        """Writes the present state under each of `names` in the output folder. All ranks call it, rank 0 writes.

        Raises:
            OutputError: the disk is full or the folder cannot be written; what was there before still is.
        """
        folder = self.options.output_dir
        if folder is None or not self.options.save_ckpt:
            return
        state = self.state()  # on all ranks: each may hold a part of it
        if self.runtime.is_main:
            checkpoints.save_as(state, folder, names)
            self._saved_at = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Collective. Everything that the next step depends on; plain containers, numbers, strings and tensors only."""
        return {
            "format": checkpoints.FORMAT,
            **self.training_step.state_dict(),
            "task": self.task.state_dict(),
            "progress": dataclasses.asdict(self.progress),
            "meters": self.meters.state_dict(),
            "conditions": self._conditions(),
            "config": self.config,
        }

    def _conditions(self) -> dict[str, Any]:
        """What must not change if a resumed run is to equal the uninterrupted one."""
        options = self.options
        return {
            **self.runtime.facts(),
            "seed": options.seed,
            "steps_per_epoch": options.steps_per_epoch,
            "accumulation": options.accumulation,
        }

    def resume(self, path: Path) -> None:
        """Takes up the run that `path` holds.

        Raises:
            CheckpointError: missing or damaged; of another architecture, optimiser or number of steps.
        """
        content = checkpoints.load(path)
        progress, now, then = Progress(**content["progress"]), self._conditions(), content["conditions"]
        if then["steps_per_epoch"] != now["steps_per_epoch"] and progress.step:
            raise CheckpointError(
                f"{path} stands in step {progress.step} of {then['steps_per_epoch']} of an epoch, but an epoch of "
                f"this run has {now['steps_per_epoch']}. Resume with the same list and --global_batch_size."
            )
        self.training_step.load_state_dict(content, str(path))
        self.task.load_state_dict(content["task"])
        self.progress = progress
        self.meters.load_state_dict(content["meters"])
        log.info("resumed %s after %d epochs and %d steps", path, progress.epoch, progress.step)
        changed = [f"{name} {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name]]
        if changed:
            log.warning(
                "what changed since %s was made: %s. The run goes on, but not bit for bit as if it had never stopped",
                path,
                ", ".join(changed),
            )

    def _global_step(self, step: int) -> int:
        return self.progress.epoch * self.options.steps_per_epoch + step


class _Feed:
    """Takes micro-batches from an iterator by the step and ends it, workers and all, when it is closed."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def take(self, count: int, what: str) -> list[Batch]:
        taken = []
        for _ in range(count):
            try:
                taken.append(next(self._batches))
            except StopIteration:
                raise RuntimeError(f"the training data ended before {what}") from None
        return taken

    def close(self) -> None:
        close = getattr(self._batches, "close", None)  # generators have it, plain iterators do not
        if close is not None:
            close()


def _names(batch: Batch) -> list[str]:
    """Rows and paths of a batch's clips, each video once."""
    rows = batch.row.tolist()
    paths = batch.paths or [""] * len(rows)
    return list(dict.fromkeys(f"row {row} {path}".rstrip() for row, path in zip(rows, paths, strict=True)))
