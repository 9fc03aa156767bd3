"""The parts of a pretraining run: student and teacher, and the clips that both see."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from umt import randomness
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import TrainClips
from umt.data.loading.loaders import TrainLoader
from umt.data.loading.mixing import MixedList
from umt.data.sampling import training_sampler
from umt.data.storage.presence import require_some_files
from umt.data.transforms.pipelines import PretrainTransform
from umt.models import create_model, create_teacher
from umt.optim.param_groups import param_groups
from umt.tasks.base import Parts, Place
from umt.tasks.distill.task import Distill
from umt.tasks.video.opening import epochs, opened, storage, workers
from umt.tasks.video.sources import sources

if TYPE_CHECKING:
    from umt.tasks.distill.recipe import DistillRecipe

log = logging.getLogger(__name__)


def build_parts(recipe: DistillRecipe, place: Place) -> Parts:
    """See `DistillRecipe.build`."""
    videos = training_list(recipe)
    task = make_task(recipe)
    task.to(place.device)
    return Parts(
        task,
        recipe.record(),
        train=train_loader(recipe, videos, place),
        parameter_groups=param_groups(task.model, weight_decay=recipe.optim.weight_decay),
    )


def training_list(recipe: DistillRecipe) -> VideoList:
    """The list of --data_path, or all of them as one. A prefix below which nothing is is found now."""
    parts = []
    for source in sources(recipe.data):
        parts.append(
            read_list(
                source.path,
                separator=source.separator,
                prefix=source.prefix,
                frame_folders=not recipe.data.use_decord,
                labels_optional=True,
                extension=".mp4",
            )
        )
        require_some_files(parts[-1], storage(parts[-1]))
    return parts[0] if len(parts) == 1 else MixedList(parts)


def train_loader(recipe: DistillRecipe, videos: VideoList, place: Place) -> TrainLoader:
    """Clips with the noise of their masks."""
    data, world = recipe.data, place.world
    time, height, width = recipe.grid
    rows = opened(data, videos, place, training=True)
    clips = TrainClips(
        rows,
        training_sampler(
            "pretrain_dense" if data.num_segments == 1 else "pretrain_sparse", data.num_frames, data.sampling_rate
        ),
        PretrainTransform(recipe.model.input_size, recipe.augment.flip, recipe.augment.color_jitter),
        seed=recipe.runtime.seed,
        copies=data.num_sample,
        noise_shape=(time, height * width),
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


def make_task(recipe: DistillRecipe, *, weights: bool = True) -> Distill:
    """Student and teacher where torch makes tensors by default; initial weights are a function of --seed.

    `weights`: take those of the teacher from where the flags say.
    """
    torch.manual_seed(randomness.key(recipe.runtime.seed, "weights"))
    model, teacher, data = recipe.model, recipe.teacher, recipe.data
    image_teacher, origin = create_teacher(
        teacher.clip_teacher,
        image_size=teacher.clip_input_resolution,
        return_layers=teacher.clip_return_layer,
        return_interval=teacher.clip_return_interval,
        norm_type=teacher.clip_norm_type,
        weights=teacher.clip_teacher_weights,
        download=weights,
    )
    log.info("teacher: %s", origin)
    student = create_model(
        model.model,
        image_size=model.input_size,
        num_frames=data.num_frames,
        tubelet_size=model.tubelet_size,
        drop_path_rate=model.drop_path,
        checkpoint_num=model.checkpoint_num if model.use_checkpoint else 0,
        use_learnable_pos_emb=model.use_learnable_pos_emb,
        teacher_width=model.clip_output_dim or image_teacher.output_dim,
        decoder_embed_dim=model.clip_decoder_embed_dim,
        return_layers=teacher.clip_return_layer,
        return_interval=model.clip_student_return_interval,
        norm_type=teacher.clip_norm_type,
    )
    return Distill(
        student,
        image_teacher,
        mask_type=teacher.mask_type,
        mask_ratio=teacher.mask_ratio,
        loss=teacher.clip_loss_type,
        loss_weight=teacher.clip_loss_ratio,
    )
