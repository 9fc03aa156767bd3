"""CLIP's visual tower as the frozen image teacher of UMT: features of several layers, and where the class token looks.

Papers: https://arxiv.org/abs/2103.00020 (CLIP), https://arxiv.org/abs/2303.16058 (its use here).
Reading order: ClipBlock, ClipTeacher.
Shapes: B clips, T frames (T' = T / tubelet), N = (H / patch) * (W / patch) patches of a frame, D width,
E output width, K returned layers, V visible tokens per clip, V / T' in every frame.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umt.errors import ConfigError
from umt.layers.attention import ClipAttention
from umt.layers.patch_embed import patchify
from umt.models.layouts import adapters
from umt.models.layouts import clip as layouts
from umt.models.layouts.plan import Plan
from umt.models.specs import Grid, check_norm_type, check_transformer, image_shape, return_indices, token_grid
from umt.models.video_input import check_visible, resize_frames

NORM_EPS = 1e-5


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), the activation that CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ClipMlp(nn.Module):
    """Two linear layers with QuickGELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGelu()
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        return self.c_proj(self.gelu(self.c_fc(x)))


class ClipBlock(nn.Module):
    """Pre-norm transformer block with CLIP's parameter names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = ClipAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = ClipMlp(width)
        self.ln_2 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))

    def forward_with_first_row(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, L, D) -> the same as `forward`, and the first token's head-averaged attention (B, L)."""
        branch, row = self.attn.forward_with_first_row(self.ln_1(x))
        x = x + branch
        return x + self.mlp(self.ln_2(x)), row


