"""The numbers of one video: what teacher and model make of a clip, each as a map over the clip's tokens.

Shapes: T frames of H x W pixels, T' x h x w tokens, L of them in all, K aligned blocks, E the teacher's output width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from umt.data.masking import visible_tokens
from umt.data.video.decoders import Frames
from umt.errors import CheckpointError
from umt.inference.recognizer import Recognizer
from umt.models import Student, VisionTransformer
from umt.models.vit.rollout import block_attentions, class_maps, received, rollout
from umt.randomness import generator
from umt.tools.visualize.teacher import Guide

# By what a teacher's saliency is (umt/models/teachers/timm.py).
_SALIENCY = {
    "class token": "The class token's attention in the last block",
    "attention pool": "The attention pool's attention",
    "attention received": "What each patch receives of all in the last block",
}
Kind = Literal["heat", "mask", "cosine"]


@dataclass(frozen=True)
class Map:
    """One row of the page. `values` (T', h, w): "heat" and "cosine" in 0..1, "mask" 1 where a token is visible."""

    key: str
    title: str
    note: str
    kind: Kind
    values: NDArray[np.float32]


@dataclass
class Look:
    """What is seen of one video; `numbers` are those of the frames in the file."""

    path: str
    frames: Frames
    numbers: list[int]
    maps: list[Map] = field(default_factory=list)
    cosines: list[tuple[str, float, float]] = field(
        default_factory=list
    )  # blocks; at visible tokens: others hidden, none hidden
    answers: list[tuple[str, float]] = field(default_factory=list)  # class and probability


class Viewer:
    """A model and its guide, ready to look at videos."""

    def __init__(self, model: Recognizer, guide: Guide, *, seed: int = 0, topk: int = 2, residual: float = 0.5) -> None:
        assert isinstance(model.model, Student | VisionTransformer)
        self.model, self.guide, self.seed, self.topk, self.residual = model, guide, seed, topk, residual
        self.encoder: Student | VisionTransformer = model.model
        self.grid = self.encoder.grid

    def look(self, path: str) -> Look:
        """The middle clip of a video. Raises VideoError, and CheckpointError for a model that gives no numbers."""
        clips = self.model.views.clips(self.model.views.open(path), 1, 1)
        with clips.videos.open(0) as video:
            indices = np.atleast_2d(clips.sample(len(video)))[0]
            frames = clips.transform(video.frames(indices))[0]
        made = Look(path, frames, [int(i) for i in indices])
        (inputs,) = self.model.batches(torch.from_numpy(np.ascontiguousarray(frames))[None])
        self._require_numbers(inputs)
        with torch.no_grad(), self.model.autocast():
            features, saliency = self.guide.teacher(inputs) if self.guide.teacher is not None else (None, None)
            if saliency is not None and not saliency.isfinite().all():
                raise CheckpointError(
                    f"the teacher {self.guide.name} gives a saliency that is not finite. Check its weights, or take "
                    "--precision fp32."
                )
            visible = self._visible(saliency) if self.guide.mask_type else None
        if visible is not None:
            self._pretraining(made, inputs, features, saliency, visible)
        self._attention(made, inputs)
        if isinstance(self.encoder, VisionTransformer) and self.model.num_classes:
            self._classes(made, inputs, self.encoder)
        return made

    @torch.no_grad()
    def _require_numbers(self, inputs: Tensor) -> None:
        """Of weights that are no numbers there is nothing to draw. Raises CheckpointError."""
        classes = isinstance(self.encoder, VisionTransformer) and bool(self.model.num_classes)
        with self.model.autocast():
            values = self.encoder(inputs) if classes else self.encoder.forward_features(inputs)
        self.model.require_finite(values, "scores" if classes else "features")

    def _visible(self, saliency: Tensor | None) -> Tensor:
        """(1, V): a mask as a run draws it, by a seed of its own."""
        time, height, width = self.grid
        draws = generator(self.seed, "visualize", "mask").random((1, time, height * width), dtype=np.float32)
        noise = torch.from_numpy(draws).to(self.model.device)
        return visible_tokens(self.guide.mask_type, self.guide.mask_ratio, noise, saliency)

    def _map(self, values: Tensor) -> NDArray[np.float32]:
        """(L,) or (T', N) -> (T', h, w)."""
        return values.detach().float().cpu().reshape(self.grid).numpy()

    def _pretraining(self, made: Look, inputs: Tensor, features: Any, saliency: Tensor | None, visible: Tensor) -> None:
        count = self.encoder.num_tokens
        seen = torch.zeros(count, device=visible.device).scatter_(0, visible[0], 1.0)
        holds = ""
        if saliency is not None:
            share = saliency[0] / saliency[0].amax(-1, keepdim=True).clamp(min=1e-12)
            held = float((saliency[0].flatten() * seen).sum() / saliency.sum())
            origin = getattr(self.guide.teacher, "saliency_from", "class token")
            note = f"{_SALIENCY[origin]}, each frame scaled to its own most."
            made.maps.append(Map("saliency", "the teacher's saliency", note, "heat", self._map(share)))
            holds = f", which hold {100 * held:.0f} % of the saliency"
        note = f"{100 * float(seen.mean()):.0f} % of the tokens{holds}; {self.guide.mask_type} mask."
        made.maps.append(Map("visible", "visible tokens", note, "mask", self._map(seen)))
        teacher = self.guide.teacher
        if teacher is None or not isinstance(self.encoder, Student):
            return
        everything = torch.arange(count, device=visible.device)[None]
        cosines = []
        with torch.no_grad(), self.model.autocast():
            for tokens in (visible, everything):
                target = teacher.project(features, tokens)
                prediction = self.encoder(inputs, tokens)
                cosines.append(F.cosine_similarity(prediction.float(), target.float(), dim=-1)[:, 0])  # (K, V)
        alone, whole = cosines[0], cosines[1]
        among = whole[:, visible[0]]
        taught = teacher.returned
        for k, (own, other) in enumerate(zip(self.encoder.returned, taught, strict=True)):
            made.cosines.append((f"{own + 1} and {other + 1}", float(alone[k].mean()), float(among[k].mean())))
        note = f"Last aligned block, no token hidden; mean {float(whole[-1].mean()):.2f}. 0 is dark, 1 bright."
        values = self._map(whole[-1].clamp(0, 1))
        made.maps.append(Map("cosine", "cosine of student and teacher", note, "cosine", values))

    def _attention(self, made: Look, inputs: Tensor) -> None:
        encoder = self.encoder
        blocks = list(encoder.encoder.blocks if isinstance(encoder, Student) else encoder.blocks)

        def run() -> None:
            with self.model.autocast():
                encoder.forward_features(inputs)

        attentions = block_attentions(blocks, run)
        for key, title, values in (
            ("rollout", "attention rollout", rollout(attentions, residual=self.residual)[0]),
            ("attention", "attention of the last block", received(attentions[-1])[0]),
        ):
            most = float(values.max() / values.mean())
            note = f"From the clip's least to its most; the strongest token counts {most:.1f} times the mean."
            spread = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
            made.maps.append(Map(key, title, note, "heat", self._map(spread)))

    def _classes(self, made: Look, inputs: Tensor, encoder: VisionTransformer) -> None:
        with torch.no_grad(), self.model.autocast():
            tokens = encoder.forward_features(inputs)
        head: Callable[[Tensor], Tensor] = encoder.forward_head
        with torch.no_grad():
            logits = head(tokens.float())[0]
        odds = logits.sigmoid() if self.model.description.multi_label else logits.softmax(-1)
        best = odds.topk(min(self.topk, len(odds))).indices.tolist()
        made.answers = [(self.model.labels[k], float(odds[k])) for k in odds.topk(min(5, len(odds))).indices.tolist()]
        maps = class_maps(tokens.float(), head, best)[0].clamp(min=0)  # (topk, L)
        maps = maps / maps.max().clamp(min=1e-12)
        for place, (k, values) in enumerate(zip(best, maps, strict=True)):
            note = "Gradient times activation of the last tokens, where it speaks for the class."
            title = f"{self.model.labels[k]} {100 * float(odds[k]):.0f} %"
            made.maps.append(Map(f"class{place}", title, note, "heat", self._map(values)))
