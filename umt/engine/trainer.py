"""The training loop. Everything comes from outside; every random draw and rate is a function of the step's number.

Reading order: `Trainer.fit` (epochs), `_train_epoch` (steps), `_finish_epoch` (validation, log, checkpoint), `state`
and `resume`. A step is one update of the weights, made of `accumulation` micro-batches on each rank (step.py). It is
known by (epoch, step in the epoch), and global_step = epoch * steps_per_epoch + step. What can go wrong in a step is
judged in faults.py, and all ranks agree on it; saving.py writes what `state` collects.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from umt.data.loading.batch import Batch
from umt.engine import checkpoints, runtime
from umt.engine.ema import Ema
from umt.engine.faults import Faults, NonFiniteError
from umt.engine.logs import RunLog
from umt.engine.meters import Meters
from umt.engine.progress import Progress, TrainerOptions
from umt.engine.runtime import Runtime
from umt.engine.saving import Saver
from umt.engine.step import Schedule, TrainingStep
from umt.engine.strategies.base import Strategy
from umt.engine.watch import DATA, SAVING, STEP, VALIDATION, Watch
from umt.errors import CheckpointError, ConfigError, PreemptedError
from umt.formats import CHECKPOINT
from umt.tasks.base import Task

__all__ = ["BatchSource", "NonFiniteError", "Progress", "Trainer", "TrainerOptions"]
log = logging.getLogger(__name__)


class BatchSource(Protocol):
    """The training data, in an order that depends on the epoch's number alone."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's micro-batches of `epoch` from number `start` on, without decoding those before it."""


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
        watch: Watch | None = None,
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
            watch: is told how far the run is, and says whether it is to stop; one rank's yes is all ranks'.

        Raises:
            OutputError: the output folder cannot be written.
            ConfigError: rollbacks are wanted and checkpoints are not.
        """
        if options.on_nan == "rollback" and (options.output_dir is None or not options.save_ckpt):
            raise ConfigError("--on_nan rollback goes back to a checkpoint, so it needs --save_ckpt and --output_dir.")
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
        self.watch = watch or Watch()
        self.preemption = self.watch.preemption
        self.saver = Saver(
            options.output_dir,
            main=self.runtime.is_main,
            keep_last=options.keep_last,
            background=options.save_in_background,
        )
        self._saved: tuple[int, int] | None = None  # epoch and step of the last save, on every rank
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
        self.faults = Faults(
            self.training_step, options, runtime=self.runtime, run_log=self.run_log, config=self.config
        )

    # ---- running

    def fit(self) -> dict[str, Any]:
        """Trains from where the progress stands to the last epoch -> the last line that it wrote to log.txt, if any.

        Raises:
            NonFiniteError: a loss or gradient is no number.
            OutputError: a checkpoint or log could not be written; the previous checkpoint is intact.
            PreemptedError: the run was asked to stop, and everything is saved.
            VideoError: more training videos than `failure_budget` could not be read.
        """
        line: dict[str, Any] = {}
        self._rewind_log()
        runtime.barrier()
        try:
            if self.options.on_nan == "rollback" and self.progress.epoch < self.options.epochs:
                self.save([checkpoints.LATEST])  # there is always something to go back to
            while self.progress.epoch < self.options.epochs:
                try:
                    clock = self._train_epoch()
                except NonFiniteError as error:
                    self._roll_back(error)
                else:
                    line = self._finish_epoch(clock)
        finally:
            self.run_log.close()
            self.saver.wait()
        return line

    def _train_epoch(self) -> dict[str, float]:
        """The epoch's remaining steps -> wall-clock fields for the log."""
        options, progress = self.options, self.progress
        self.model.train()
        steps = options.steps_per_epoch
        self.run_log.start_epoch(progress.epoch, epochs=options.epochs, first_step=progress.step, steps=steps)
        with contextlib.closing(_Feed(self.data.batches(progress.epoch, progress.step * options.accumulation))) as feed:
            for step in range(progress.step, steps):
                here = f"step {step + 1} of {steps} of epoch {progress.epoch + 1}"
                self.watch.at(self._global_step(step), DATA, f"{here} (reading its videos)")
                began = time.perf_counter()
                micro_batches = feed.take(options.accumulation, f"step {step + 1} of {steps} of epoch {progress.epoch}")
                waited = time.perf_counter() - began
                self.watch.at(self._global_step(step), STEP, here)
                votes = self._train_step(step, micro_batches, waited)
                if votes["save"] or votes["stop"]:
                    self.save([checkpoints.LATEST])
                if votes["stop"]:
                    self._stop()
        return self.run_log.end_steps()

    def _train_step(self, step: int, micro_batches: list[Batch], waited: float) -> dict[str, float]:
        """Step `step` of the epoch -> what the ranks want done after it, summed over them."""
        progress, global_step = self.progress, self._global_step(step)
        mine = {
            "save": float(self._save_is_due(step)),
            "stop": float(self.preemption.reason is not None),
            "failures": float(sum(len(batch.failures) for batch in micro_batches)),
        }
        if global_step in progress.skips:
            log.info("step %d: skipped, its batch gave no number when it was tried", global_step)
            result, votes = None, self.training_step.agree(mine)
        else:
            result = self.training_step.run(global_step, micro_batches, mine)
            votes = result.votes
        if votes["failures"]:
            self.faults.record_failures(global_step, progress.epoch, micro_batches, progress)
        if result is not None:
            self.faults.judge(global_step, micro_batches, result, progress)
            self.meters.add(result.values)
            samples = sum(map(len, micro_batches)) * self.runtime.world.size
            self.run_log.step(progress.epoch, step, result.values, waited=waited, samples=samples)
        progress.step = step + 1
        return votes

    def _stop(self) -> None:
        """On all ranks, after they have agreed to stop and saved."""
        self.saver.wait()
        runtime.barrier()  # a process that leaves may take the others with it, and the main one has been writing
        progress, path = self.progress, (self.options.output_dir or Path()) / checkpoints.LATEST
        where = f"epoch {progress.epoch + 1}, after step {progress.step} of {self.options.steps_per_epoch}"
        saved = f"all of it is in {path}" if self._saves else "nothing is saved"
        raise PreemptedError(f"{self.preemption.reason or 'Another rank was asked to stop'}: {where}; {saved}")

    def _roll_back(self, error: NonFiniteError) -> None:
        """Goes back to the last checkpoint and leaves out the batch at fault when its turn comes again.

        What is left out is saved at once, and every step before it is taken as it was, so that a run killed after this
        ends as one that was not.
        """
        if self.options.on_nan != "rollback" or error.skippable is None:
            raise error
        skips = sorted({*self.progress.skips, error.skippable})
        if len(skips) > self.options.max_rollbacks:
            raise NonFiniteError(f"{error} This came after {len(skips) - 1} rollbacks: no bad luck.") from error
        assert self.options.output_dir is not None
        self.saver.wait()
        path = checkpoints.find_resume(self.options.output_dir) if self.runtime.is_main else None
        path = runtime.broadcast_object(path)
        if path is None:
            raise error
        log.warning("%s", error)
        self.resume(path)
        self.progress.skips = sorted({*self.progress.skips, *skips})
        log.warning("went back to %s; step %d will be left out", path.name, error.skippable)
        self.run_log.close()
        self._rewind_log()
        self.save([checkpoints.LATEST])

    def _rewind_log(self) -> None:
        self.run_log.rewind(epoch=self.progress.epoch, global_step=self._global_step(self.progress.step))

    # ---- ends of epochs

    def _finish_epoch(self, clock: Mapping[str, float]) -> dict[str, Any]:
        """Validation, the epoch's line of log.txt, checkpoints; moves the progress to the next epoch."""
        progress, epoch = self.progress, self.progress.epoch
        line: dict[str, Any] = {f"train_{name}": mean for name, mean in self.meters.means().items()}
        if self.runtime.precision == "fp16":
            line["train_overflows"] = progress.overflows
        here = range(self._global_step(0), self._global_step(self.options.steps_per_epoch))
        skipped = [step - here.start for step in progress.skips if step in here]
        if skipped:
            line["train_skipped_steps"] = skipped
        if progress.failed_rows:
            line["train_unreadable_videos"] = len(progress.failed_rows)  # since the run began
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
        line |= {"epoch": epoch, "n_parameters": self.strategy.trained_parameters()}

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
        if self._saved != (self.progress.epoch, self.progress.step):
            self.save([checkpoints.LATEST])  # a validation that fails does not cost the epoch
        began = time.perf_counter()
        at = f"the validation after epoch {self.progress.epoch + 1}"
        self.watch.at(self._global_step(self.progress.step) - 1, VALIDATION, at)
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
        average = self.ema if ema else None
        with self.strategy.whole_model() if average is None else self.strategy.whole_ema(average) as model:
            self.task.model = model.eval()
            try:
                buffers = self.training_step.buffers.agreed_in(model)
                with torch.no_grad(), self.runtime.autocast(), buffers:
                    yield
            finally:
                self.task.model = wrapped
                self.model.train(was_training)

    # ---- state

    @property
    def _saves(self) -> bool:
        return self.options.output_dir is not None and self.options.save_ckpt

    def _save_is_due(self, step: int) -> bool:
        options = self.options
        if not self._saves or not self.runtime.is_main:
            return False
        self.saver.check()
        if options.save_every_steps and (step + 1) % options.save_every_steps == 0:
            return True
        return 0 < options.save_every_minutes <= self.saver.minutes_since_last()

    def save(self, names: list[str]) -> None:
        """Writes the present state under each of `names` in the output folder. All ranks call it, rank 0 writes.

        Raises:
            OutputError: the disk is full or the folder cannot be written; what was there before still is.
        """
        if not self._saves:
            return
        at = f"the checkpoint after step {self.progress.step} of epoch {self.progress.epoch + 1}"
        self.watch.at(self._global_step(self.progress.step) - 1, SAVING, at)
        state = self.state()  # on all ranks: each may hold a part of it
        self.saver.write(state, names, epoch=self.progress.epoch)
        self._saved = self.progress.epoch, self.progress.step

    def state(self) -> dict[str, Any]:
        """Collective. Everything that the next step depends on; plain containers, numbers, strings and tensors only."""
        return {
            **CHECKPOINT.stamp(),
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
