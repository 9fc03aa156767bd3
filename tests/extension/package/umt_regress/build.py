"""From a recipe to the parts of a run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from umt import randomness
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import TrainClips, Videos, ViewClips
from umt.data.loading.loaders import EvalLoader, TrainLoader, Workers
from umt.data.sampling import training_sampler
from umt.data.transforms.pipelines import EvalTransform
from umt.models import create_model
from umt.optim.param_groups import param_groups
from umt.tasks.base import EvaluationSet, Parts, Place
from umt_regress.lists import read
from umt_regress.results import Numbers
from umt_regress.task import Regress

if TYPE_CHECKING:
    from umt_regress.recipe import RegressRecipe


def build_parts(recipe: RegressRecipe, place: Place) -> Parts:
    """See `RegressRecipe.build`."""
    videos, targets = listed(recipe, "train")
    task = make_task(recipe, targets)
    task.to(place.device)
    evaluation = recipe.evaluation
    return Parts(
        task,
        recipe.record(),
        train=None if recipe.only_tests else train_loader(recipe, videos, place),
        validation=None if evaluation.disable_eval_during_finetuning else evaluated(recipe, "val", place),
        test=evaluated(recipe, "test", place),
        parameter_groups=param_groups(task.model, weight_decay=recipe.optim.weight_decay),
        best_metric=Numbers.best_metric,
    )


def listed(recipe: RegressRecipe, split: str) -> tuple[VideoList, list[float]]:
    """The videos of a list, and their numbers divided by --scale."""
    file = Path(recipe.data.data_path) / f"{split}.csv"
    paths, numbers = read(file)
    videos = VideoList(str(file), paths, [-1] * len(paths), [-1] * len(paths), prefix=str(file.parent))
    return videos, [number / recipe.data.scale for number in numbers]


def make_task(recipe: RegressRecipe, targets: list[float]) -> Regress:
    """The model with one output; initial weights are a function of --seed."""
    torch.manual_seed(randomness.key(recipe.runtime.seed, "weights"))
    model = create_model(
        recipe.model.model,
        image_size=recipe.model.input_size,
        num_frames=recipe.data.num_frames,
        tubelet_size=recipe.model.tubelet_size,
        num_classes=1,
    )
    return Regress(model, torch.tensor(targets))


def train_loader(recipe: RegressRecipe, videos: VideoList, place: Place) -> TrainLoader:
    """Sparse clips, centred."""
    clips = TrainClips(
        Videos(videos),
        training_sampler("sparse", recipe.data.num_frames),
        _transform(recipe),
        seed=recipe.runtime.seed,
    )
    return TrainLoader(
        clips,
        batch_size=recipe.optim.batch_size,
        seed=recipe.runtime.seed,
        rank=place.world.rank,
        world_size=place.world.size,
        accumulation=recipe.optim.accumulation(place.world.size),
        workers=Workers(recipe.loading.processes(), timeout=recipe.loading.decode_timeout),
    )


def evaluated(recipe: RegressRecipe, split: str, place: Place) -> EvaluationSet:
    """A clip every --clip_stride frames of each video, so that longer videos have more numbers."""
    videos, targets = listed(recipe, split)
    frames, stride = recipe.data.num_frames, recipe.data.clip_stride

    def clips_of(length: int) -> np.ndarray:
        starts = np.arange(0, max(length - frames, 0) + 1, stride)
        return np.minimum(starts[:, None] + np.arange(frames), length - 1)

    size = recipe.model.input_size
    clips = ViewClips(Videos(videos), clips_of, EvalTransform(size, size), recipe.evaluation.count_unreadable_as_wrong)

    def loader(done: frozenset[int]) -> EvalLoader:
        return EvalLoader(clips, batch_size=1, rank=place.world.rank, world_size=place.world.size, done=done)

    return EvaluationSet(
        loader=loader,
        results=functools.partial(Numbers, targets),
        about=f"{len(videos)} videos, a clip every {stride} frames",
        unreadable_is_wrong=recipe.evaluation.count_unreadable_as_wrong,
    )


class _transform:  # noqa: N801  (a function with a size, which worker processes can be given)
    def __init__(self, recipe: RegressRecipe) -> None:
        size = recipe.model.input_size
        self.centre = EvalTransform(size, size)

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.centre(frames)
