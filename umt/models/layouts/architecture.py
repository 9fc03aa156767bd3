"""What model a state dict was saved from, read off its names and shapes.

The number of heads leaves no trace in the shapes: it is that of the library's model of the same sizes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from umt.errors import CheckpointError
from umt.models.layouts.foreign import no_architecture, refuse_foreign
from umt.models.specs import SPECS, ModelSpec

_BLOCK = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True)
class Architecture:
    """`pretrained` and `prefix` say whose pretraining a file comes from: the student's, VideoMAE's, or none."""

    pretrained: Literal["", "student", "videomae"]
    prefix: str
    width: int
    depth: int
    hidden: int
    patch_size: int
    tubelet_size: int
    num_classes: int
    use_mean_pooling: bool
    init_values: float
    return_layers: int = 0
    teacher_width: int = 0
    table: Tensor | None = None

    @property
    def is_student(self) -> bool:
        return self.pretrained == "student"

    def name(self, kind: str, image_size: int | None = None) -> str:
        """Name of the library's model of these sizes, or "" if it has none; that of `image_size` before others."""
        return next(iter(self.names(kind, image_size)), "")

    def names(self, kind: str, image_size: int | None = None) -> list[str]:
        """Names of all of them."""
        fits = [name for name, spec in SPECS.items() if spec.kind == kind and self._fits(spec)]
        return sorted(fits, key=lambda name: SPECS[name].image_size != image_size)

    def _fits(self, spec: ModelSpec) -> bool:
        sizes = (spec.width, spec.depth, spec.patch_size, int(spec.width * spec.mlp_ratio))
        return sizes == (self.width, self.depth, self.patch_size, self.hidden)

    def arguments(self, kind: str) -> dict[str, Any]:
        """Keywords of the model's class that the file settles, apart from the sizes of its entry."""
        arguments: dict[str, Any] = {"tubelet_size": self.tubelet_size}
        if self.init_values:
            arguments["init_values"] = self.init_values
        if kind == "student":
            return arguments | {"return_layers": self.return_layers, "teacher_width": self.teacher_width}
        return arguments | {"num_classes": self.num_classes, "use_mean_pooling": self.use_mean_pooling}

    def __str__(self) -> str:
        return f"width {self.width}, {self.depth} blocks, patch {self.patch_size}, hidden width {self.hidden}"


def architecture_of(state: dict[str, Tensor], where: str) -> Architecture:
    """Of a state dict with the original's names, possibly below `encoder.` or `backbone.`; raises `CheckpointError`."""
    refuse_foreign(state, where)
    prefix = next((p for p in ("", "encoder.", "backbone.") if f"{p}patch_embed.proj.weight" in state), None)
    if prefix is None:
        raise no_architecture(state, where)
    kernel = state[f"{prefix}patch_embed.proj.weight"]
    if kernel.ndim != 5:
        raise CheckpointError(
            f"{where} is of an image model: its patch_embed.proj.weight has {kernel.ndim} axes, a video model's has 5."
        )
    blocks = [int(match[1]) for name in state if (match := _BLOCK.match(name.removeprefix(prefix)))]
    try:
        hidden = state[f"{prefix}blocks.0.mlp.fc1.weight"].shape[0]
    except (KeyError, IndexError):
        raise CheckpointError(f"{where} lacks the weights of its blocks (blocks.0.mlp.fc1.weight).") from None
    head, decoder = state.get("head.weight"), state.get("clip_decoder.0.head.weight")
    gamma = state.get(f"{prefix}blocks.0.gamma_1")
    student = decoder is not None and decoder.ndim == 2
    return Architecture(
        pretrained="student" if student else "videomae" if any(n.startswith("decoder.") for n in state) else "",
        prefix=prefix,
        width=kernel.shape[0],
        depth=1 + max(blocks, default=0),
        hidden=hidden,
        patch_size=kernel.shape[-1],
        tubelet_size=kernel.shape[2],
        num_classes=0 if head is None or head.ndim != 2 else head.shape[0],
        use_mean_pooling=head is None or f"{prefix}fc_norm.weight" in state,
        init_values=0.0 if gamma is None else 1e-5,
        return_layers=len({n.split(".")[1] for n in state if n.startswith("clip_decoder.")}) if student else 0,
        teacher_width=decoder.shape[0] if decoder is not None and student else 0,
        table=state.get(f"{prefix}pos_embed"),
    )
