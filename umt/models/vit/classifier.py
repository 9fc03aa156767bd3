"""Video classifier: a plain ViT over all tokens of a clip, finetuned from the UMT student's encoder.

Paper: https://arxiv.org/abs/2303.16058. Shapes: B clips, T frames, H x W pixels, D width,
L = (T / tubelet) * (H / patch) * (W / patch) tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from umt.errors import ConfigError
from umt.layers.block import NORM_EPS, make_blocks, run_block
from umt.layers.patch_embed import PatchEmbed
from umt.models.layouts.plan import Plan
from umt.models.specs import Grid, check_transformer, default_position_grid
from umt.models.video_input import check_video
from umt.models.vit import fitting
from umt.models.vit.base import VideoTransformer
from umt.models.vit.intermediates import Layout, arranged, block_indices, check_layout


class VisionTransformer(VideoTransformer):
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

    kind = "classifier"
    head_input = "head_drop"  # its output: there is no dropout in evaluation mode
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
        keywords = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        check_transformer(
            width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio, checkpoint_num=checkpoint_num,
            drop_path_rate=drop_path_rate, drop_rate=drop_rate, attn_drop_rate=attn_drop_rate,
            fc_drop_rate=fc_drop_rate,
        )  # fmt: skip
        super().__init__(keywords, position_grid or default_position_grid(patch_size))
        self.checkpoint_num = checkpoint_num
        self.init_scale = init_scale
        self.use_mean_pooling = use_mean_pooling
        table = self.position_table()
        if use_learnable_pos_emb:
            self.pos_embed = nn.Parameter(table)
        else:
            # The original saves the key unless there are as many tokens as on the table's own grid, even on another.
            saved = self.num_tokens != math.prod(self.position_grid)
            self.register_buffer("pos_embed", table, persistent=saved)
        self.patch_embed = PatchEmbed(width, patch_size, tubelet_size)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = make_blocks(
            width, depth, heads, mlp_ratio=mlp_ratio, drop=drop_rate, attn_drop=attn_drop_rate,
            drop_path=drop_path_rate, init_values=init_values,
        )  # fmt: skip
        self.norm = nn.Identity() if use_mean_pooling else nn.LayerNorm(width, eps=NORM_EPS)
        self.fc_norm = nn.LayerNorm(width, eps=NORM_EPS) if use_mean_pooling else nn.Identity()
        self.head_drop = nn.Dropout(fc_drop_rate)
        self.apply(_init_weights)
        self.reset_classifier(num_classes)

    @property
    def arguments(self) -> dict[str, Any]:
        """Keywords of this class that build the same architecture again; plain values, fit for json."""
        now = {"depth": self.num_layers, "num_classes": self.num_classes, "checkpoint_num": self.checkpoint_num}
        return {**self._keywords, **now}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters and tables that are never decayed; names that this model lacks do no harm."""
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """For timm's layer-wise learning rates: embeddings, block by block (`coarse` changes nothing), the rest."""
        return {
            "stem": r"^pos_embed|^patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm|^fc_norm", (99999,))],  # timm's number for the last group
        }

    def fit_weights(self, plan: Plan) -> None:
        """Brings a file's weights to this model's names, classes, patches and positions; for `load_weights`."""
        names = self.state_dict().keys()
        fitting.fit_names(plan, names)
        fitting.fit_encoder(plan, names)
        fitting.fit_head(plan, num_classes=self.num_classes, use_mean_pooling=self.use_mean_pooling)
        self.fit_clip(plan)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """From now on all blocks recompute their activations in the backward pass, or none does."""
        self.checkpoint_num = self.num_layers if enable else 0

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or the identity where there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Puts a new head of `num_classes` rows in place of the old one, on its device; 0: none.

        `global_pool` is there for timm's callers: pooling does not change. Raises `ConfigError` for another one.
        """
        if num_classes < 0:
            raise ConfigError(f"num_classes ({num_classes}) must not be negative.")
        pool = "avg" if self.use_mean_pooling else "token"
        if global_pool not in (None, pool):
            raise ConfigError(
                f"global_pool ({global_pool!r}) cannot change with the head: the model pools by {pool!r}, and its last "
                "norm is trained for that. Build it with use_mean_pooling=True ('avg') or False ('token')."
            )
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
        """video (B, 3, T, H, W) float -> all tokens (B, L, D), not yet pooled; under autocast in its dtype.

        `norm`, which a model with mean pooling does not have, is applied; `fc_norm` comes after pooling.
        """
        x = self._embed(video)
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, recompute=i < self.checkpoint_num)
        return self.norm(x)

    def _embed(self, video: Tensor) -> Tensor:
        check_video(video, self.clip_shape)
        x = self.patch_embed(video)
        return self.pos_drop(x + self.pos_embed.to(x.dtype))

    @overload
    def forward_intermediates(
        self,
        video: Tensor,
        indices: int | Sequence[int] | None = ...,
        *,
        norm: bool = ...,
        stop_early: bool = ...,
        output_fmt: Layout = ...,
        intermediates_only: Literal[False] = ...,
    ) -> tuple[Tensor, list[Tensor]]: ...

    @overload
    def forward_intermediates(
        self,
        video: Tensor,
        indices: int | Sequence[int] | None = ...,
        *,
        norm: bool = ...,
        stop_early: bool = ...,
        output_fmt: Layout = ...,
        intermediates_only: Literal[True],
    ) -> list[Tensor]: ...

    def forward_intermediates(
        self,
        video: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Layout = "NLC",
        intermediates_only: bool = False,
    ) -> tuple[Tensor, list[Tensor]] | list[Tensor]:
        """video (B, 3, T, H, W) float -> (what `forward_features` gives, outputs of the blocks `indices`, ascending).

        Args:
            indices: block numbers, -1 the last; a number n: the last n; None: all.
            norm: the last norm is applied to every token of every output: `norm`, or `fc_norm` where the model pools
                by the mean (it was trained on the mean of the last block's tokens).
            stop_early: blocks after the last of `indices` are not run, and what is returned first is its output.
            output_fmt: "NLC": (B, L, D). "NCTHW": (B, D, T', H', W').
            intermediates_only: the list alone.

        Raises `ConfigError` for blocks and layouts that do not exist.
        """
        taken = block_indices(len(self.blocks), indices)
        check_layout(output_fmt)
        x = self._embed(video)
        outputs = []
        for i, block in enumerate(self.blocks):
            if stop_early and i > taken[-1]:
                break
            x = run_block(block, x, recompute=i < self.checkpoint_num)
            if i in taken:
                outputs.append(x)
        last_norm = self.fc_norm if self.use_mean_pooling else self.norm
        outputs = [arranged(last_norm(out) if norm else out, self.grid, output_fmt) for out in outputs]
        return outputs if intermediates_only else (self.norm(x), outputs)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes what the outputs of the blocks `indices` do not need: later blocks, the last norms, the head.

        Gives the block numbers. After this only those outputs mean anything. Raises `ConfigError` as above.
        """
        taken = block_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: taken[-1] + 1]
        self.num_layers = len(self.blocks)
        self.checkpoint_num = min(self.checkpoint_num, self.num_layers)
        if prune_norm:
            self.norm = self.fc_norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return list(taken)

    def feature_blocks(self) -> nn.ModuleList:
        """The blocks in order."""
        return self.blocks

    def forward_all(self, video: Tensor) -> Tensor:
        """As `forward`; see `umt.models.features`."""
        return self(video)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """tokens (B, L, D) -> logits (B, num_classes), or with `pre_logits` what dropout and head get (B, D).

        Under autocast logits have its dtype (bfloat16): take `.float()` before a softmax that you report.
        """
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
