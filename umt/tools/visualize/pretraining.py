"""`umt visualize` for pretraining: the teacher's saliency, the mask, and how closely the student follows the teacher.

Shapes: L tokens of a clip, V of them visible, K aligned blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umt.data.masking import visible_tokens
from umt.errors import CheckpointError
from umt.inference.recognizer import Recognizer
from umt.models import Student, VisionTransformer
from umt.randomness import generator
from umt.tools.visualize.look import Look
from umt.tools.visualize.teacher import Guide

# By what a teacher's saliency is (umt/models/teachers/timm.py).
_SALIENCY = {
    "class token": "The class token's attention in the last block",
    "attention pool": "The attention pool's attention",
    "attention received": "What each patch receives of all in the last block",
}


class Pretraining:
    """What a run with the guide's teacher and mask would see of a clip; `seed`: of the mask."""

    def __init__(self, model: Recognizer, guide: Guide, *, seed: int = 0) -> None:
        assert isinstance(model.model, Student | VisionTransformer)
        self.model, self.guide, self.seed = model, guide, seed
        self.encoder: Student | VisionTransformer = model.model

    def __call__(self, look: Look, inputs: Tensor) -> None:
        """Raises CheckpointError for a teacher that gives no numbers."""
        teacher = self.guide.teacher
        with torch.no_grad(), self.model.autocast():
            features, saliency = teacher(inputs) if teacher is not None else (None, None)
            if saliency is not None and not saliency.isfinite().all():
                raise CheckpointError(
                    f"the teacher {self.guide.name} gives a saliency that is not finite. Check its weights, or take "
                    "--precision fp32."
                )
            if not self.guide.mask_type:
                return
            visible = self._visible(saliency)
        self._mask(look, saliency, visible)
        if teacher is not None and isinstance(self.encoder, Student):
            self._cosines(look, inputs, features, visible)

    def _visible(self, saliency: Tensor | None) -> Tensor:
        """(1, V): a mask as a run draws it, by a seed of its own."""
        time, height, width = self.encoder.grid
        draws = generator(self.seed, "visualize", "mask").random((1, time, height * width), dtype=np.float32)
        noise = torch.from_numpy(draws).to(self.model.device)
        return visible_tokens(self.guide.mask_type, self.guide.mask_ratio, noise, saliency)

    def _mask(self, look: Look, saliency: Tensor | None, visible: Tensor) -> None:
        mask = torch.zeros(self.encoder.num_tokens, device=visible.device).scatter_(0, visible[0], 1.0)
        share = ""
        if saliency is not None:
            scaled = saliency[0] / saliency[0].amax(-1, keepdim=True).clamp(min=1e-12)
            origin = getattr(self.guide.teacher, "saliency_from", "class token")
            note = f"{_SALIENCY[origin]}, each frame scaled to its own most."
            look.add("saliency", "the teacher's saliency", note, "heat", scaled)
            held = float((saliency[0].flatten() * mask).sum() / saliency.sum())
            share = f", which hold {100 * held:.0f} % of the saliency"
        note = f"{100 * float(mask.mean()):.0f} % of the tokens{share}; {self.guide.mask_type} mask."
        look.add("visible", "visible tokens", note, "mask", mask)

    def _cosines(self, look: Look, inputs: Tensor, features: Any, visible: Tensor) -> None:
        student, teacher = self.encoder, self.guide.teacher
        assert isinstance(student, Student)
        assert teacher is not None
        everything = torch.arange(student.num_tokens, device=visible.device)[None]
        cosines = []
        with torch.no_grad(), self.model.autocast():
            for tokens in (visible, everything):
                target = teacher.project(features, tokens)
                prediction = student(inputs, tokens)
                cosines.append(F.cosine_similarity(prediction.float(), target.float(), dim=-1)[:, 0])
        hidden, whole = cosines  # (K, V), (K, L)
        shown = whole[:, visible[0]]
        for k, blocks in enumerate(zip(student.returned, teacher.returned, strict=True)):
            names = " and ".join(str(block + 1) for block in blocks)
            look.cosines.append((names, float(hidden[k].mean()), float(shown[k].mean())))
        note = f"Last aligned block, no token hidden; mean {float(whole[-1].mean()):.2f}. 0 is dark, 1 bright."
        look.add("cosine", "cosine of student and teacher", note, "cosine", whole[-1].clamp(0, 1))
