"""What `umt plan` needs to know of a pretraining."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from umt.data.loading.clip_batch import ClipBatch
from umt.tasks.base import Task
from umt.tasks.distill.data import make_task
from umt.tasks.distill.recipe import DistillRecipe
from umt.tasks.video.sizing import VideoSizing


@dataclass(frozen=True)
class DistillSizing(VideoSizing):
    """Student and frozen teacher."""

    recipe: DistillRecipe

    def task(self) -> Task:
        """The teacher's weights are random too, so that its file need not be there."""
        return make_task(self.recipe.with_flags(clip_teacher_weights=""), weights=False)

    def batch(self, device: torch.device | str = "cpu") -> ClipBatch:
        """Clips, and the noise from which their masks are drawn."""
        time, height, width = self.recipe.grid
        noise = torch.rand(self.samples(), time, height * width, device=device)
        return dataclasses.replace(super().batch(device), noise=noise)
