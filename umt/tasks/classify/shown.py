"""What finetuning shows: training clips with random erasing, and what validation sees of the same videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange

from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import Sample, TrainClips, ViewClips
from umt.data.transforms.erasing import erase
from umt.data.transforms.normalize import MEAN, STD
from umt.data.video.decoders import Frames
from umt.tasks.base import Alone
from umt.tasks.base.shown import Strip
from umt.tasks.classify import classes as class_orders
from umt.tasks.classify.data import train_loader, training_list, validation_loader
from umt.tasks.classify.recipe import ClassifyRecipe
from umt.tasks.video.shown import VideoShown, common_flags, model_input, samples_of, training_strips


@dataclass(frozen=True)
class ClassifyShown(VideoShown):
    """A training list of `umt finetune`."""

    title = "finetuning"
    explanation = (
        "Training copies are cropped, flipped, RandAugmented and erased differently in each epoch; mixup and cutmix "
        "follow later, in the batch. Validation sees the centre."
    )

    config: ClassifyRecipe
    validation: ViewClips  # the same rows as validation would see them

    @classmethod
    def rows(cls, config: ClassifyRecipe) -> VideoList:
        return training_list(config)

    @classmethod
    def of(cls, config: ClassifyRecipe, videos: VideoList) -> ClassifyShown:
        train = train_loader(config, videos, Alone()).clips
        validation = validation_loader(config, videos, Alone()).clips
        assert isinstance(train, TrainClips)
        assert isinstance(validation, ViewClips)
        order = class_orders.listed(config, videos)
        declared = config.data.nb_classes if order.names is None else len(order.names)
        return cls(config, videos, order.names, order.source, declared, train, validation)

    @classmethod
    def config_for(cls, config: ClassifyRecipe, source: str, folder: str, classes: int | None) -> ClassifyRecipe:
        return config.with_flags(data_path=folder, **({} if classes is None else {"nb_classes": classes}))

    def strips(self, row: int) -> list[Strip]:
        training = training_strips(self.train, row, self._erased)
        sample, numbers = samples_of(self.validation, row)[0]
        return [*training, Strip("validation", sample.video, numbers)]

    def flags(self) -> list[tuple[str, Any]]:
        names = ("aa", "crop_scale", "reprob", "remode", "mixup", "cutmix")
        return [*common_flags(self.config), *((name, getattr(self.config.augment, name)) for name in names)]

    def _erased(self, sample: Sample) -> Frames:
        """The clip with its rectangles of random erasing, which a run fills on the device."""
        if sample.erase is None:
            return sample.video
        boxes, seeds = torch.from_numpy(np.asarray(sample.erase))[None], torch.tensor([sample.seed])
        video = erase(model_input(sample.video), boxes, seeds, self.config.augment.remode)
        filled = rearrange(video, "1 c t h w -> t h w c").numpy()
        return ((filled * np.array(STD) + np.array(MEAN)) * 255).round().clip(0, 255).astype(np.uint8)
