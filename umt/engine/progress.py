"""How a run proceeds and where it stands: what the trainer is told, and what a checkpoint remembers of its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


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
    keep_last: int | None = None  # numbered checkpoints that stay, the newest; None: all
    save_in_background: bool = False
    best_metric: str = "acc1"  # of what `validate` returns, the higher the better
    max_overflows: int = 25  # fp16 overflows in a row; each halves the loss scale, so 25 take it from 2^16 to 2^-9
    on_nan: str = "stop"  # stop | rollback: what a loss or gradient that is no number leads to
    max_rollbacks: int = 10  # a run that needs more has no bad batch but a bad recipe
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
    skips: list[int] = field(default_factory=list)  # global steps whose batch is left out, one for each rollback
