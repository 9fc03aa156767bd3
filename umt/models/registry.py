"""Models by name: the library's own registry. timm's is left alone unless timm_entries.py is asked."""

from __future__ import annotations

import inspect
import pkgutil
from typing import Any

from torch import nn

from umt.errors import ConfigError
from umt.models.specs import FAMILIES, SPECS, ModelSpec, find_spec
from umt.spelling import did_you_mean


def class_of(kind: str) -> type[nn.Module]:
    """The class of all models of `kind`, imported now: the classes themselves come here by way of `from_pretrained`."""
    model_class: type[nn.Module] = pkgutil.resolve_name(FAMILIES[kind].model)
    return model_class


def list_models(kind: str | None = None) -> list[str]:
    """Names for `create_model`; `kind`: only those of one of `FAMILIES`, e.g. "classifier"."""
    return [name for name, spec in SPECS.items() if kind in (None, spec.kind)]


def create_model(name: str, **overrides: Any) -> Any:
    """The model called `name`, with fresh weights; `overrides` are keywords of its class and win over its sizes.

    Raises `ConfigError` for impossible sizes, and, with the nearest known ones, for unknown names and keywords.
    """
    spec = find_spec(name)
    model_class = class_of(spec.kind)
    known = list(inspect.signature(model_class).parameters)
    for keyword in overrides:
        if keyword not in known:
            raise ConfigError(f"model {name} has no argument {keyword!r}. {did_you_mean(keyword, known, count=1)}")
    return model_class(**{**spec.arguments(), **overrides})


def register_model(name: str, spec: ModelSpec) -> None:
    """Adds a model of your own sizes to the registry; a name that exists is refused, never replaced."""
    if name in SPECS:
        raise ConfigError(f"model {name!r} exists already. Choose another name.")
    SPECS[name] = spec
