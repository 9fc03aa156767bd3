"""What follows from a recipe: batch, learning rates, steps. Computed, never stored back; `--dry_run` prints it.

Nothing here needs torch, a GPU or a video; the number of steps is counted from the list if it is there, and is
otherwise taken from the official size of the data set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from umt.flags.optim import OptimConfig
from umt.optim.schedule import clips_per_step, scaled_lr, steps_per_epoch, warmup_length
from umt.processes import announced_size
from umt.run.deepspeed import deepspeed_json
from umt.tasks.base import Recipe


@dataclass(frozen=True)
class Plan:
    """Derived values of a run. A step is one update of the optimiser; a clip is one copy of a video."""

    world_size: int
    accumulation: int  # micro-batches per step
    videos_per_step: int  # over all GPUs
    clips_per_step: int  # videos_per_step x the copies of each
    lr: float  # scaled, as are the next two
    min_lr: float
    warmup_lr: float
    videos: int | None  # in the training list; None where neither a list nor an official size is known
    videos_from: str
    steps_per_epoch: int | None
    total_steps: int | None
    warmup_steps: int | None
    num_workers: int  # per GPU
    notice: str | None  # how this run differs from the recipe


def plan(recipe: Recipe, *, world_size: int, videos: int | None = None) -> Plan:
    """Derived values on `world_size` GPUs (or processes); `videos` in the training list, counted here unless given.

    Raises ConfigError when the batch cannot be made, is larger than the data, or the warm-up is longer than the run.
    """
    optim, copies = recipe.optim, recipe.copies
    accumulated = optim.accumulation(world_size)
    total = clips_per_step(optim.batch_size, world_size, accumulated)
    source = "in the list"
    if videos is None:
        videos, source = recipe.training_rows()
    per_epoch = None if videos is None else steps_per_epoch(videos, optim.batch_size, world_size, accumulated)
    return Plan(
        world_size=world_size,
        accumulation=accumulated,
        videos_per_step=total,
        clips_per_step=total * copies,
        lr=scaled_lr(optim.lr, total, copies),
        min_lr=scaled_lr(optim.min_lr, total, copies),
        warmup_lr=scaled_lr(optim.warmup_lr, total, copies),
        videos=videos,
        videos_from=source,
        steps_per_epoch=per_epoch,
        total_steps=None if per_epoch is None else per_epoch * optim.epochs,
        warmup_steps=None
        if per_epoch is None
        else warmup_length(
            epochs=optim.epochs,
            per_epoch=per_epoch,
            warmup_epochs=optim.warmup_epochs,
            warmup_steps=optim.warmup_steps,
        ),
        num_workers=recipe.loading.processes(),
        notice=_notice(optim, world_size, accumulated),
    )


def _notice(optim: OptimConfig, world_size: int, accumulated: int) -> str | None:
    if optim.recipe_gpus is None:
        return None
    recipe_batch = optim.recipe_batch or optim.batch_size
    recipe = clips_per_step(recipe_batch, optim.recipe_gpus)
    total = clips_per_step(optim.batch_size, world_size, accumulated)
    if total == recipe:
        return None
    keep = (
        f"--global_batch_size {recipe} keeps the recipe by accumulating"
        if recipe % (optim.batch_size * world_size) == 0
        else f"no accumulation gives {recipe} on {world_size} GPUs at --batch_size {optim.batch_size}; change one"
    )
    return (
        f"GPUs x batch x accumulation = {world_size} x {optim.batch_size} x {accumulated} = {total} videos a step, but "
        f"the recipe was made for {optim.recipe_gpus} x {recipe_batch} x 1 = {recipe}, so the "
        f"learning rate is {total / recipe:g} times the recipe's; {keep}."
    )


def render_dry_run(recipe: Recipe, environ: Mapping[str, str] | None = None) -> str:
    """The resolved run as text, one fact a line: the command, then `describe`."""
    environ = os.environ if environ is None else environ
    title, *facts = describe(recipe, plan(recipe, world_size=announced_size(environ))).splitlines()
    command = environ.get("UMT_LAUNCH_COMMAND", f"python -m umt {recipe.command} ...")
    return "\n".join([title, f"  {'command':<12} {command}", *facts, *(f"  {line}" for line in recipe.remarks())])


def describe(recipe: Recipe, derived: Plan, *, precision: str | None = None) -> str:
    """What a run is going to do, one fact a line: `name  value`; how it differs from its recipe comes last.

    `precision`: bf16, fp16 or fp32 where the machine has settled it.
    """
    rows = f"{'?' if derived.videos is None else derived.videos} for training ({derived.videos_from})"
    facts = {**recipe.facts(rows), **_run_facts(recipe, derived)}
    if recipe.parallel.enable_deepspeed:
        facts["deepspeed"] = _deepspeed_fact(recipe, derived, precision or recipe.runtime.precision)
    lines = [f"umt {recipe.command} {job_name(recipe)}", *(f"  {name:<12} {value}" for name, value in facts.items())]
    if recipe.choices:
        lines += _chosen(recipe)
    if derived.notice:
        lines.append(f"  NOTE: {derived.notice}")
    return "\n".join(lines)


def _chosen(recipe: Recipe) -> list[str]:
    """What was not given, and why it is what it is; a warning where that cannot be enough."""
    width = max(len(f"--{choice.flag} {choice.shown}") for choice in recipe.choices)
    lines = ["  chosen, since nothing else was said; a flag that is given wins:"]
    lines += [f"    {f'--{choice.flag} {choice.shown}':<{width}}  {choice.why}" for choice in recipe.choices]
    if warning := recipe.warning():
        lines.append(f"  WARNING: {warning}")
    return lines


def _deepspeed_fact(recipe: Recipe, derived: Plan, precision: str) -> str:
    settled = "bf16" if precision == "auto" else precision
    entries = deepspeed_json(
        recipe.optim, recipe.parallel, precision=settled, world_size=derived.world_size,
        accumulation=derived.accumulation,
    )  # fmt: skip
    note = " (with --precision auto settled as bf16)" if precision == "auto" else ""
    return f"{json.dumps(entries)}{note}"


def job_name(recipe: Recipe) -> str:
    """--job_name, else the name of the output folder."""
    return recipe.checkpoint.job_name or Path(recipe.checkpoint.output_dir).name or "run"


def _run_facts(recipe: Recipe, derived: Plan) -> dict[str, str]:
    optim, runtime = recipe.optim, recipe.runtime
    steps = "steps unknown until the list is there"
    if derived.total_steps is not None:
        steps = f"{derived.steps_per_epoch} = {derived.total_steps} steps, warm-up {derived.warmup_steps}"
    betas = "" if optim.opt_betas is None else f", betas {optim.opt_betas[0]:g} {optim.opt_betas[1]:g}"
    layers = recipe.values().get("layer_decay")
    decay = "" if layers is None else f", layer decay {layers:g}"
    made_for = "" if optim.recipe_gpus is None else f" (recipe: {optim.recipe_gpus} GPUs)"
    return {
        "batch": f"{derived.world_size} GPUs x {optim.batch_size} videos x {derived.accumulation} accumulated = "
        f"{derived.videos_per_step} videos = {derived.clips_per_step} clips a step{made_for}",
        "lr": f"{optim.lr:g} x {derived.clips_per_step} / 256 = {derived.lr:g}, from {derived.warmup_lr:g}, to "
        f"{derived.min_lr:g}",
        "schedule": f"{optim.epochs} epochs x {steps}",
        "optimiser": f"{optim.opt}{betas}, weight decay {optim.weight_decay:g}{decay}",
        "machine": f"device {runtime.device}, precision {runtime.precision}, {derived.num_workers} loader processes a "
        "GPU",
        "output": recipe.checkpoint.output_dir or "none (--output_dir is missing)",
    }
