"""How a run holds its weights, from the flags that say so."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from umt.engine.runtime import Runtime
from umt.engine.strategies.base import Strategy
from umt.engine.strategies.replicated import Replicated
from umt.errors import ConfigError
from umt.run.deepspeed import check_compiler, check_installed, deepspeed_json
from umt.tasks.base import Recipe
from umt.writing import replacing

log = logging.getLogger(__name__)


def check_strategy(recipe: Recipe, run: Runtime) -> None:
    """Before anything is built: raises ConfigError where DeepSpeed cannot run here, or its file contradicts a flag."""
    if not recipe.parallel.enable_deepspeed:
        return
    check_installed()
    if run.device.type == "cpu":
        check_compiler()
        if run.precision == "fp16" and recipe.parallel.zero_stage:
            raise ConfigError(
                "--precision (fp16): DeepSpeed has no fp16 on a CPU. Use --precision bf16 or fp32, or --zero_stage 0."
            )
    _deepspeed_json(recipe, run)


def _deepspeed_json(recipe: Recipe, run: Runtime) -> dict[str, Any]:
    size = run.world.size
    accumulated = recipe.optim.accumulation(size)
    return deepspeed_json(
        recipe.optim, recipe.parallel, precision=run.precision, world_size=size, accumulation=accumulated
    )


def build_strategy(recipe: Recipe, model: nn.Module, optimizer: Optimizer, run: Runtime) -> Strategy:
    """`model`, on the run's device, and `optimizer` over its parameters, in the way that the flags ask for."""
    clip_grad = recipe.optim.clip_grad
    if recipe.parallel.enable_deepspeed:
        from umt.engine.strategies.deepspeed import DeepSpeed

        entries = _deepspeed_json(recipe, run)
        if run.is_main and recipe.checkpoint.output_dir:
            with replacing(Path(recipe.checkpoint.output_dir) / "deepspeed_config.json") as file:
                file.write(f"{json.dumps(entries, indent=2)}\n".encode())
        return DeepSpeed(model, optimizer, config=entries, runtime=run)
    if recipe.parallel.fsdp:
        if run.world.size > 1:
            from umt.engine.strategies.sharded import Sharded

            return Sharded(model, optimizer, runtime=run, clip_grad=clip_grad)
        log.warning("--fsdp shares nothing out in a single process: it runs as without the flag")
    return Replicated(model, optimizer, runtime=run, clip_grad=clip_grad)
