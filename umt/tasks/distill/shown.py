"""What pretraining shows: training clips, and on each the patches that the student sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import repeat

from umt.data import labels
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import TrainClips
from umt.data.masking import visible_tokens
from umt.tasks.base import Alone
from umt.tasks.base.shown import Strip
from umt.tasks.distill.data import train_loader, training_list
from umt.tasks.distill.recipe import DistillRecipe
from umt.tasks.video.shown import VideoShown, common_flags, model_input, training_strips
from umt.tasks.video.sources import sources


@dataclass(frozen=True)
class DistillShown(VideoShown):
    """A training list of `umt pretrain`."""

    title = "pretraining"
    explanation = "Below each frame, the patches that the student sees; the grey ones never enter it."
    extension = ".mp4"

    config: DistillRecipe
    grid: tuple[int, int, int]  # T' x h x w tokens

    @classmethod
    def rows(cls, config: DistillRecipe) -> VideoList:
        return training_list(config)

    @classmethod
    def of(cls, config: DistillRecipe, videos: VideoList) -> DistillShown:
        train = train_loader(config, videos, Alone()).clips
        assert isinstance(train, TrainClips)
        file = Path(sources(config.data)[0].path).parent / labels.LABELS_FILE
        names = tuple(labels.read_names(file)) if file.is_file() else None
        source = "" if names is None else str(file)
        return cls(config, videos, names, source, len(names or ()), train, config.grid)

    @classmethod
    def config_for(cls, config: DistillRecipe, source: str, folder: str, classes: int | None) -> DistillRecipe:
        return config.with_flags(data_path=source)

    def strips(self, row: int) -> list[Strip]:
        return training_strips(self.train, row)

    def flags(self) -> list[tuple[str, Any]]:
        augment, teacher = self.config.augment, self.config.teacher
        return [
            *common_flags(self.config), ("flip", augment.flip), ("color_jitter", augment.color_jitter),
            ("mask_type", teacher.mask_type), ("mask_ratio", teacher.mask_ratio),
        ]  # fmt: skip

    def finish(self, strips: Sequence[Strip]) -> list[str]:
        """Gives every strip its mask, in the order of the rows: one teacher serves all."""
        settings, (time_, height, width) = self.config.teacher, self.grid
        teacher = self._teacher()
        for strip in strips:
            assert strip.noise is not None
            noise = torch.from_numpy(strip.noise)[None]
            saliency = torch.ones_like(noise)
            if teacher is not None:
                with torch.no_grad():
                    _, saliency = teacher(model_input(strip.frames))
            chosen = visible_tokens(settings.mask_type, settings.mask_ratio, noise, saliency)
            seen = torch.zeros(time_ * height * width, dtype=torch.bool).scatter_(0, chosen[0], True)
            span = len(strip.frames) // time_  # frames of a token
            strip.visible = repeat(seen, "(t h w) -> (t span) h w", h=height, w=width, span=span).numpy()
        if settings.mask_type != "attention":
            return [f"The masks are those of --mask_type {settings.mask_type}, as the run draws them."]
        if teacher is not None:
            return ["The masks follow the attention of the teacher, as in the run."]
        return [
            "Without --clip_teacher_weights there is no attention to follow: these masks have the run's share and "
            "noise, but every patch has the same chance."
        ]

    def _teacher(self) -> Any:
        """The teacher, if masks follow its attention and its weights are here: a look downloads nothing."""
        settings = self.config.teacher
        if settings.mask_type != "attention" or not settings.clip_teacher_weights:
            return None
        from umt.models.teachers.base import as_module, create_teacher

        teacher, _ = create_teacher(
            settings.clip_teacher,
            image_size=settings.clip_input_resolution,
            return_layers=settings.clip_return_layer,
            weights=settings.clip_teacher_weights,
        )
        as_module(teacher).eval()
        return teacher
