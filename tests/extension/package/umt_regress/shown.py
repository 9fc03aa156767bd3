"""The page of `umt data show regress`: training clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from umt.data.lists.video_list import VideoList
from umt.tasks.base import Alone
from umt.tasks.base.shown import Strip
from umt.tasks.video.shown import VideoShown, training_strips
from umt_regress.build import listed, train_loader
from umt_regress.recipe import RegressRecipe


@dataclass(frozen=True)
class RegressShown(VideoShown):
    """A training list of `umt regress`."""

    title = "regression"
    explanation = "The clips that the model sees."

    config: RegressRecipe

    @classmethod
    def rows(cls, config: RegressRecipe) -> VideoList:
        return listed(config, "train")[0]

    @classmethod
    def of(cls, config: RegressRecipe, videos: VideoList) -> RegressShown:
        return cls(config, videos, None, "", 0, train_loader(config, videos, Alone()).clips)

    @classmethod
    def config_for(cls, config: RegressRecipe, source: str, folder: str, classes: int | None) -> RegressRecipe:
        return config.with_flags(data_path=folder)

    def strips(self, row: int) -> list[Strip]:
        return training_strips(self.train, row)

    def flags(self) -> list[tuple[str, Any]]:
        return [("num_frames", self.config.data.num_frames), ("input_size", self.config.model.input_size)]
