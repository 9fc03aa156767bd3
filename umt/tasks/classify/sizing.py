"""What `umt plan` needs to know of a finetuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from umt.data.loading.clip_batch import ClipBatch
from umt.optim.param_groups import param_groups
from umt.tasks.base import Task
from umt.tasks.classify.build import make_task
from umt.tasks.classify.recipe import ClassifyRecipe
from umt.tasks.video.sizing import VideoSizing


@dataclass(frozen=True)
class ClassifySizing(VideoSizing):
    """A classifier, perhaps with mixup, a moving average and a learning rate for each depth."""

    recipe: ClassifyRecipe

    def task(self) -> Task:
        """See `Sizing`."""
        return make_task(self.recipe, weights=False)

    def batch(self, device: torch.device | str = "cpu") -> ClipBatch:
        """Clips of class 0, or of no class where a video may have several."""
        batch = super().batch(device)
        if self.recipe.data.multi_label:
            batch.label = torch.zeros(len(batch), self.recipe.data.nb_classes, device=device)
        return batch

    def least_batch(self) -> int:
        """Mixup and cutmix take clips in pairs."""
        return 2 if self.recipe.mixes and self.copies() % 2 else 1

    def averaged(self) -> bool:
        """See `Sizing`."""
        return self.recipe.model.model_ema

    def parameter_groups(self, task: Task) -> list[dict[str, Any]]:
        """Those of each depth apart."""
        optim = self.recipe.optim
        return param_groups(task.model, weight_decay=optim.weight_decay, layer_decay=optim.layer_decay)
