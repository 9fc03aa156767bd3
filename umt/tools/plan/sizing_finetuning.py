"""What `umt plan` needs to know of a finetuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from umt.assemble.tasks import make_task
from umt.config.schema import FinetuneConfig
from umt.data.loading.batch import Batch
from umt.optim.param_groups import param_groups
from umt.tasks.base import Task
from umt.tools.plan.sizing_video import VideoSizing


@dataclass(frozen=True)
class FinetuningSizing(VideoSizing):
    """A classifier, perhaps with mixup, a moving average and a learning rate for each depth."""

    recipe: FinetuneConfig

    def task(self) -> Task:
        return make_task(self.recipe, weights=False)

    def batch(self, device: torch.device | str = "cpu") -> Batch:
        batch = super().batch(device)
        if self.recipe.data.multi_label:
            batch.label = torch.zeros(len(batch), self.recipe.data.nb_classes, device=device)
        return batch

    def least_batch(self) -> int:
        """Mixup and cutmix take clips in pairs."""
        augment = self.recipe.augment
        pairs = augment.mixup > 0 or augment.cutmix > 0 or augment.cutmix_minmax is not None
        return 2 if pairs and self.copies() % 2 else 1

    def averaged(self) -> bool:
        return self.recipe.model.model_ema

    def only_tests(self) -> bool:
        return self.recipe.evaluation.eval

    def parameter_groups(self, task: Task) -> list[dict[str, Any]]:
        optim = self.recipe.optim
        return param_groups(task.model, weight_decay=optim.weight_decay, layer_decay=optim.layer_decay)
