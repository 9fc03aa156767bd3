"""Part of a classifier kept as it is: the patch embedding and the first blocks, or everything but the head."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from umt.errors import ConfigError
from umt.layers.attention import Attention
from umt.layers.drop_path import DropPath
from umt.models.vit.classifier import VisionTransformer


def freeze_blocks(model: VisionTransformer, count: int) -> None:
    """Takes the patch embedding, the position table and the first `count` blocks out of the training, in place.

    0: nothing. All blocks: the final norm too, so that the head alone is trained. What is frozen has no gradient, so
    nothing of it is kept for a backward pass, and no dropout, so that it gives the same features as in evaluation.

    Raises ConfigError for more blocks than there are.
    """
    if not 0 <= count <= len(model.blocks):
        raise ConfigError(
            f"--freeze_blocks ({count}) must lie in 0..{len(model.blocks)}, the number of blocks of the model."
        )
    if not count:
        return
    if isinstance(model.pos_embed, nn.Parameter):
        model.pos_embed.requires_grad_(False)
    for module in _frozen(model, count):
        module.requires_grad_(False)
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
            elif isinstance(part, DropPath):
                part.rate = 0.0
            elif isinstance(part, Attention):
                part.attn_drop = 0.0


def _frozen(model: VisionTransformer, count: int) -> Iterator[nn.Module]:
    yield from (model.patch_embed, model.pos_drop, *model.blocks[:count])
    if count == len(model.blocks):
        yield from (model.norm, model.fc_norm)
