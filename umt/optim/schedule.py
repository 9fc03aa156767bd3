"""Learning rate and weight decay as functions of the optimiser step. No torch: the configuration resolves with these.

A run has `epochs * steps_per_epoch` optimiser steps, numbered from 0. The value of a step depends on its number alone,
so a resumed run needs no scheduler state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from umt.errors import ConfigError

LR_REFERENCE_BATCH = 256
"""`--lr` is given for this many clips per optimiser step."""


@dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up from `start` to `base`, then half a cosine from `base` towards `final`.

    Both ends of the warm-up are hit, so `base` comes twice: in the last step of the warm-up and in the first of the
    cosine. The cosine is sampled at `i / n` for `i = 0..n-1`, so the last step is one short of `final`. Both are the
    original's, kept because published runs used them (SGDR without restarts, https://arxiv.org/abs/1608.03983).

    Raises ConfigError if there is no step, or the warm-up is longer than the run.
    """

    base: float
    final: float
    total_steps: int
    warmup_steps: int = 0
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.total_steps < 1:
            raise ConfigError(
                f"a schedule needs at least one step (got {self.total_steps}); check --epochs and the list of videos."
            )
        if not 0 <= self.warmup_steps <= self.total_steps:
            raise ConfigError(
                f"the warm-up ({self.warmup_steps} steps) must lie within the run ({self.total_steps} steps). "
                f"Shorten it with --warmup_epochs or --warmup_steps, or train longer with --epochs."
            )

    def __call__(self, step: int) -> float:
        """Value of optimiser step `step` (0-based). IndexError outside the run."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} is outside 0..{self.total_steps - 1}")
        if step < self.warmup_steps:
            if step == self.warmup_steps - 1 and self.warmup_steps > 1:
                return self.base
            return step * ((self.base - self.start) / max(self.warmup_steps - 1, 1)) + self.start
        angle = math.pi * (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.final + 0.5 * (self.base - self.final) * (1 + math.cos(angle))

    def values(self) -> list[float]:
        """All steps at once, for plots and for `--dry_run`."""
        return [self(step) for step in range(self.total_steps)]


def clips_per_step(batch_size: int, world_size: int = 1, update_freq: int = 1) -> int:
    """Videos per optimiser step: `batch_size` a process, `world_size` processes, `update_freq` accumulated steps."""
    return batch_size * world_size * update_freq


def scaled_lr(lr: float, total_batch: int, num_sample: int = 1) -> float:
    """`lr`, given per 256 clips, for a step of `total_batch` videos with `num_sample` copies each.

    Linear scaling, https://arxiv.org/abs/1706.02677; copies count as clips.
    """
    return lr * total_batch * num_sample / LR_REFERENCE_BATCH


def steps_per_epoch(videos: int, batch_size: int, world_size: int = 1, update_freq: int = 1) -> int:
    """Optimiser steps in an epoch; the incomplete last one is dropped. ConfigError if not even one is complete."""
    total = clips_per_step(batch_size, world_size, update_freq)
    steps = videos // total
    if steps < 1:
        raise ConfigError(
            f"--batch_size ({batch_size}) x {world_size} processes x {update_freq} accumulated steps = {total} videos "
            f"a step, but the list has {videos}. Lower --batch_size or --update_freq, use fewer processes, or "
            f"give more videos."
        )
    return steps


def warmup_length(*, epochs: int, per_epoch: int, warmup_epochs: int = 0, warmup_steps: int = -1) -> int:
    """Warm-up in optimiser steps; `warmup_steps`, when above 0, wins over `warmup_epochs`.

    Raises ConfigError if the warm-up is longer than the run.
    """
    total = epochs * per_epoch
    if warmup_steps > 0:
        if warmup_steps > total:
            raise ConfigError(
                f"--warmup_steps ({warmup_steps}) must not exceed the run ({epochs} epochs x {per_epoch} steps = "
                f"{total}). Shorten the warm-up, e.g. --warmup_steps {max(total // 5, 1)}."
            )
        return warmup_steps
    if warmup_epochs > epochs:
        raise ConfigError(
            f"--warmup_epochs ({warmup_epochs}) must not exceed --epochs ({epochs}). "
            f"Shorten the warm-up, e.g. --warmup_epochs {max(epochs // 5, 1)}."
        )
    return warmup_epochs * per_epoch


def lr_schedule(
    *,
    lr: float,
    min_lr: float,
    warmup_lr: float,
    epochs: int,
    per_epoch: int,
    warmup_epochs: int = 0,
    warmup_steps: int = -1,
) -> CosineSchedule:
    """Learning rate of every step. All three rates are scaled (`scaled_lr`); the warm-up starts at `warmup_lr`."""
    return CosineSchedule(
        base=lr,
        final=min_lr,
        total_steps=epochs * per_epoch,
        warmup_steps=warmup_length(
            epochs=epochs, per_epoch=per_epoch, warmup_epochs=warmup_epochs, warmup_steps=warmup_steps
        ),
        start=warmup_lr,
    )


def weight_decay_schedule(
    *, weight_decay: float, weight_decay_end: float | None, epochs: int, per_epoch: int
) -> CosineSchedule:
    """Weight decay of every step: constant unless `weight_decay_end` says where to go."""
    end = weight_decay if weight_decay_end is None else weight_decay_end
    return CosineSchedule(base=weight_decay, final=end, total_steps=epochs * per_epoch)
