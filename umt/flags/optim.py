"""Flags of the batch, the optimiser and the schedule."""

from __future__ import annotations

from dataclasses import dataclass

from umt.errors import ConfigError
from umt.flags.group import Group, flag


@dataclass(frozen=True)
class OptimConfig(Group):
    """Batch, optimiser and schedule"""

    batch_size: int = flag(
        64, "videos per GPU and micro-batch, not counting the copies of --num_sample", at_least=1, on_resume="say"
    )
    update_freq: int = flag(1, "micro-batches that are accumulated for one step", at_least=1, on_resume="say")
    global_batch_size: int | None = flag(
        None,
        "videos per step over all GPUs; the accumulation follows from it",
        at_least=1,
        example="256",
        on_resume="say",
    )
    recipe_gpus: int | None = flag(
        None, "GPUs that the recipe was made for; a run says how it differs", at_least=1, example="16", on_resume="say"
    )
    recipe_batch: int | None = flag(
        None,
        "--batch_size that the recipe was made for; default: the first that is said",
        at_least=1,
        example="16",
        on_resume="say",
    )
    epochs: int = flag(30, "passes over the data", at_least=1, on_resume="say")
    opt: str = flag("adamw", "optimiser")
    opt_eps: float = flag(1e-8, "epsilon of the optimiser", above=0)
    opt_betas: tuple[float, float] | None = flag(
        None, "betas of the optimiser; default: the optimiser's own", at_least=0, below=1, example="0.9 0.999"
    )
    momentum: float = flag(0.9, "momentum of SGD", at_least=0, below=1)
    clip_grad: float | None = flag(
        None, "greatest norm of the gradient; default: no clipping", above=0, example="1.0", on_resume="say"
    )
    weight_decay: float = flag(0.05, "weight decay", at_least=0)
    weight_decay_end: float | None = flag(
        None, "weight decay at the end of its cosine; default: constant", at_least=0, example="0.05"
    )
    lr: float = flag(1e-3, "learning rate for 256 samples a step; the run's is scaled by its samples a step", above=0)
    min_lr: float = flag(1e-6, "where the cosine ends, scaled like --lr", at_least=0)
    warmup_lr: float = flag(1e-6, "where the warm-up starts, scaled like --lr", at_least=0)
    warmup_epochs: int = flag(5, "epochs of warm-up", at_least=0, on_resume="say")
    warmup_steps: int = flag(
        -1, "steps of warm-up; wins over --warmup_epochs when above 0", at_least=-1, on_resume="say"
    )

    def accumulation(self, world_size: int) -> int:
        """Micro-batches per step on `world_size` processes: --update_freq, or what --global_batch_size asks for.

        Raises ConfigError if that is no whole number, or if the two flags contradict each other.
        """
        total, at_once = self.global_batch_size, self.batch_size * world_size
        if total is None:
            return self.update_freq
        if total % at_once:
            below = total // at_once * at_once
            near = " or ".join(str(n) for n in (below, below + at_once) if n)
            fits = max((b for b in range(1, self.batch_size) if total % (b * world_size) == 0), default=None)
            keep = f", or keep {total} with --batch_size {fits}" if fits else ""
            raise ConfigError(
                f"--global_batch_size ({total}) is no multiple of GPUs x --batch_size = {world_size} x "
                f"{self.batch_size} = {at_once}. The nearest that works: --global_batch_size {near}{keep}."
            )
        if self.update_freq not in (1, total // at_once):
            raise ConfigError(
                f"--update_freq ({self.update_freq}) contradicts --global_batch_size ({total}), which needs "
                f"{total // at_once}. Leave out --update_freq."
            )
        return total // at_once
