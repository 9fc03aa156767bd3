"""The method: the squared error of one number per clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from umt.data.loading.clip_batch import ClipBatch
from umt.data.transforms.normalize import normalize
from umt.tasks.base import StepOutput, Task


class Regress(Task):
    """Trains `model`, video (B, 3, T, H, W) -> (B, 1). `targets` (R,): the number of each row of the training list."""

    def __init__(self, model: nn.Module, targets: Tensor) -> None:
        self.model, self.targets = model, targets

    def training_step(self, batch: ClipBatch, seed: int) -> StepOutput:
        """Mean squared error."""
        predicted = self.model(normalize(batch.video)).float()[:, 0]
        loss = (predicted - self.targets[batch.row].to(predicted.device)).square().mean()
        return StepOutput(loss, {"error": loss.detach().sqrt()})

    def evaluation_step(self, batch: ClipBatch) -> Tensor:
        """One number per clip, (B,)."""
        predicted: Tensor = self.model(normalize(batch.video)).float()[:, 0]
        return predicted

    def batch_from(self, state: Mapping[str, Any]) -> ClipBatch:
        """See `Task`."""
        return ClipBatch(**state)

    def to(self, device: torch.device) -> None:
        """The model; the targets are looked up on the CPU, where the rows are."""
        self.model.to(device)
