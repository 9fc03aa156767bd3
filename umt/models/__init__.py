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
    from umt.models.files.description import Description
    from umt.models.files.loading import LoadReport, load_weights
    from umt.models.files.pretrained import Pretrained, load_pretrained
    from umt.models.registry import create_model, list_models, register_model
    from umt.models.specs import ModelSpec
    from umt.models.teachers.base import Teacher, create_teacher
    from umt.models.teachers.clip import ClipTeacher
    from umt.models.timm_entries import register_timm
    from umt.models.vit.classifier import VisionTransformer
    from umt.models.vit.student import Student

_HOME = {
    "ClipTeacher": "teachers.clip",
    "Description": "files.description",
    "LoadReport": "files.loading",
    "ModelSpec": "specs",
    "Pretrained": "files.pretrained",
    "Student": "vit.student",
    "Teacher": "teachers.base",
    "VisionTransformer": "vit.classifier",
    "create_model": "registry",
    "create_teacher": "teachers.base",
    "list_models": "registry",
    "load_pretrained": "files.pretrained",
    "load_weights": "files.loading",
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
