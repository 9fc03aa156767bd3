"""UMT student: a video ViT over visible tokens only, aligned with a frozen image teacher.

Paper: https://arxiv.org/abs/2303.16058. Reading order: Encoder, Decoder, Student.
Shapes: B clips, T frames, H x W pixels, D width, E teacher width, K aligned blocks,
L = (T / tubelet) * (H / patch) * (W / patch) tokens, V visible tokens per clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umt.errors import ConfigError
from umt.layers.block import NORM_EPS, make_blocks, run_block
from umt.layers.patch_embed import PatchEmbed
from umt.models.layouts.plan import Plan
from umt.models.specs import Grid, check_norm_type, check_transformer, return_indices
from umt.models.video_input import check_video, check_visible
from umt.models.vit import fitting
from umt.models.vit.base import VideoTransformer
from umt.models.vit.intermediates import Layout, arranged, block_indices, check_layout


class Encoder(nn.Module):
    """Embeds the visible tokens, runs the blocks on them, and gives the outputs of the aligned blocks."""

    pos_embed: Tensor

    def __init__(
        self,
        patch_embed: PatchEmbed,
        blocks: nn.ModuleList,
        *,
        table: Tensor,
        learnable: bool,
        returned: tuple[int, ...],
        checkpoint_num: int,
    ) -> None:
        super().__init__()
        self.returned = returned
        self.checkpoint_num = checkpoint_num
        if learnable:
            self.pos_embed = nn.Parameter(table)
        else:  # The original's state dict has no such key.
            self.register_buffer("pos_embed", table, persistent=False)
        self.patch_embed = patch_embed
        self.blocks = blocks
        self.norm = nn.LayerNorm(table.shape[-1], eps=NORM_EPS)

    def forward(self, video: Tensor, visible: Tensor) -> Tensor:
        """video (B, 3, T, H, W), visible (B, V) -> aligned blocks, ascending, after the one final norm (K, B, V, D)."""
        return self.norm(torch.stack(self.outputs(video, visible, self.returned)))

    def outputs(self, video: Tensor, visible: Tensor | None, blocks: Sequence[int]) -> list[Tensor]:
        """Outputs of `blocks`, each (B, V, D), before the norm; `visible` None: all tokens. Later ones are not run."""
        x = self.patch_embed(video, visible)
        x = x + (self.pos_embed if visible is None else self.pos_embed[0][visible]).to(x.dtype)
        outputs = []
        for i, block in enumerate(self.blocks):
            if i > max(blocks):
                break
            x = run_block(block, x, recompute=i < self.checkpoint_num)
            if i in blocks:
                outputs.append(x)
        return outputs


class Decoder(nn.Module):
    """One linear layer and a norm that bring one block's tokens to the teacher's width."""

    def __init__(self, width: int, teacher_width: int, norm_type: Literal["l2", "none"]) -> None:
        super().__init__()
        self.head = nn.Linear(width, teacher_width)
        self.norm = nn.LayerNorm(teacher_width, eps=NORM_EPS)
        self.norm_type = norm_type

    def forward(self, x: Tensor) -> Tensor:
        """x (B, V, D) -> (B, V, E) float32, of unit length when `norm_type` is "l2"."""
        x = self.norm(self.head(x)).float()
        return F.normalize(x, dim=-1) if self.norm_type == "l2" else x


class Student(VideoTransformer):
    """What UMT pretrains. Frames are normalised floats; `visible` says which tokens exist at all.

    Args:
        image_size: pixels, one number or (height, width); a multiple of `patch_size`.
        num_frames, tubelet_size: frames of a clip, and how many of them one token spans.
        drop_path_rate: of the last block; it grows linearly from 0.
        checkpoint_num: the first so many blocks recompute their activations in the backward pass.
        use_learnable_pos_emb: the encoder's position table is trained, from the sinusoid on, without weight decay.
        init_values: start of layer scale; 0: none.
        teacher_width: E. decoder_embed_dim: must equal `width`; None takes it.
        return_layers, return_interval: K blocks are aligned: depth - 1 - int(i * interval), i < K.
        norm_type: "l2": predictions of unit length; "none": as the decoder's norm leaves them.
        position_grid: the grid on which the sinusoids are defined, resampled to the model's own if that differs;
            None: the model's own grid, as the original builds it. `create_model` sets that of the published weights,
            so that student and classifier have the same table at any size.

    Raises `ConfigError` for sizes that cannot work.
    """

    kind = "student"
    exported_as = "classifier"  # the encoder, without a head
    head_input = ""
    clip_pos_embed: Tensor

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
        drop_path_rate: float = 0.0,
        checkpoint_num: int = 0,
        use_learnable_pos_emb: bool = False,
        init_values: float = 0.0,
        teacher_width: int = 512,
        decoder_embed_dim: int | None = None,
        return_layers: int = 6,
        return_interval: float = 1,
        norm_type: Literal["l2", "none"] = "l2",
        position_grid: Grid | None = None,
    ) -> None:
        keywords = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        check_transformer(
            width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio, checkpoint_num=checkpoint_num,
            drop_path_rate=drop_path_rate,
        )  # fmt: skip
        decoder_embed_dim = width if decoder_embed_dim is None else decoder_embed_dim
        if decoder_embed_dim != width:
            raise ConfigError(
                f"decoder_embed_dim ({decoder_embed_dim}) must equal the student's width ({width}): "
                "its position table is added to the encoder's output."
            )
        check_norm_type(norm_type)
        if teacher_width < 1:
            raise ConfigError(f"teacher_width ({teacher_width}) must be at least 1.")
        super().__init__(keywords, position_grid)
        self.returned = return_indices(depth, return_layers, return_interval)
        table = self.position_table()
        self.encoder = Encoder(
            PatchEmbed(width, patch_size, tubelet_size),
            make_blocks(width, depth, heads, mlp_ratio=mlp_ratio, drop_path=drop_path_rate, init_values=init_values),
            table=table, learnable=use_learnable_pos_emb, returned=self.returned, checkpoint_num=checkpoint_num,
        )  # fmt: skip
        self.register_buffer("clip_pos_embed", table.clone(), persistent=False)
        self.clip_decoder = nn.ModuleList(Decoder(width, teacher_width, norm_type) for _ in range(return_layers))
        self.apply(_init_weights)

    @property
    def arguments(self) -> dict[str, Any]:
        """Keywords of this class that build the same architecture again; plain values, fit for json."""
        return {**self._keywords, "checkpoint_num": self.encoder.checkpoint_num}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters and tables that are never decayed; names that this model lacks do no harm."""
        return {"encoder.pos_embed", "pos_embed", "clip_pos_embed"}

    def fit_weights(self, plan: Plan) -> None:
        """Brings a file's weights to this model's names, patches and positions; for `load_weights`."""
        fitting.fit_names(plan, self.state_dict())
        self.fit_clip(plan, "encoder.")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """From now on all blocks recompute their activations in the backward pass, or none does."""
        self.encoder.checkpoint_num = self.num_layers if enable else 0

    def forward_features(self, video: Tensor, visible: Tensor | None = None) -> Tensor:
        """video (B, 3, T, H, W) float -> last block's tokens after the encoder's norm (B, L, D); with `visible` (B, V)
        only those exist: (B, V, D). Neither decoders nor a teacher are needed.
        """
        return self.encoder.norm(self._outputs(video, visible, (self.num_layers - 1,))[0])

    def forward_intermediates(
        self,
        video: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        visible: Tensor | None = None,
        norm: bool = False,
        output_fmt: Layout = "NLC",
    ) -> list[Tensor]:
        """video (B, 3, T, H, W) float -> the encoder's outputs of the blocks `indices`, ascending.

        Args:
            indices: block numbers, -1 the last; a number n: the last n; None: all. Later blocks are not run.
            visible: (B, V) tokens that exist; None: all.
            norm: after the encoder's one norm, which was trained on the aligned blocks.
            output_fmt: "NLC": (B, L or V, D). "NCTHW": (B, D, T', H', W'), for whole clips.

        Raises `ConfigError` for blocks and layouts that do not exist.
        """
        check_layout(output_fmt, whole_clip=visible is None)
        outputs = self._outputs(video, visible, block_indices(self.num_layers, indices))
        return [arranged(self.encoder.norm(out) if norm else out, self.grid, output_fmt) for out in outputs]

    def feature_blocks(self) -> nn.ModuleList:
        """The encoder's blocks."""
        return self.encoder.blocks

    def forward_all(self, video: Tensor) -> Tensor:
        """As `forward_features` of whole clips; see `umt.models.features`."""
        return self.forward_features(video)

    def _outputs(self, video: Tensor, visible: Tensor | None, blocks: Sequence[int]) -> list[Tensor]:
        check_video(video, self.clip_shape)
        if visible is not None:
            check_visible(video, visible, self.num_tokens)
        return self.encoder.outputs(video, visible, blocks)

    def forward(self, video: Tensor, visible: Tensor) -> Tensor:
        """video (B, 3, T, H, W) float, visible (B, V) int64 indices, ascending -> predictions (K, B, V, E) float32.

        With `norm_type` "l2" they have unit length. Raises `ConfigError` if the clip is not of the model's size.
        """
        check_video(video, self.clip_shape)
        check_visible(video, visible, self.num_tokens)
        x = self.encoder(video, visible)
        x = x + self.clip_pos_embed[0][visible].to(x.dtype)
        return torch.stack([decoder(x[k]) for k, decoder in enumerate(self.clip_decoder)])


def _init_weights(module: nn.Module) -> None:
    """Xavier-uniform linears with zero biases; norms 1 and 0, q_bias and v_bias 0, and Conv3d are torch's defaults."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
