"""A moving average of the weights, which often tests better than the weights themselves.

average <- decay * average + (1 - decay) * weights after every optimiser step, from a copy of the initial weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """Keeps `module`, a copy of a model that follows it. Buffers are copied, not averaged."""

    def __init__(
        self, model: nn.Module, *, decay: float, device: torch.device | str | None = None, copied: bool = False
    ) -> None:
        """`device`: where the copy lives; the CPU saves GPU memory and costs a transfer a step.

        `copied`: `model` is a copy already, whose parameters need not be whole (see `Strategy.make_ema`).
        """
        self.decay = decay
        self.module = (model if copied else copy.deepcopy(model)).eval().requires_grad_(False)
        if device is not None:
            self.module.to(device)

    def update(self, model: nn.Module) -> None:
        """Moves the average towards `model`'s present weights."""
        self.follow(self.module.parameters(), model.parameters())
        self.copy_buffers(model)

    @torch.no_grad()
    def follow(self, averaged: Iterable[Tensor], current: Iterable[Tensor]) -> None:
        """Moves tensors of the average, in place, towards the model's."""
        mine = list(averaged)
        theirs = [p.detach().to(q.device, non_blocking=True) for p, q in zip(current, mine, strict=True)]
        # One fused call over all tensors of a device instead of one kernel a parameter.
        torch._foreach_lerp_(mine, theirs, 1 - self.decay)

    @torch.no_grad()
    def copy_buffers(self, model: nn.Module) -> None:
        """Takes over `model`'s buffers."""
        for held, current in zip(self.module.buffers(), model.buffers(), strict=True):
            held.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, under the model's own names."""
        return self.module.state_dict()
