"""What `umt plan` needs to know of a pretraining."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from umt.assemble.tasks import make_task
from umt.config.checks import token_grid
from umt.config.schema import PretrainConfig
from umt.data.loading.batch import Batch
from umt.tasks.base import Task
from umt.tools.plan.sizing_video import VideoSizing


@dataclass(frozen=True)
class PretrainingSizing(VideoSizing):
    """Student and frozen teacher, both with random weights, so that no file need be there."""

    recipe: PretrainConfig

    def task(self) -> Task:
        teacher = dataclasses.replace(self.recipe.teacher, clip_teacher_weights="")
        return make_task(dataclasses.replace(self.recipe, teacher=teacher), weights=False)

    def batch(self, device: torch.device | str = "cpu") -> Batch:
        """Clips, and the noise from which their masks are drawn."""
        time, height, width = token_grid(self.recipe)
        noise = torch.rand(self.samples(), time, height * width, device=device)
        return dataclasses.replace(super().batch(device), noise=noise)
