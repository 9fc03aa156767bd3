"""Values that all recipes have held against each other and against the world, before torch or a GPU is touched.

`check` needs nothing but the recipe; `check_files` looks at weights and the output folder. Each raises one sentence
that names the flag, its value and the remedy.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from umt.errors import CheckpointError, ConfigError, OutputError
from umt.flags.optim import OptimConfig
from umt.flags.run import ParallelConfig
from umt.models.files import fetch
from umt.optim.schedule import warmup_length
from umt.run import deepspeed
from umt.tasks.base import Recipe


def check(recipe: Recipe) -> None:
    """Raises ConfigError for the first contradiction between flags, those of the task first."""
    recipe.check()
    _check_schedule(recipe.optim)
    _check_parallel(recipe.parallel, recipe.optim.opt)


def _check_schedule(optim: OptimConfig) -> None:
    if optim.warmup_steps <= 0:
        warmup_length(epochs=optim.epochs, per_epoch=1, warmup_epochs=optim.warmup_epochs)
    for flag, value in (("min_lr", optim.min_lr), ("warmup_lr", optim.warmup_lr)):
        if value > optim.lr:
            raise ConfigError(
                f"--{flag} ({value:g}) must not exceed --lr ({optim.lr:g}). Try --{flag} {optim.lr / 100:g}."
            )


def _check_parallel(parallel: ParallelConfig, opt: str) -> None:
    if parallel.enable_deepspeed and parallel.fsdp:
        raise ConfigError("--enable_deepspeed and --fsdp both say how weights are held. Leave out one of them.")
    if not parallel.enable_deepspeed:
        for flag, value in (("zero_stage", parallel.zero_stage), ("deepspeed_config", parallel.deepspeed_config)):
            if value:
                raise ConfigError(f"--{flag} ({value}) needs --enable_deepspeed. Add it, or leave out --{flag}.")
    elif parallel.zero_stage and opt.lower() not in deepspeed.BY_ELEMENT:
        raise ConfigError(
            f"--opt ({opt}) looks at whole weights, of which ZeRO stage {parallel.zero_stage} gives it parts. "
            f"Use --opt {', '.join(deepspeed.BY_ELEMENT[:-1])} or {deepspeed.BY_ELEMENT[-1]}, or --zero_stage 0."
        )


def check_files(recipe: Recipe) -> None:
    """Raises AnnotationError, CheckpointError or OutputError for lists, weights or output that do not serve.

    And ConfigError where DeepSpeed is asked for and cannot run.
    """
    if recipe.parallel.enable_deepspeed:
        deepspeed.check_installed()
        if recipe.runtime.device == "cpu":
            deepspeed.check_compiler()
    recipe.check_files()
    for flag, path in {"resume": recipe.checkpoint.resume, **recipe.weights()}.items():
        away = flag != "resume" and fetch.is_remote(path)
        if path and not away and not Path(path.split("#sha256=")[0]).exists():
            if near := fetch.hint(path):
                raise CheckpointError(f"--{flag} ({path}) does not exist. {near}")
            variable = recipe.variables.get(flag)
            remedy = f"; the scripts of exp/ take it from {variable}" if variable else ", or leave the flag out"
            raise CheckpointError(f"--{flag} ({path}) does not exist. Check the path{remedy}.")
    if recipe.checkpoint.output_dir:
        check_writable(recipe.checkpoint.output_dir)
    else:
        raise OutputError(
            "--output_dir is missing: checkpoints and logs would be lost. Try --output_dir outputs/my_run."
        )


def check_writable(folder: str) -> None:
    """Makes the output folder and writes a byte into it. Raises OutputError when either fails."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
            probe.flush()
    except OSError as error:
        raise OutputError(
            f"--output_dir ({folder}) cannot be written: {error.strerror or error}. "
            "Give another folder with --output_dir."
        ) from error
