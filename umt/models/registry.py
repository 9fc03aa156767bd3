"""Models by name: the library's own registry. timm's is left alone unless timm_entries.py is asked."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from umt.errors import ConfigError
from umt.models.clip_teacher import ClipTeacher
from umt.models.specs import SPECS, ModelSpec, find_spec
from umt.models.student import Student
from umt.models.vit import VisionTransformer
from umt.spelling import did_you_mean

CLASSES: dict[str, type[nn.Module]] = {"student": Student, "classifier": VisionTransformer, "teacher": ClipTeacher}


def list_models(kind: str | None = None) -> list[str]:
    """Names for `create_model`; `kind`: "student", "classifier" or "teacher" only."""
    return [name for name, spec in SPECS.items() if kind in (None, spec.kind)]


def create_model(name: str, **overrides: Any) -> Any:
    """The model called `name`, with fresh weights; `overrides` are keywords of its class and win over its sizes.

    Raises `ConfigError` for impossible sizes, and, with the nearest known ones, for unknown names and keywords.
    """
    spec = find_spec(name)
    model_class = CLASSES[spec.kind]
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
