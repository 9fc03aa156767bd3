"""What `umt plan` needs to know of tasks whose samples are clips."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from umt.data.loading.clip_batch import ClipBatch
from umt.tasks.base.sizing import S, Sizing


@dataclass(frozen=True)
class VideoSizing(Sizing):
    """Clips of --num_frames x --input_size x --input_size, --num_sample of each video."""

    def batch(self, device: torch.device | str = "cpu") -> ClipBatch:
        """Clips of noise, of class 0."""
        count, frames, side = self.samples(), self.recipe.data.num_frames, self.recipe.model.input_size
        key = torch.zeros(count, dtype=torch.int64)
        video = torch.randint(0, 256, (count, 3, frames, side, side), dtype=torch.uint8, device=device)
        return ClipBatch(video=video, label=key.to(device), row=key, copy=key, clip=key, crop=key, seed=key)

    def blocks(self) -> int:
        """See `Sizing`."""
        depth: int = self.recipe.sizes.depth
        return depth

    def recomputed(self) -> int:
        """See `Sizing`."""
        blocks: int = self.recipe.model.checkpoint_num
        return blocks if self.recipe.model.use_checkpoint else 0

    def recomputing(self: S, blocks: int) -> S:
        """See `Sizing`."""
        return self.with_flags(use_checkpoint=blocks > 0, checkpoint_num=blocks)

    def title(self) -> str:
        """See `Sizing`."""
        name: str = self.recipe.model.model
        return name

    def sample(self) -> str:
        """Frames x height x width."""
        side = self.recipe.model.input_size
        return f"{self.recipe.data.num_frames} x {side} x {side}"
