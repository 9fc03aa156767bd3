"""The names that CLIP's visual tower has in other libraries' files, and their way to OpenAI's, which are ours.

    OpenAI, open_clip     visual.conv1.weight, visual.transformer.resblocks.0.attn.in_proj_weight, ...
    Hugging Face          vision_model.encoder.layers.0.self_attn.q_proj.weight, ..., visual_projection.weight
    timm                  blocks.0.attn.qkv.weight, ..., head.weight; in open_clip under visual.trunk.

Pure functions; a file is recognised by its names, not by what it is called. Shapes: D width, E output width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from umt.errors import CheckpointError
from umt.models.layouts.adapters import StateDict, take_prefix

OPENAI = "OpenAI's"
# Within a block, and outside of the blocks.
_HUGGING_FACE_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_HUGGING_FACE = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",  # the library's own spelling
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_TIMM_BLOCK = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "attn.proj": "attn.out_proj",
    "attn.qkv": "attn.in_proj",
}
_TIMM = {
    "patch_embed.proj.weight": "conv1.weight",
    "norm_pre.weight": "ln_pre.weight",
    "norm_pre.bias": "ln_pre.bias",
    "norm.weight": "ln_post.weight",
    "norm.bias": "ln_post.bias",
}


class VisualTower(NamedTuple):
    """A tower under OpenAI's names, whose file had `layout`, and the names of the file that are no part of it."""

    state: StateDict
    layout: str
    unused: list[str]


def to_openai(state: StateDict, path: str) -> VisualTower:
    """CLIP's visual tower out of a state dict of any known layout; `path` is named in errors.

    Raises `CheckpointError` for what is not CLIP, is another kind of CLIP, or lacks its projection.
    """
    names = state.keys()
    if any(name.startswith(("visual.layer1.", "layer1.")) for name in names):
        raise CheckpointError(f"{path} is a CLIP with a ResNet; the teacher is a vision transformer.")
    if any(name.startswith("visual.trunk.") for name in names):
        return _from_timm_tower(state, path)
    if "visual.conv1.weight" in names or "conv1.weight" in names:
        return _from_openai(state)
    for prefix in ("vision_model.", ""):
        if f"{prefix}embeddings.patch_embedding.weight" in names:
            return _from_hugging_face(state, prefix, path)
    if "patch_embed.proj.weight" in names and "blocks.0.norm1.weight" in names:
        return _from_timm(state, [], "timm's", path)
    raise CheckpointError(
        f"{path} has no visual tower of CLIP (conv1.weight or visual.*, as OpenAI and open_clip name it; "
        "vision_model.*, as Hugging Face does; blocks.* and norm_pre, as timm does)."
    )


def _from_openai(state: StateDict) -> VisualTower:
    visual, others = take_prefix(state, "visual.")
    if not visual:
        visual, others = dict(state), {}
    unused = [*others, *(name for name, value in visual.items() if value.ndim == 0)]  # sizes that archives hold
    return VisualTower({name: value for name, value in visual.items() if value.ndim}, OPENAI, unused)


def _from_hugging_face(state: StateDict, prefix: str, path: str) -> VisualTower:
    tower, others = take_prefix(state, prefix) if prefix else (dict(state), {})
    projection = others.pop("visual_projection.weight", tower.pop("visual_projection.weight", None))
    if "embeddings.class_embedding" not in tower:
        raise CheckpointError(
            f"{path} has no class token, so it is no CLIP; SigLIP's towers have such names. "
            "They teach as --clip_teacher timm:NAME."
        )
    if projection is None:
        raise CheckpointError(
            f"{path} lacks visual_projection.weight, CLIP's projection. Save a CLIPModel or a "
            "CLIPVisionModelWithProjection instead of a CLIPVisionModel."
        )
    converted: StateDict = {"proj": projection.t().contiguous()}
    unused = [f"{name}" for name in others]
    qkv: dict[str, dict[str, Tensor]] = {}
    for name, value in tower.items():
        place, inner, kind = _place(name, "encoder.layers.")
        if name in _HUGGING_FACE:
            converted[_HUGGING_FACE[name]] = value
        elif name == "embeddings.position_ids":  # 0, 1, 2, ... in files of older versions
            unused.append(prefix + name)
        elif inner in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
            qkv.setdefault(f"{place}attn.in_proj_{kind}", {})[inner[-6]] = value
        else:
            converted[f"{place}{_HUGGING_FACE_BLOCK.get(inner, inner)}.{kind}" if place else name] = value
    for name, parts in qkv.items():
        if set(parts) != set("qkv"):
            raise CheckpointError(f"{path} is incomplete: {name} has only its {' and '.join(sorted(parts))} part.")
        converted[name] = torch.cat([parts[letter] for letter in "qkv"])
    return VisualTower(converted, "Hugging Face's", unused)


