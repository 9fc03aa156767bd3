"""What can go wrong in a step, the same on every rank: numbers that are none, fp16 overflows, unreadable videos."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from umt.data.loading.batch import Batch
from umt.engine import replay, runtime
from umt.engine.logs import RunLog
from umt.engine.progress import Progress, TrainerOptions
from umt.engine.runtime import Runtime
from umt.engine.step import StepResult, TrainingStep
from umt.errors import UserError, VideoError

log = logging.getLogger(__name__)

NAMED = 20  # videos that an error lists


class NonFiniteError(UserError):
    """A loss or gradient that is no number; names the samples and the file that replays the step."""

    skippable: int | None = None  # the global step whose batch is at fault; None: no single batch is


class Faults:
    """Judges the outcome of a step, keeps count in the run's progress, and writes down what a person needs."""

    def __init__(
        self,
        training_step: TrainingStep,
        options: TrainerOptions,
        *,
        runtime: Runtime,
        run_log: RunLog,
        config: Mapping[str, Any],
    ) -> None:
        self.training_step = training_step
        self.options = options
        self.runtime = runtime
        self.run_log = run_log
        self.config = config
        self._causes: dict[int, str] = {}  # of the rows that failed since this start

    def judge(self, global_step: int, micro_batches: list[Batch], result: StepResult, progress: Progress) -> None:
        """Counts what is harmless. Raises NonFiniteError, on all ranks alike, for what is not."""
        if result.overflow:
            progress.overflows += 1
            progress.overflows_in_a_row += 1
            scale = result.values["loss_scale"]
            log.info("step %d: fp16 overflow, step skipped, loss scale now %g", global_step, scale)
            if progress.overflows_in_a_row >= self.options.max_overflows:
                log.error("%d fp16 overflows in a row are no accident", progress.overflows_in_a_row)
                raise self._non_finite(global_step, micro_batches, result)
        elif not result.updated:
            error = self._non_finite(global_step, micro_batches, result)
            error.skippable = global_step
            raise error
        else:
            progress.overflows_in_a_row = 0

    def _non_finite(self, global_step: int, micro_batches: list[Batch], result: StepResult) -> NonFiniteError:
        """Saves what replays the step, on every rank that saw it."""
        rank, losses = self.runtime.world.rank, torch.tensor(result.micro_losses)
        guilty = (~losses.isfinite()).nonzero().flatten().tolist()
        if not result.bad_loss:
            guilty = list(range(len(micro_batches)))  # only the gradient is bad: any of them may have made it
        text = "another rank names its samples"
        with self.training_step.strategy.whole_model() as model:  # all ranks, the guilty one may hold a part only
            if guilty:
                names = [name for micro in guilty for name in names_of(micro_batches[micro])]
                more = f" and {len(names) - 8} more" if len(names) > 8 else ""
                what = f"loss {[round(v, 4) for v in result.micro_losses]}" if result.bad_loss else "the gradient"
                text = f"{what} is not finite on rank {rank}, from {', '.join(names[:8])}{more}"
                if self.options.output_dir is not None:
                    path = self.options.output_dir / f"nonfinite-{global_step}-rank{rank}.pth"
                    step = self.training_step
                    replay.save(
                        path,
                        task=step.task,
                        model=model,
                        batches={m: micro_batches[m] for m in guilty},
                        seeds={m: step.micro_seed(global_step, m) for m in guilty},
                        global_step=global_step,
                        precision=self.runtime.precision,
                        scale=result.values.get("loss_scale", 1.0),
                        config=self.config,
                    )
                    text += f". To replay it: umt replay {path}"
        runtime.barrier()  # no rank leaves while another still writes
        epoch, step_of_epoch = divmod(global_step, self.options.steps_per_epoch)
        return NonFiniteError(
            f"Training stopped in epoch {epoch}, step {step_of_epoch}, before the weights changed: {text}. "
            "Common cures: --precision bf16 or fp32, a lower --lr, --clip_grad 1; or --on_nan rollback, which leaves "
            "the batch out."
        )

    def record_failures(self, global_step: int, epoch: int, micro_batches: list[Batch], progress: Progress) -> None:
        """Collective. Ledger of training videos that were replaced, and the budget that stops the run (VideoError)."""
        mine = [failure for batch in micro_batches for failure in batch.failures]
        rows = set(progress.failed_rows)
        for failure in [f for found in runtime.gather_objects(mine) for f in found]:
            rows.add(int(failure["row"]))
            self._causes[int(failure["row"])] = str(failure["cause"])
            log.warning("row %s %s could not be read and was replaced: %s", *map(failure.get, ("row", "path", "cause")))
            self.run_log.failure({"step": global_step, "epoch": epoch, **failure})
        progress.failed_rows = sorted(rows)
        budget = self.options.failure_budget
        if budget is not None and len(rows) > budget:
            where = self.options.output_dir / "failures.jsonl" if self.options.output_dir else "the messages above"
            named = [self._causes.get(row, f"row {row}, in an earlier start") for row in sorted(rows)]
            more = f"\n  and {len(named) - NAMED} more" if len(named) > NAMED else ""
            listed = "".join(f"\n  {name}" for name in named[:NAMED])
            raise VideoError(
                f"{len(rows)} training videos could not be read, more than the {budget} allowed (--max_failures). "
                f"Mend them or take them off the list; {where} has all of them with their causes:{listed}{more}"
            )


def names_of(batch: Batch) -> list[str]:
    """The rows of a batch in words, each once."""
    return list(dict.fromkeys(batch.describe(i) for i in range(len(batch))))
