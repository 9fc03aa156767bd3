"""Video classifier: a plain ViT over all tokens of a clip, finetuned from the UMT student's encoder.

Paper: https://arxiv.org/abs/2303.16058. Shapes: B clips, T frames, H x W pixels, D width,
L = (T / tubelet) * (H / patch) * (W / patch) tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from umt.errors import ConfigError
from umt.layers.block import NORM_EPS, make_blocks, run_block
from umt.layers.patch_embed import PatchEmbed
from umt.layers.pos_embed import position_table
from umt.models.specs import Grid, check_transformer, default_position_grid, image_shape, token_grid
from umt.models.video_input import check_video


class VisionTransformer(nn.Module):
    """Blocks over all tokens, then the mean of the tokens, a norm and a linear head.

    Args:
        image_size: pixels, one number or (height, width); a multiple of `patch_size`.
        num_frames, tubelet_size: all frames of a clip, and how many of them one token spans.
        num_classes: rows of the head; 0: no head, `forward` gives the pooled features (B, D).
        use_mean_pooling: norm after pooling (`fc_norm`); False: norm all tokens (`norm`), then take the first token.
            There is no class token: the first is the first frame's top left patch, as in the original's `--use_cls`.
        drop_rate, attn_drop_rate, fc_drop_rate: dropout of embeddings and branches, of attention, before the head.
        drop_path_rate: of the last block; it grows linearly from 0.
        checkpoint_num: the first so many blocks recompute their activations in the backward pass.
        use_learnable_pos_emb: the position table is trained, from the sinusoid on, without weight decay.
        init_values: start of layer scale; 0: none. init_scale: factor on the head's first weights.
        position_grid: the grid on which the sinusoid is defined, resampled to the model's own if that differs;
            None: that of 8 frames at 224 px, on which the published weights were pretrained.

    Raises `ConfigError` for sizes that cannot work.
    """

    pos_embed: Tensor
    head: nn.Linear | nn.Identity

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        num_frames: int = 8,
        tubelet_size: int = 1,
        num_classes: int = 400,
        use_mean_pooling: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        fc_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        checkpoint_num: int = 0,
        use_learnable_pos_emb: bool = False,
        init_values: float = 0.0,
        init_scale: float = 0.001,
        position_grid: Grid | None = None,
    ) -> None:
        super().__init__()
        check_transformer(
            width=width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            checkpoint_num=checkpoint_num,
            drop_path_rate=drop_path_rate,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            fc_drop_rate=fc_drop_rate,
        )
        self.grid = token_grid(image_size, patch_size, num_frames, tubelet_size)
        self.clip_shape = (num_frames, *image_shape(image_size))
        self.patch_size = patch_size
        self.tubelet_size = tubelet_size
        self.num_layers = depth
        self.num_features = width
        self.checkpoint_num = checkpoint_num
        self.init_scale = init_scale
        self.use_mean_pooling = use_mean_pooling
        self.position_grid = default_position_grid(patch_size) if position_grid is None else position_grid
        table = position_table(width, self.grid, self.position_grid)
        if use_learnable_pos_emb:
            self.pos_embed = nn.Parameter(table)
        else:
            # The original saves the key unless there are as many tokens as on the table's own grid, even on another.
            saved = math.prod(self.grid) != math.prod(self.position_grid)
            self.register_buffer("pos_embed", table, persistent=saved)
        self.patch_embed = PatchEmbed(width, patch_size, tubelet_size)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = make_blocks(
            width,
            depth,
            heads,
            mlp_ratio=mlp_ratio,
            drop=drop_rate,
            attn_drop=attn_drop_rate,
            drop_path=drop_path_rate,
            init_values=init_values,
        )
        self.norm = nn.Identity() if use_mean_pooling else nn.LayerNorm(width, eps=NORM_EPS)
        self.fc_norm = nn.LayerNorm(width, eps=NORM_EPS) if use_mean_pooling else nn.Identity()
        self.head_drop = nn.Dropout(fc_drop_rate)
        self.apply(_init_weights)
        self.reset_classifier(num_classes)

    @property
    def num_tokens(self) -> int:
        """L, tokens of a whole clip."""
        return math.prod(self.grid)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters and tables that are never decayed; those that this model lacks do no harm."""
        return {"pos_embed"}

    def reset_classifier(self, num_classes: int) -> None:
        """Puts a new head of `num_classes` rows in place of the old one, on its device; 0: none."""
        if num_classes < 0:
            raise ConfigError(f"num_classes ({num_classes}) must not be negative.")
        self.num_classes = num_classes
        if num_classes == 0:
            self.head = nn.Identity()
            return
        like = self.patch_embed.proj.weight
        self.head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
        _init_weights(self.head)
        with torch.no_grad():
            self.head.weight.mul_(self.init_scale)
            self.head.bias.mul_(self.init_scale)

    def forward_features(self, video: Tensor) -> Tensor:
        """video (B, 3, T, H, W) float -> all tokens (B, L, D), not yet pooled."""
        check_video(video, self.clip_shape)
        x = self.patch_embed(video)
        x = self.pos_drop(x + self.pos_embed.to(x.dtype))
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, recompute=i < self.checkpoint_num)
        return self.norm(x)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """tokens (B, L, D) -> logits (B, num_classes), or with `pre_logits` what dropout and head get (B, D)."""
        features = self.fc_norm(tokens.mean(dim=1)) if self.use_mean_pooling else tokens[:, 0]
        return features if pre_logits else self.head(self.head_drop(features))

    def forward(self, video: Tensor) -> Tensor:
        """video (B, 3, T, H, W) float, normalised -> logits (B, num_classes).

        Raises `ConfigError` if the clip is not of the model's size.
        """
        return self.forward_head(self.forward_features(video))


def _init_weights(module: nn.Module) -> None:
    """Linears normal with std 0.02 and zero biases; everything else is torch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)  # bounds of +-2, so in effect not truncated
        if module.bias is not None:
            nn.init.zeros_(module.bias)
