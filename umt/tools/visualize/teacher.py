"""The image teacher that a checkpoint was pretrained with, or that the flags name, and how its run masked."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umt.errors import ConfigError
from umt.inference.recognizer import Recognizer
from umt.models import Student, VisionTransformer
from umt.models.specs import find_spec
from umt.models.teachers.base import Teacher, as_module, create_teacher
from umt.models.teachers.timm_names import is_timm


@dataclass
class Guide:
    """`teacher` None: there is none, and `missing` says why. The mask is drawn as a run with these flags draws it;
    `mask_type` "": there is none.
    """

    teacher: Teacher | None
    name: str
    mask_type: str
    mask_ratio: float
    missing: list[str] = field(default_factory=list)


def guide_of(words: Namespace, model: Recognizer, settings: dict[str, Any]) -> Guide:
    """`settings`: flags of the run that the checkpoint comes from. Raises ConfigError or CheckpointError."""
    of_run = settings if settings.get("task") == "pretrain" or "clip_teacher" in settings else {}
    name = words.teacher or str(of_run.get("clip_teacher", "") or "")
    for flag in ("teacher_weights", "teacher_resolution"):
        if getattr(words, flag) and name in ("", "none"):
            why = "--teacher none takes none" if name else "the checkpoint names no teacher"
            raise ConfigError(f"--{flag} ({getattr(words, flag)}): {why}. Give --teacher NAME with it, e.g. clip_b16.")
    missing: list[str] = []
    teacher = None
    if name and name != "none":
        weights = words.teacher_weights or ("" if words.teacher else str(of_run.get("clip_teacher_weights") or ""))
        if not weights and not (is_timm(name) and words.teacher):
            what = f"--teacher {name}" if words.teacher else f"the teacher {name} of the run"
            missing.append(f"No saliency and no cosine: {what} has no weights here. Give --teacher_weights FILE.")
        elif not words.teacher_weights and weights and "://" not in weights and not Path(weights).exists():
            missing.append(
                f"No saliency and no cosine: the run's teacher weights, {weights}, are not there. "
                "Give --teacher_weights FILE."
            )
        else:
            teacher = _teacher(words, name, weights, model, of_run)
    elif not name:
        missing.append(
            "No saliency, no cosine: this checkpoint names no teacher. Give --teacher and --teacher_weights."
        )
    if teacher is not None and not isinstance(model.model, Student):
        missing.append("No cosine with the teacher: only a pretraining checkpoint has the student's predictions.")
    if teacher is None and not of_run and not words.mask_type:
        missing.append("No mask: nothing was hidden from this model in its training, as far as its checkpoint says.")
        return Guide(None, "", "", 0.0, missing)
    mask_type = words.mask_type or of_run.get("mask_type", "attention")
    if mask_type == "attention" and teacher is None:
        if words.mask_type:
            raise ConfigError("--mask_type attention follows a teacher. Give --teacher_weights, or choose another.")
        mask_type = "tube"
        missing.append("The mask has no attention to follow: it is a tube mask, of the same share.")
    ratio = words.mask_ratio if words.mask_ratio is not None else float(of_run.get("mask_ratio", 0.8))
    return Guide(teacher, name if teacher is not None else "", mask_type, ratio, missing)


def _teacher(words: Namespace, name: str, weights: str, model: Recognizer, of_run: dict[str, Any]) -> Teacher:
    assert isinstance(model.model, Student | VisionTransformer)
    _, height, width = model.model.grid
    size: Any = words.teacher_resolution or (None if words.teacher else of_run.get("clip_input_resolution"))
    if not size and is_timm(name):
        size = model.model.clip_shape[1:]
    elif not size:
        patch = find_spec(name).patch_size
        size = (height * patch, width * patch)
    aligned: dict[str, Any] = {"return_layers": 1}
    if isinstance(model.model, Student):
        aligned = {
            "return_layers": len(model.model.returned), "return_interval": of_run.get("clip_return_interval", 1),
        }  # fmt: skip
    teacher, _ = create_teacher(name, image_size=size, weights=weights, **aligned)
    if tuple(teacher.patch_grid) != (height, width):
        raise ConfigError(
            f"--teacher {name} sees {teacher.patch_grid[0]} x {teacher.patch_grid[1]} patches of a frame, the model "
            f"{height} x {width}. Give --teacher_resolution {height * teacher.patch_size}."
        )
    as_module(teacher).to(model.device).eval().requires_grad_(False)
    return teacher