def _from_timm_tower(state: StateDict, path: str) -> VisualTower:
    trunk, others = take_prefix(state, "visual.trunk.")
    head = others.pop("visual.head.proj.weight", None)
    if head is not None:
        trunk["head.weight"] = head
    return _from_timm(trunk, list(others), "open_clip's with timm's tower", path)


def _from_timm(state: StateDict, unused: list[str], layout: str, path: str) -> VisualTower:
    tower = dict(state)
    if "norm_pre.weight" not in tower or "cls_token" not in tower:
        raise CheckpointError(
            f"{path} is a vision transformer in timm's names, but not CLIP's (it has no norm_pre or no class token). "
            "It may teach as --clip_teacher timm:NAME."
        )
    head, bias = tower.pop("head.weight", None), tower.pop("head.bias", None)
    if head is None:
        raise CheckpointError(
            f"{path} lacks head.weight, CLIP's projection. Save the model with the head that it was loaded with."
        )
    if bias is not None and bool(bias.any()):
        raise CheckpointError(
            f"{path} has a head with a bias, a classifier's, where CLIP has its projection. "
            "Take the weights before they were finetuned."
        )
    converted: StateDict = {"proj": head.t().contiguous(), "class_embedding": tower.pop("cls_token").flatten()}
    if "pos_embed" in tower:
        converted["positional_embedding"] = tower.pop("pos_embed").flatten(0, -2)
    for name, value in tower.items():
        place, inner, kind = _place(name, "blocks.")
        if name in _TIMM:
            converted[_TIMM[name]] = value
        elif place:
            mapped = _TIMM_BLOCK.get(inner, inner)
            converted[f"{place}{mapped}{'_' if mapped == 'attn.in_proj' else '.'}{kind}"] = value
        else:
            converted[name] = value
    return VisualTower(converted, layout, unused)


def _place(name: str, blocks: str) -> tuple[str, str, str]:
    """`blocks.3.attn.proj.weight` -> ("transformer.resblocks.3.", "attn.proj", "weight"); elsewhere ("", ...)."""
    if not name.startswith(blocks) or name.count(".") < blocks.count(".") + 2:
        return "", name, ""
    number, _, rest = name[len(blocks) :].partition(".")
    inner, _, kind = rest.rpartition(".")
    return f"transformer.resblocks.{number}.", inner, kind


def configured_activation(folder: Path) -> str | None:
    """What the configuration in `folder` says of the visual tower's activation: "quick_gelu", another, or None.

    Read are Hugging Face's `config.json`, which names it; open_clip's `open_clip_config.json`, whose flag `quick_gelu`
    is off by default; and timm's `config.json`, which names its architecture.
    """
    config = _json(folder / "open_clip_config.json").get("model_cfg")
    if isinstance(config, dict) and isinstance(config.get("vision_cfg"), dict):
        tower = config["vision_cfg"].get("timm_model_name")
        return activation_of_timm(str(tower)) if tower else "quick_gelu" if config.get("quick_gelu") else "gelu"
    config = _json(folder / "config.json")
    vision = config.get("vision_config", config)
    if str(config.get("model_type", "")).startswith("clip") and isinstance(vision, dict):
        return str(vision.get("hidden_act", "quick_gelu"))  # the default of that library's CLIP
    if "architecture" in config:
        timms = config.get("pretrained_cfg")
        return activation_of_timm(str(config["architecture"]), str(timms.get("tag")) if isinstance(timms, dict) else "")
    return None


def refuse_other_activations(path: str) -> None:
    """`CheckpointError` where the configuration next to the file `path`, or in it, names another than QuickGELU.

    The names and shapes of such a tower are the same, and its features would be wrong without any error.
    """
    activation = configured_activation(Path(path) if Path(path).is_dir() else Path(path).parent)
    if activation not in (None, "quick_gelu"):
        raise CheckpointError(other_activation(path, str(activation), "as the configuration next to it says"))


def other_activation(path: str, activation: str, because: str) -> str:
    """The sentence for a tower whose activation is not OpenAI's."""
    return (
        f"{path} has {activation} in its MLPs ({because}), and our towers QuickGELU as OpenAI's: the features would be "
        "others. Such a CLIP teaches through timm, e.g. --clip_teacher timm:vit_base_patch16_clip_224.laion2b."
    )


def activation_of_timm(architecture: str, tag: str = "") -> str | None:
    """The activation that weights of timm's were trained with, as far as their name says it; else None.

    Its hub has OpenAI's and MetaCLIP's weights under architectures with GELU; timm notes that they are QuickGELU's.
    """
    architecture, _, inner = architecture.lower().partition(".")
    tag = inner or tag.lower()
    if "quickgelu" in architecture or tag in ("openai", "metaclip_400m", "metaclip_2pt5b"):
        return "quick_gelu"
    return "gelu" if tag.startswith(("laion2b", "datacomp")) else None


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
