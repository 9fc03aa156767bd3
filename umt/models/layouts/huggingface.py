"""VideoMAE of Hugging Face transformers: its configuration and names of weights.

Format: https://huggingface.co/docs/transformers/model_doc/videomae. Attention has three matrices there and one here;
the biases of q and v are called `attention.attention.q_bias` in files of transformers 4, `...query.bias` in those of 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from umt.errors import CheckpointError, UserError
from umt.models.specs import token_grid

_PREFIX = "videomae."
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_IN_A_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_OUTSIDE = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "fc_norm": "fc_norm",
    "classifier": "head",
}
_BIASES = {
    "attention.attention.q_bias": "attn.q_bias",
    "attention.attention.query.bias": "attn.q_bias",
    "attention.attention.v_bias": "attn.v_bias",
    "attention.attention.value.bias": "attn.v_bias",
}


def is_huggingface(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of transformers' VideoMAE."""
    return any(name.removeprefix(_PREFIX).startswith("embeddings.patch_embeddings.") for name in state)


def from_huggingface(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The same weights under this library's names; the decoder of pretraining keeps names of its own.

    Raises `CheckpointError` for q, k, v that are not complete, and where the biases of q and v are missing.
    """
    ours: dict[str, Tensor] = {}
    attention: dict[int, dict[str, Tensor]] = {}
    for full, value in state.items():
        name = full.removeprefix(_PREFIX)
        match = _LAYER.fullmatch(name)
        if match is None:
            stem, _, last = name.rpartition(".")
            ours[f"{_OUTSIDE[stem]}.{last}" if stem in _OUTSIDE else name] = value
            continue
        block, rest = int(match[1]), match[2]
        stem, _, last = rest.rpartition(".")
        if rest in _BIASES:
            ours[f"blocks.{block}.{_BIASES[rest]}"] = value
        elif stem.startswith("attention.attention.") and last == "weight":
            attention.setdefault(block, {})[stem.rpartition(".")[2]] = value
        elif stem in _IN_A_BLOCK:
            ours[f"blocks.{block}.{_IN_A_BLOCK[stem]}.{last}"] = value
        else:
            ours[full] = value
    for block, parts in attention.items():
        if set(parts) != {"query", "key", "value"}:
            raise CheckpointError(
                f"{where}: layer {block} has not all of query, key and value, but {', '.join(parts)}."
            )
        ours[f"blocks.{block}.attn.qkv.weight"] = torch.cat([parts["query"], parts["key"], parts["value"]])
        for bias in ("q_bias", "v_bias"):
            if f"blocks.{block}.attn.{bias}" not in ours:
                raise CheckpointError(
                    f"{where}: layer {block} has no bias of q and v (neither q_bias nor query.bias), which VideoMAE "
                    "has. Some versions of transformers drop it when they save; take the file from its source."
                )
    return ours


def settings_of(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What `config.json` of a VideoMAE says, as keywords of `VisionTransformer`. Raises `CheckpointError`."""
    try:
        return _settings(config, where)
    except (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise CheckpointError(f"{where}: its config.json is damaged ({error}). Download it again.") from None


def _settings(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    size, patch = config.get("image_size", 224), config.get("patch_size", 16)
    patches = [patch, patch] if isinstance(patch, int) else list(patch)
    if patches[0] != patches[1]:
        raise CheckpointError(f"{where}: patches of {patches[0]} x {patches[1]} pixels; this library has square ones.")
    for name, value in (("hidden_act", "gelu"), ("num_channels", 3), ("qv_bias", True)):
        if config.get(name, value) != value:
            raise CheckpointError(f"{where}: {name} is {config[name]}; models of this library have {value}.")
    image = size if isinstance(size, int) else tuple(size)
    frames, tubelet = int(config.get("num_frames", 16)), int(config.get("tubelet_size", 2))
    width = int(config.get("hidden_size", 768))
    return {
        "image_size": image,
        "num_frames": frames,
        "tubelet_size": tubelet,
        "patch_size": patches[0],
        "width": width,
        "depth": int(config.get("num_hidden_layers", 12)),
        "heads": int(config.get("num_attention_heads", 12)),
        "mlp_ratio": _ratio(int(config.get("intermediate_size", 3072)), width),
        "use_mean_pooling": bool(config.get("use_mean_pooling", True)),
        "position_grid": token_grid(image, patches[0], frames, tubelet),
    }


def _ratio(hidden: int, width: int) -> float:
    """The `mlp_ratio` of which int(width * ratio) is exactly `hidden`."""
    return hidden / width if int(width * (hidden / width)) == hidden else (hidden + 0.5) / width


def labels_of(config: Mapping[str, Any], classes: int) -> tuple[str, ...] | None:
    """Names of `id2label`; None where it has only the placeholders LABEL_0, LABEL_1, ... or another number of them."""
    named = config.get("id2label")
    if not isinstance(named, Mapping):
        return None
    try:
        names = tuple(str(named[key]) for key in sorted(named, key=int))
        whole = [int(key) for key in sorted(named, key=int)] == list(range(classes))
    except ValueError:
        return None
    placeholder = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return names if whole and not placeholder and len(set(names)) == len(names) else None
