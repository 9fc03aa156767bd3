"""How a run holds its weights, from the flags that say so."""

from __future__ import annotations

import logging

from torch import nn
from torch.optim import Optimizer

from umt.config.schema import Config
from umt.engine.runtime import Runtime
from umt.engine.strategies.base import Strategy
from umt.engine.strategies.replicated import Replicated

log = logging.getLogger(__name__)


def build_strategy(config: Config, model: nn.Module, optimizer: Optimizer, run: Runtime) -> Strategy:
    """`model`, on the run's device, and `optimizer` over its parameters, in the way that the flags ask for."""
    clip_grad = config.optim.clip_grad
    if config.parallel.fsdp:
        if run.world.size > 1:
            from umt.engine.strategies.sharded import Sharded

            return Sharded(model, optimizer, runtime=run, clip_grad=clip_grad)
        log.warning("--fsdp shares nothing out in a single process: it runs as without the flag")
    return Replicated(model, optimizer, runtime=run, clip_grad=clip_grad)
