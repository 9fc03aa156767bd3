"""What the classifier and the student share: the clip that they take, its tokens, and the grid of their positions.

Shapes: B clips, T frames, H x W pixels, D width, L = (T / tubelet) * (H / patch) * (W / patch) tokens.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from umt.layers.pos_embed import position_table
from umt.models.files.hub import HubModel
from umt.models.layouts.plan import Plan
from umt.models.specs import Grid, as_grid, image_shape, token_grid
from umt.models.vit import fitting


class VideoTransformer(HubModel):
    """Blocks over the tokens of a clip.

    Args:
        keywords: all those of the class, which `arguments` gives again.
        position_grid: the grid on which the sinusoid is defined; None: the model's own.
    """

    def __init__(self, keywords: dict[str, Any], position_grid: Grid | None) -> None:
        super().__init__()
        self._keywords = keywords
        image_size, num_frames = keywords["image_size"], keywords["num_frames"]
        self.patch_size: int = keywords["patch_size"]
        self.tubelet_size: int = keywords["tubelet_size"]
        self.num_layers: int = keywords["depth"]
        self.num_features: int = keywords["width"]
        self.grid = token_grid(image_size, self.patch_size, num_frames, self.tubelet_size)
        self.clip_shape = (num_frames, *image_shape(image_size))
        self.position_grid = self.grid if position_grid is None else as_grid(position_grid)

    def position_table(self) -> Tensor:
        """The fixed sinusoid of this model's tokens, (1, L, D)."""
        return position_table(self.num_features, self.grid, self.position_grid)

    @property
    def num_tokens(self) -> int:
        """L, tokens of a whole clip."""
        return math.prod(self.grid)

    @property
    def embed_dim(self) -> int:
        """D, the width of tokens and features; as `num_features`."""
        return self.num_features

    @property
    def feature_info(self) -> list[dict[str, int | str]]:
        """For timm: module, width and pixels per token of every block's output."""
        blocks = self.feature_blocks()
        module = next(name for name, part in self.named_modules() if part is blocks)
        facts: dict[str, int | str] = {"num_chs": self.num_features, "reduction": self.patch_size}
        return [{"module": f"{module}.{i}", **facts} for i in range(len(blocks))]

    def feature_blocks(self) -> nn.ModuleList:
        """The blocks in order; see `umt.models.features`."""
        raise NotImplementedError

    def feature_grid(self, num_frames: int) -> Grid:
        """(T', H', W') tokens of a whole clip."""
        return self.grid

    def fit_clip(self, plan: Plan, prefix: str = "") -> None:
        """Brings patches and positions of a file to this model's; `prefix`: what their names begin with."""
        fitting.fit_patches(plan, f"{prefix}patch_embed.proj.weight", self.tubelet_size)
        fitting.fit_positions(
            plan, f"{prefix}pos_embed", saved=f"{prefix}pos_embed" in self.state_dict(), width=self.num_features,
            model_grid=self.grid, defined_on=self.position_grid,
        )  # fmt: skip