class ClipTransformer(nn.Module):
    """Holds the blocks under CLIP's name; the teacher runs them one by one."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ClipBlock(width, heads) for _ in range(depth))

    def blocks(self) -> list[ClipBlock]:
        """The blocks in order, with their type."""
        return cast("list[ClipBlock]", list(self.resblocks))


class ClipTeacher(nn.Module):
    """Looks at every frame by itself. It gets the student's clip as it is, ImageNet-normalised, as published.

    Args:
        image_size: pixels, one number or (height, width), to which clips of another size are resized.
        output_dim: E. tubelet_size: frames that the patch convolution spans, 1 for CLIP itself.
        return_layers, return_interval: K layers are returned: depth - 1 - int(i * interval), i < K.
        norm_type: "l2": `project` gives unit length; "none": as the projection leaves it.

    Nothing is frozen here: the task that uses it calls `teacher.requires_grad_(False).eval()`.
    Raises `ConfigError` for sizes that cannot work.
    """

    head_input = ""

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        output_dim: int = 512,
        tubelet_size: int = 1,
        return_layers: int = 6,
        return_interval: float = 1,
        norm_type: Literal["l2", "none"] = "l2",
    ) -> None:
        super().__init__()
        check_transformer(width=width, depth=depth, heads=heads)
        check_norm_type(norm_type)
        if output_dim < 1:
            raise ConfigError(f"output_dim ({output_dim}) must be at least 1.")
        _, grid_h, grid_w = token_grid(image_size, patch_size, tubelet_size, tubelet_size)
        self.image_shape = image_shape(image_size)
        self.patch_grid = (grid_h, grid_w)
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size
        self.num_layers = depth
        self.output_dim = output_dim
        self.norm_type = norm_type
        self.returned = return_indices(depth, return_layers, return_interval)

        kernel = (tubelet_size, patch_size, patch_size)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + grid_h * grid_w, width))
        self.proj = nn.Parameter(torch.empty(width, output_dim))
        self.conv1 = nn.Conv3d(3, width, kernel_size=kernel, stride=kernel, bias=False)
        self.ln_pre = nn.LayerNorm(width, eps=NORM_EPS)
        self.transformer = ClipTransformer(width, depth, heads)
        self.ln_post = nn.LayerNorm(width, eps=NORM_EPS)
        self._init_weights()

    def _init_weights(self) -> None:
        """Standard deviations of the CLIP paper's code; biases 0."""
        depth, width = self.num_layers, self.class_embedding.shape[0]
        for tensor in (self.class_embedding, self.positional_embedding, self.proj):
            nn.init.normal_(tensor, std=width**-0.5)
        for block in self.transformer.blocks():
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * width * depth) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * width * depth) ** -0.5)
            for linear in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                nn.init.zeros_(linear.bias)

    def feature_blocks(self) -> nn.ModuleList:
        """The blocks in order; each sees the frames of a clip as further images of the batch."""
        return self.transformer.resblocks

    def feature_grid(self, num_frames: int) -> Grid:
        """(T', H', W') patches of a clip of so many frames."""
        return (num_frames // self.tubelet_size, *self.patch_grid)

    def forward_all(self, video: Tensor) -> Tensor:
        """As `encode_tokens`: `forward` runs its last block in another way, past hooks. See `umt.models.features`."""
        return self.encode_tokens(video)

    def fit_weights(self, plan: Plan) -> None:
        """Takes the visual tower out of a CLIP's state dict and fits convolution and positions; for `load_weights`."""
        layouts.refuse_other_activations(str(plan.file))
        tower = layouts.to_openai(plan.state, plan.report.path)
        plan.state = tower.state
        plan.report.unused += tower.unused
        if tower.layout != layouts.OPENAI:
            plan.report.adapted["names"] = f"{tower.layout} -> {layouts.OPENAI}"
        kernel = plan.state.get("conv1.weight")
        if kernel is not None and kernel.ndim == 4:
            plan.state["conv1.weight"] = adapters.inflate_convolution(kernel, self.tubelet_size)
            plan.report.adapted["conv1.weight"] = f"2-D -> 3-D, {self.tubelet_size} frames"
        table = plan.state.get("positional_embedding")
        if table is not None and table.ndim == 2 and table.shape[0] != self.positional_embedding.shape[0]:
            plan.state["positional_embedding"] = adapters.resample_clip_positions(table, self.patch_grid)
            plan.report.adapted["positional_embedding"] = (
                f"{table.shape[0] - 1} patches -> {'x'.join(map(str, self.patch_grid))}, bicubic"
            )

    def resize(self, video: Tensor) -> Tensor:
        """video (B, 3, T, H, W) -> (B, 3, T, h, w) of the teacher's size: bicubic without antialiasing, in float32.

        The published students were trained so; a clip of the right size is returned as it is.
        """
        return resize_frames(video, self.image_shape)

    def _embed(self, video: Tensor, visible: Tensor | None) -> Tensor:
        """video (B, 3, T, H, W) -> (B T', 1 + N, D), class token first; with `visible`, V / T' patches instead of N."""
        if (
            video.ndim != 5
            or video.shape[1] != 3
            or video.shape[2] % self.tubelet_size
            or not video.is_floating_point()
        ):
            raise ConfigError(
                f"the teacher takes normalised clips (batch, 3, frames, height, width) whose frames are a multiple of "
                f"{self.tubelet_size}, not {tuple(video.shape)} {video.dtype}."
            )
        kernel = (self.tubelet_size, self.patch_size, self.patch_size)
        patches = F.linear(patchify(self.resize(video), kernel), self.conv1.weight.flatten(1))  # (B, T' N, D)
        positions = self.positional_embedding.to(patches.dtype)
        tokens = positions.shape[0] - 1
        frames = patches.shape[1] // tokens
        x = patches.unflatten(1, (frames, tokens)) + positions[1:]
        if visible is not None:
            check_visible(video, visible, frames * tokens)
            if visible.shape[1] % frames:
                raise ConfigError(
                    f"visible has {visible.shape[1]} tokens, not the same number in each of {frames} frames."
                )
            x = x.flatten(1, 2)
            x = x.gather(1, visible[..., None].expand(-1, -1, x.shape[-1])).unflatten(1, (frames, -1))
        first = self.class_embedding.to(patches.dtype) + positions[0]
        x = torch.cat((first.expand(*x.shape[:2], 1, -1), x), dim=2).flatten(0, 1)
        return self.ln_pre(x)

    def forward(self, video: Tensor, visible: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """video (B, 3, T, H, W) float -> features, K x (B, T' N, D) before `project`, and saliency (B, T', N) float32.

        Saliency is the class token's attention to the patches in the last layer, averaged over heads; its rows sum to
        less than 1, the rest is the class token's own. With `visible` (B, V), flat indices t * N + n, ascending and as
        many in every frame, the other patches do not exist: V stands for T' N, and V / T' for N.
        """
        clips = video.shape[0]
        x = self._embed(video, visible)
        *blocks, last = self.transformer.blocks()
        outputs = []
        for i, block in enumerate(blocks):
            x = block(x)
            if i in self.returned:
                outputs.append(x)
        x, row = last.forward_with_first_row(x)
        outputs.append(x)  # return_indices always has the last layer
        features = [out[:, 1:].unflatten(0, (clips, -1)).flatten(1, 2) for out in outputs]
        return features, row[:, 1:].unflatten(0, (clips, -1))

    def project(self, features: list[Tensor], visible: Tensor | None = None) -> Tensor:
        """features K x (B, L, D), visible (B, V) -> targets (K, B, V, E) float32; None: all L tokens.

        `ln_post`, projection and normalisation are computed at the visible tokens only.
        """
        x = torch.stack(features) if visible is None else torch.stack([_take(f, visible) for f in features])
        x = (self.ln_post(x) @ self.proj.to(x.dtype)).float()
        return F.normalize(x, dim=-1) if self.norm_type == "l2" else x

    def encode(self, video: Tensor) -> Tensor:
        """video (B, 3, T, H, W) float -> CLIP's embedding of every frame, the projected class token (B, T', E)."""
        return self.encode_tokens(video)[:, :, 0]

    def encode_tokens(self, video: Tensor) -> Tensor:
        """video (B, 3, T, H, W) float -> class token and patches of every frame, projected (B, T', 1 + N, E)."""
        x = self._embed(video, None)
        for block in self.transformer.blocks():
            x = block(x)
        return (self.ln_post(x) @ self.proj.to(x.dtype)).unflatten(0, (video.shape[0], -1))


def _take(x: Tensor, visible: Tensor) -> Tensor:
    """x (B, L, D), visible (B, V) -> (B, V, D)."""
    return x.gather(1, visible[..., None].expand(-1, -1, x.shape[-1]))
