"""What the engine knows of a task: a model to train, a step that gives a loss, and whatever state the task carries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from umt.data.loading.batch import Batch


@dataclass
class StepOutput:
    """`loss` is a mean over the micro-batch (a float32 scalar with a graph); `metrics` are detached scalars to log."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Task(ABC):
    """One thing that can be trained. It never sees devices, precision, distribution or logging: the engine does.

    `model` is what is trained. The engine may put a wrapper (DDP, torch.compile) in its place before the first step, so
    a step calls `self.model` and nothing reaches into its insides.
    """

    model: nn.Module

    @abstractmethod
    def training_step(self, batch: Batch, seed: int) -> StepOutput:
        """Loss of one micro-batch. `seed` is a function of (run seed, step, micro-step, rank), for mixup and such."""

    def evaluation_step(self, batch: Batch) -> Tensor:
        """Scores of each clip, (B, classes) float32. Only tasks that can be evaluated have it."""
        raise TypeError(f"{type(self).__name__} has nothing to evaluate")

    def to(self, device: torch.device) -> None:
        """Moves the model and whatever else the task holds (a frozen teacher) to `device`."""
        self.model.to(device)

    def state_dict(self) -> dict[str, Any]:
        """State beside `model`: tensors, numbers, strings, plain containers only. A frozen teacher is not state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
