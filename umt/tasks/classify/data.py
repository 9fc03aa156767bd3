"""From the lists of a finetuning to clips for training, validation and test."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from umt.data import catalog
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import TrainClips, ViewClips
from umt.data.loading.loaders import EvalLoader, TestLoader, TrainLoader
from umt.data.loading.mixing import MixedList
from umt.data.sampling import training_sampler, validation_sampler, views_sampler
from umt.data.storage.presence import require_files, require_some_files
from umt.data.transforms.erasing import draw_erase_box
from umt.data.transforms.pipelines import EvalTransform, FinetuneTransform, TestTransform
from umt.tasks.base import Place
from umt.tasks.classify.lists import read_split
from umt.tasks.video.opening import epochs, opened, storage, workers
from umt.tasks.video.sources import Source, sources

if TYPE_CHECKING:
    from umt.tasks.classify.recipe import ClassifyRecipe

log = logging.getLogger(__name__)


def training_list(recipe: ClassifyRecipe) -> VideoList:
    """The list of --data_path, or all of them as one. A prefix below which nothing is is found now."""
    parts = []
    for source in sources(recipe.data):
        parts.append(_split(recipe, "train", source))
        require_some_files(parts[-1], storage(parts[-1]))
    return parts[0] if len(parts) == 1 else MixedList(parts)


def evaluation_list(recipe: ClassifyRecipe, split: str, place: Place) -> VideoList:
    """A list whose videos are all there, unless missing ones count as wrong: found now, not after hours of training."""
    videos = _split(recipe, split, sources(recipe.data)[0])
    if place.is_main and not recipe.evaluation.count_unreadable_as_wrong:
        require_files(videos, storage(videos))
    return videos


def _split(recipe: ClassifyRecipe, split: str, source: Source) -> VideoList:
    videos = read_split(recipe, split, source)
    if videos.note and not recipe.choices:  # else it stands among the choices
        log.info(videos.note)
    return videos


def train_loader(recipe: ClassifyRecipe, videos: VideoList, place: Place) -> TrainLoader:
    """Augmented clips, with the boxes of random erasing."""
    data, augment, world = recipe.data, recipe.augment, place.world
    known = catalog.get(data.data_set)
    erase = None
    if augment.reprob > 0:
        erase = functools.partial(draw_erase_box, probability=augment.reprob, count=augment.recount)
    rows = opened(data, videos, place, training=True)
    clips = TrainClips(
        rows,
        training_sampler(known.sampling, data.num_frames, data.sampling_rate),
        FinetuneTransform(
            recipe.model.input_size,
            augment.aa,
            augment.train_interpolation,
            known.flip_keeps_label if augment.flip is None else augment.flip,
            augment.crop_scale,
        ),
        seed=recipe.runtime.seed,
        copies=data.num_sample,
        erase=erase,
    )
    return TrainLoader(
        clips,
        batch_size=recipe.optim.batch_size,
        seed=recipe.runtime.seed,
        rank=world.rank,
        world_size=world.size,
        accumulation=recipe.optim.accumulation(world.size),
        workers=workers(data, recipe.loading, place),
        epochs=epochs(data, rows),
    )


def validation_loader(recipe: ClassifyRecipe, videos: VideoList, place: Place) -> EvalLoader:
    """One view of every validation video of this process."""
    data, size = recipe.data, recipe.model.input_size
    kind = catalog.get(data.data_set).sampling
    clips = ViewClips(
        opened(data, videos, place),
        validation_sampler(kind, data.num_frames, data.sampling_rate, frame_folders=not data.use_decord),
        EvalTransform(recipe.augment.short_side_size or size, size),
        recipe.evaluation.count_unreadable_as_wrong,
    )
    return EvalLoader(
        clips,
        batch_size=max(1, int(1.5 * recipe.optim.batch_size)),
        rank=place.world.rank,
        world_size=place.world.size,
        workers=workers(data, recipe.loading, place),
    )


def test_loader(recipe: ClassifyRecipe, videos: VideoList, place: Place, done: frozenset[int]) -> TestLoader:
    """All views of every test video of this process that is not `done`."""
    data, evaluation, size = recipe.data, recipe.evaluation, recipe.model.input_size
    clips = ViewClips(
        opened(data, videos, place),
        views_sampler(
            catalog.get(data.data_set).sampling, data.num_frames, evaluation.test_num_segment, data.sampling_rate
        ),
        TestTransform(recipe.augment.short_side_size or size, evaluation.test_num_crop, size),
        evaluation.count_unreadable_as_wrong,
    )
    return TestLoader(
        clips,
        rank=place.world.rank,
        world_size=place.world.size,
        done=done,
        workers=workers(data, recipe.loading, place),
    )
