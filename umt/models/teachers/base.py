"""What a task asks of an image teacher, and the one function that makes any of them from a name.

Names are those of `SPECS` (CLIP) and `timm:NAME` (timm.py). Shapes as in clip.py.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from torch import Tensor, nn

from umt.errors import ConfigError
from umt.models.specs import find_spec
from umt.models.teachers.timm_names import TIMM, is_timm


class Teacher(Protocol):
    """A frozen image model that looks at every frame by itself. Its implementations are modules."""

    patch_grid: tuple[int, int]  # tokens of a frame, (height, width)
    patch_size: int
    tubelet_size: int  # frames of a token
    output_dim: int  # E
    returned: tuple[int, ...]  # numbers of the K aligned blocks, ascending

    def __call__(self, video: Tensor) -> tuple[list[Tensor], Tensor]:
        """video (B, 3, T, H, W), ImageNet-normalised -> K x (B, T' N, D) and saliency (B, T', N) float32."""
        ...

    def project(self, features: list[Tensor], visible: Tensor) -> Tensor:
        """features K x (B, L, D), visible (B, V) -> targets (K, B, V, E) float32."""
        ...


def create_teacher(
    name: str,
    *,
    image_size: int | tuple[int, int] = 224,
    return_layers: int = 6,
    return_interval: float = 1,
    norm_type: str = "l2",
    weights: str = "",
    download: bool = True,
) -> tuple[Teacher, str]:
    """The teacher called `name`, and a text on where its weights are from.

    Args:
        weights: file, URL or name of the hub, read as `load_weights` and timm read it; "": a CLIP's stay random, and
            timm downloads its own.
        download: False: those of timm stay random too.

    Raises `ConfigError` for a model that cannot teach, `CheckpointError` for weights that do not fit.
    """
    keywords: dict[str, Any] = {
        "image_size": image_size,
        "return_layers": return_layers,
        "return_interval": return_interval,
        "norm_type": norm_type,
    }
    if is_timm(name):
        from umt.models.teachers.timm import TimmTeacher, load_timm

        name = name[len(TIMM) :]
        model, origin = load_timm(name, weights=weights, download=download, image_size=image_size)
        return TimmTeacher(model, name=name, **keywords), origin
    if find_spec(name).kind != "teacher":
        raise ConfigError(f"{name} is not a teacher. A CLIP is (clip_b16, ...), or a transformer of timm's: timm:NAME.")
    from umt.models.files.loading import load_weights
    from umt.models.registry import create_model
    from umt.models.teachers.clip import ClipTeacher

    teacher: ClipTeacher = create_model(name, **keywords)
    if not weights:
        return teacher, f"{name} with random weights"
    return teacher, str(load_weights(teacher, weights, model_key="model|module|state_dict"))


def as_module(teacher: Teacher) -> nn.Module:
    """The same object by its other type."""
    return cast(nn.Module, teacher)
