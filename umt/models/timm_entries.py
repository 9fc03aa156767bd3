"""The library's models under `timm.create_model("umt_<name>")`, on request. timm is imported only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from umt.errors import ConfigError
from umt.models.registry import create_model
from umt.models.specs import SPECS

__all__ = ["register_timm"]  # timm appends the entries' names


def register_timm() -> list[str]:
    """Adds every model to timm's registry as `umt_<name>` and gives the names; may be called again. Needs timm.

    Raises `ConfigError` rather than replace an entry that somebody else has registered.
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
    def create(pretrained: bool = False, **overrides: Any) -> Any:
        if pretrained:
            raise ConfigError(f"{entry} has no weights to download (pretrained=True). Use umt.models.load_weights.")
        for timms_own in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            overrides.pop(timms_own, None)
        return create_model(name, **overrides)

    create.__name__ = create.__qualname__ = entry
    create.__doc__ = SPECS[name].summary
    return create
