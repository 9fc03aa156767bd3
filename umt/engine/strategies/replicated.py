"""Everything whole on every process: one plain process, or several under DistributedDataParallel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from umt.engine import checkpoints
from umt.engine.runtime import Runtime
from umt.engine.strategies.base import Strategy
from umt.errors import CheckpointError


class Replicated(Strategy):
    """The default. DDP averages the gradients over processes during the last backward pass of a step."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, runtime: Runtime | None = None, clip_grad: float | None = None
    ) -> None:
        """`clip_grad`: greatest norm of the gradient; None: it is measured only. `runtime`: one CPU process if None."""
        runtime = runtime or Runtime()
        self.model = model
        self.trained = runtime.wrap(model)
        self.optimizer = optimizer
        self.clip_grad = clip_grad
        self.scaler = runtime.scaler()
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    @contextlib.contextmanager
    def micro_step(self, last: bool) -> Iterator[None]:
        if isinstance(self.trained, nn.parallel.DistributedDataParallel) and not last:
            with self.trained.no_sync():
                yield
        else:
            yield

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.scaler.scale(loss).backward()

    def gradient_norm(self) -> Tensor:
        self.scaler.unscale_(self.optimizer)
        limit = self.clip_grad if self.clip_grad is not None else float("inf")
        return torch.nn.utils.clip_grad_norm_(self.parameters, limit)

    def update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def discard(self) -> None:
        self.scaler.step(self.optimizer)  # sees the overflow and leaves the optimiser out
        self.scaler.update()

    def loss_scale(self) -> float | None:
        return self.scaler.get_scale() if self.scaler.is_enabled() else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, content: Mapping[str, Any], source: str) -> None:
        checkpoints.load_model(self.model, content, source)
        load_optimizer(self.optimizer, content["optimizer"], source)
        if content["scaler"]:  # empty when it was not fp16
            self.scaler.load_state_dict(content["scaler"])


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any], source: str) -> None:
    """Puts a checkpoint's optimiser state into `optimizer`. Raises CheckpointError for other parameter groups."""
    try:
        optimizer.load_state_dict(dict(state))
    except ValueError as error:
        raise CheckpointError(
            f"{source} was trained with other optimiser groups ({error}). "
            "Use its --opt, --layer_decay and --weight_decay, or start from its weights with --finetune."
        ) from error
