"""The numbers of one video: what is shown of a clip, each as a map over the clip's tokens.

Shapes: T frames of H x W pixels, T' x h x w tokens, L of them in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umt.data.video.decoders import Frames
from umt.inference.recognizer import Recognizer
from umt.models import Student, VisionTransformer
from umt.models.vit.rollout import block_attentions, received, rollout


@dataclass(frozen=True)
class Map:
    """One row of the page. `values` (T', h, w): "heat" and "cosine" in 0..1, "mask" 1 where a token is visible."""

    key: str
    title: str
    note: str
    kind: Literal["heat", "mask", "cosine"]
    values: NDArray[np.float32]


@dataclass
class Look:
    """What is shown of one video; `numbers` are those of the frames in the file, `grid` is (T', h, w).

    `cosines`: blocks of student and teacher, and their cosine at visible tokens with the others hidden and with none
    hidden. `answers`: class and probability.
    """

    path: str
    frames: Frames
    numbers: list[int]
    grid: tuple[int, int, int]
    maps: list[Map] = field(default_factory=list)
    cosines: list[tuple[str, float, float]] = field(default_factory=list)
    answers: list[tuple[str, float]] = field(default_factory=list)

    def add(self, key: str, title: str, note: str, kind: Literal["heat", "mask", "cosine"], values: Tensor) -> None:
        """A map of `values` (L,) or (T', h * w)."""
        self.maps.append(Map(key, title, note, kind, values.detach().float().cpu().reshape(self.grid).numpy()))


Show = Callable[[Look, Tensor], None]
"""Adds to a look what it shows of the model's input (1, 3, T, H, W)."""


class Viewer:
    """A model, and what is shown of each video, in the order of the page."""

    def __init__(self, model: Recognizer, shows: Sequence[Show]) -> None:
        assert isinstance(model.model, Student | VisionTransformer)
        self.model, self.shows = model, shows
        self.encoder: Student | VisionTransformer = model.model

    def look(self, path: str) -> Look:
        """The middle clip of a video. Raises VideoError, and CheckpointError for a model that gives no numbers."""
        clips = self.model.views.clips(self.model.views.open(path), 1, 1)
        with clips.videos.open(0) as video:
            indices = np.atleast_2d(clips.sample(len(video)))[0]
            frames = clips.transform(video.frames(indices))[0]
        look = Look(path, frames, [int(i) for i in indices], self.encoder.grid)
        (inputs,) = self.model.batches(torch.from_numpy(np.ascontiguousarray(frames))[None])
        self._require_numbers(inputs)
        for show in self.shows:
            show(look, inputs)
        return look

    @torch.no_grad()
    def _require_numbers(self, inputs: Tensor) -> None:
        """Raises CheckpointError for weights that give no numbers, of which there is nothing to draw."""
        classes = bool(self.model.num_classes)
        with self.model.autocast():
            values = self.encoder(inputs) if classes else self.encoder.forward_features(inputs)
        self.model.require_finite(values, "scores" if classes else "features")


class Attention:
    """Attention of the last block and its rollout; `residual`: the share of the skip connection in a rollout."""

    def __init__(self, model: Recognizer, *, residual: float = 0.5) -> None:
        self.model, self.residual = model, residual

    def __call__(self, look: Look, inputs: Tensor) -> None:
        encoder = self.model.model
        assert isinstance(encoder, Student | VisionTransformer)
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
            note = f"Scaled from the clip's least to its most; the strongest token counts {most:.1f} times the mean."
            spread = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
            look.add(key, title, note, "heat", spread)
