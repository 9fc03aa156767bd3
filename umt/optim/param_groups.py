"""Which parameters decay, and by how much each layer's learning rate is scaled down.

Layer-wise decay as in BEiT (https://arxiv.org/abs/2106.08254): with D blocks and decay d, the patch embedding has scale
d^(D+1), block i has d^(D-i), the final norm and the head have 1.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from umt.errors import ConfigError

_EMBEDDINGS = ("pos_embed", "cls_token", "mask_token")


def decays(name: str, dimensions: int, no_decay: Collection[str] = ()) -> bool:
    """Whether a parameter gets weight decay: matrices do; vectors, biases and the names in `no_decay` do not."""
    return dimensions > 1 and not name.endswith(".bias") and name not in no_decay


def layer_of(name: str, depth: int) -> int:
    """Layer of a parameter: 0 the embeddings, i + 1 block i, `depth + 1` the rest. `encoder.` before it is ignored."""
    name = name.removeprefix("encoder.")
    if name in _EMBEDDINGS or name.startswith("patch_embed."):
        return 0
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth + 1


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    layer_decay: float = 1.0,
    depth: int | None = None,
    no_decay: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Trainable parameters of `model` as optimiser groups, in order of first appearance.

    A group has `params`, `names`, `weight_decay` (0 in groups without), `decays`, `lr_scale` and `name`. The groups are
    the same whatever the value of `weight_decay`, 0 included, so that a schedule may raise it from 0 and checkpoints
    keep their layout.

    `depth`: number of blocks, by default `model.num_layers`. `no_decay`: names, by default `model.no_weight_decay()`.
    Raises ConfigError for a layer decay outside (0, 1], or one below 1 for a model without blocks.
    """
    if not 0 < layer_decay <= 1:
        raise ConfigError(
            f"--layer_decay ({layer_decay}) must be above 0 and at most 1; 1 means the same rate for all layers."
        )
    layered = layer_decay < 1
    if layered and depth is None:
        depth = getattr(model, "num_layers", None)
        if depth is None:
            raise ConfigError(
                f"--layer_decay ({layer_decay}) needs a model with blocks; {type(model).__name__} has no num_layers. "
                f"Use --layer_decay 1."
            )
    if no_decay is None:
        declared = getattr(model, "no_weight_decay", None)
        no_decay = declared() if callable(declared) else ()
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = decays(name, parameter.ndim, no_decay)
        group_name = "decay" if decay else "no_decay"
        scale = 1.0
        if layered and depth is not None:
            layer = layer_of(name, depth)
            group_name = f"layer_{layer}_{group_name}"
            scale = layer_decay ** (depth + 1 - layer)
        group = groups.setdefault(
            group_name,
            {
                "params": [],
                "names": [],
                "weight_decay": weight_decay if decay else 0.0,
                "decays": decay,
                "lr_scale": scale,
                "name": group_name,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ConfigError(f"{type(model).__name__} has no parameter to train: all are frozen.")
    return list(groups.values())
