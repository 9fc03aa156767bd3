"""The library's models under `timm.create_model("umt_<name>")`, on request. timm is imported only then.

There they take timm's keywords (`img_size`, `embed_dim`, `global_pool`, ...) besides their own, and
`features_only=True`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from umt import imagenet
from umt.errors import ConfigError
from umt.models.files.loading import load_weights
from umt.models.registry import create_model
from umt.models.specs import SPECS

__all__ = ["register_timm"]  # timm appends the entries' names

# timm's word -> ours. timm's drop_rate is that before the head; ours of that name has no counterpart there.
_KEYWORDS = {"img_size": "image_size", "embed_dim": "width", "num_heads": "heads", "drop_rate": "fc_drop_rate"}


def register_timm() -> list[str]:
    """Adds every model to timm's registry as `umt_<name>` and gives the names; may be called again. Needs timm.

    Raises `ConfigError` rather than replace an entry of another origin.
    """
    import timm

    names = [f"umt_{name}" for name in SPECS]
    for name, entry in zip(SPECS, names, strict=True):
        if entry in globals():
            continue
        if timm.is_model(entry):
            raise ConfigError(f"timm already has a model {entry!r} of another origin, which is not replaced.")
        globals()[entry] = _entry(name, entry)
        timm.models.register_model(globals()[entry])
    return names


def _entry(name: str, entry: str) -> Callable[..., Any]:
    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: Any = None,
        features_only: bool = False,
        out_indices: int | tuple[int, ...] = 1,
        **keywords: Any,
    ) -> nn.Module:
        file = (pretrained_cfg_overlay or {}).get("file")
        if pretrained and not file:
            raise ConfigError(
                f"{entry} has no weights to download (pretrained=True). Load a file: pretrained_cfg_overlay="
                '{"file": "b16_k400.pth"}, checkpoint_path="b16_k400.pth", or umt.models.load_weights afterwards.'
            )
        model = create_model(name, **_translated(entry, keywords))
        model.pretrained_cfg = model.default_cfg = _facts(name, model)
        if pretrained:
            load_weights(model, str(file))
        return _feature_getter(entry, model, out_indices) if features_only else model

    create.__name__ = create.__qualname__ = entry
    create.__doc__ = SPECS[name].summary
    return create


def _translated(entry: str, keywords: dict[str, Any]) -> dict[str, Any]:
    """timm's keywords as ours. Raises `ConfigError` for what the models cannot be."""
    keywords = dict(keywords)
    if keywords.pop("in_chans", 3) != 3:
        raise ConfigError(f"{entry} takes 3 colours (in_chans).")
    pool = keywords.pop("global_pool", None)
    if pool is not None:
        if pool not in ("avg", "token"):
            raise ConfigError(f"{entry} pools by 'avg' or takes the first 'token' (global_pool), not {pool!r}.")
        keywords["use_mean_pooling"] = pool == "avg"
    for theirs, ours in _KEYWORDS.items():
        if theirs in keywords:
            if ours in keywords:
                raise ConfigError(f"{entry}: {theirs} and {ours} mean the same. Give one of them.")
            keywords[ours] = keywords.pop(theirs)
    return keywords


def _facts(name: str, model: nn.Module) -> dict[str, Any]:
    """What timm's helpers (`resolve_model_data_config`, ...) read."""
    spec = SPECS[name]
    size = getattr(model, "clip_shape", (0, spec.image_size, spec.image_size))[1:]
    return {
        "architecture": f"umt_{name}",
        "input_size": (3, *size),
        "fixed_input_size": True,
        "num_classes": getattr(model, "num_classes", 0),
        "classifier": "head",
        "first_conv": "patch_embed.proj",
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "pool_size": None,
        "mean": imagenet.MEAN,
        "std": imagenet.STD,
    }


def _feature_getter(entry: str, model: nn.Module, out_indices: int | tuple[int, ...]) -> nn.Module:
    from timm.models._features import FeatureGetterNet

    if SPECS[entry.removeprefix("umt_")].kind != "classifier":
        raise ConfigError(f"{entry} has no features_only=True; the classifiers (umt_vit_...) do.")
    getter: nn.Module = FeatureGetterNet(model, out_indices, output_fmt="NLC")
    return getter
