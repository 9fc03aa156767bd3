"""What `umt plan` needs to know of tasks whose samples are clips."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from umt.config.checks import model_spec
from umt.data.loading.batch import Batch
from umt.tools.plan.sizing_base import Sizing


@dataclass(frozen=True)
class VideoSizing(Sizing):
    """Clips of --num_frames x --input_size x --input_size."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.recipe.data.num_frames, self.recipe.model.input_size, self.recipe.model.input_size

    def batch(self, device: torch.device | str = "cpu") -> Batch:
        """Clips of noise, of class 0."""
        count = self.samples()
        key = torch.zeros(count, dtype=torch.int64)
        video = torch.randint(0, 256, (count, 3, *self.shape), dtype=torch.uint8, device=device)
        return Batch(video=video, label=key.to(device), row=key, copy=key, clip=key, crop=key, seed=key)

    def blocks(self) -> int:
        return model_spec(self.recipe).depth

    def sample(self) -> str:
        return " x ".join(map(str, self.shape))
