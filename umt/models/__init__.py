"""Video models as a library: torch is the only thing needed, and nothing global changes.

    from umt.models import create_model, load_weights
    model = create_model("vit_base_patch16_224", num_frames=8)
    print(load_weights(model, "b16_k400.pth"))

Names are imported when they are first used, so that `umt.models.specs` costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umt.models.clip_teacher import ClipTeacher
    from umt.models.description import Description
    from umt.models.loading import LoadReport, load_weights
    from umt.models.pretrained import Pretrained, load_pretrained
    from umt.models.registry import create_model, list_models, register_model
    from umt.models.specs import ModelSpec
    from umt.models.student import Student
    from umt.models.teacher import Teacher, create_teacher
    from umt.models.timm_entries import register_timm
    from umt.models.vit import VisionTransformer

_HOME = {
    "ClipTeacher": "clip_teacher",
    "Description": "description",
    "LoadReport": "loading",
    "ModelSpec": "specs",
    "Pretrained": "pretrained",
    "Student": "student",
    "Teacher": "teacher",
    "VisionTransformer": "vit",
    "create_model": "registry",
    "create_teacher": "teacher",
    "list_models": "registry",
    "load_pretrained": "pretrained",
    "load_weights": "loading",
    "register_model": "registry",
    "register_timm": "timm_entries",
}

__all__ = [
    "ClipTeacher",
    "Description",
    "LoadReport",
    "ModelSpec",
    "Pretrained",
    "Student",
    "Teacher",
    "VisionTransformer",
    "create_model",
    "create_teacher",
    "list_models",
    "load_pretrained",
    "load_weights",
    "register_model",
    "register_timm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
