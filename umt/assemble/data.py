"""Lists and loaders from the flags that concern them: what is read, in which order, and what becomes of it."""

from __future__ import annotations

import functools
import logging
from typing import Any

from umt.assemble.storage import epochs, opened, storage
from umt.config.lists import Source, sources, training_files
from umt.config.plan import Plan, loader_processes
from umt.config.reading import read_split
from umt.config.schema import Config, FinetuneConfig, PretrainConfig
from umt.data import catalog
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import TrainClips, ViewClips
from umt.data.loading.loaders import EvalLoader, TestLoader, TrainLoader, Workers
from umt.data.loading.mixing import MixedList
from umt.data.sampling import training_sampler, validation_sampler, views_sampler
from umt.data.storage.presence import require_files, require_some_files
from umt.data.transforms.erasing import draw_erase_box
from umt.data.transforms.pipelines import EvalTransform, FinetuneTransform, PretrainTransform, TestTransform
from umt.engine.runtime import Runtime

log = logging.getLogger(__name__)


def training_list(config: Config) -> VideoList:
    """The list of --data_path, or all of them as one. A prefix below which nothing is is found now."""
    parts = []
    for path, source in training_files(config):
        if isinstance(config, FinetuneConfig):
            parts.append(_split(config, "train", source))
        else:
            parts.append(
                read_list(
                    path,
                    separator=source.separator,
                    prefix=source.prefix,
                    frame_folders=not config.data.use_decord,
                    labels_optional=True,
                    extension=".mp4",
                )
            )
        require_some_files(parts[-1], storage(parts[-1]))
    return parts[0] if len(parts) == 1 else MixedList(parts)


def evaluation_list(config: FinetuneConfig, split: str, run: Runtime) -> VideoList:
    """A list whose videos are all there, unless missing ones count as wrong: said now, not after hours of training."""
    videos = _split(config, split, sources(config.data)[0])
    if run.is_main and not config.evaluation.count_unreadable_as_wrong:
        require_files(videos, storage(videos))
    return videos


def _split(config: FinetuneConfig, split: str, source: Source) -> VideoList:
    videos = read_split(config, split, source)
    if videos.note and not config.chosen:  # else it stands among the choices
        log.info(videos.note)
    return videos


def train_loader(config: Config, videos: VideoList, run: Runtime, made: Plan) -> TrainLoader:
    data = config.data
    common: dict[str, Any] = {"seed": config.runtime.seed, "copies": data.num_sample}
    rows = opened(config, videos, run, training=True)
    if isinstance(config, PretrainConfig):
        kind = "pretrain_dense" if config.data.num_segments == 1 else "pretrain_sparse"
        time, height, width = made.grid
        clips = TrainClips(
            rows,
            training_sampler(kind, data.num_frames, data.sampling_rate),
            PretrainTransform(config.model.input_size, config.augment.flip, config.augment.color_jitter),
            noise_shape=(time, height * width),
            **common,
        )
    else:
        known, augment = catalog.get(data.data_set), config.augment
        erase = None
        if augment.reprob > 0:
            erase = functools.partial(draw_erase_box, probability=augment.reprob, count=augment.recount)
        clips = TrainClips(
            rows,
            training_sampler(known.sampling, data.num_frames, data.sampling_rate),
            FinetuneTransform(
                config.model.input_size,
                augment.aa,
                augment.train_interpolation,
                known.flip_keeps_label if augment.flip is None else augment.flip,
                augment.crop_scale,
            ),
            erase=erase,
            **common,
        )
    return TrainLoader(
        clips,
        batch_size=config.optim.batch_size,
        seed=config.runtime.seed,
        rank=run.world.rank,
        world_size=run.world.size,
        accumulation=made.accumulation,
        workers=_workers(config, run),
        epochs=epochs(config, rows),
    )


def validation_loader(config: FinetuneConfig, videos: VideoList, run: Runtime) -> EvalLoader:
    """One view of every validation video of this rank."""
    data, size = config.data, config.model.input_size
    kind = catalog.get(data.data_set).sampling
    clips = ViewClips(
        opened(config, videos, run),
        validation_sampler(kind, data.num_frames, data.sampling_rate, frame_folders=not data.use_decord),
        EvalTransform(config.augment.short_side_size or size, size),
        config.evaluation.count_unreadable_as_wrong,
    )
    return EvalLoader(
        clips,
        batch_size=max(1, int(1.5 * config.optim.batch_size)),
        rank=run.world.rank,
        world_size=run.world.size,
        workers=_workers(config, run),
    )


def test_loader(config: FinetuneConfig, videos: VideoList, run: Runtime, done: frozenset[int]) -> TestLoader:
    data, evaluation, size = config.data, config.evaluation, config.model.input_size
    clips = ViewClips(
        opened(config, videos, run),
        views_sampler(
            catalog.get(data.data_set).sampling, data.num_frames, evaluation.test_num_segment, data.sampling_rate
        ),
        TestTransform(config.augment.short_side_size or size, evaluation.test_num_crop, size),
        evaluation.count_unreadable_as_wrong,
    )
    return TestLoader(clips, rank=run.world.rank, world_size=run.world.size, done=done, workers=_workers(config, run))


def _workers(config: Config, run: Runtime) -> Workers:
    data = config.data
    pinned = data.pin_mem and run.device.type == "cuda"
    return Workers(
        num_workers=loader_processes(config),
        pin_memory=pinned,
        timeout=data.decode_timeout,
        start_method="spawn" if data.decoder == "torchcodec-cuda" else None,  # CUDA does not survive a fork
    )


def failure_budget(share: float, videos: int) -> int:
    """Unreadable training videos that a run puts up with: this share, at least one unless it is 0."""
    return max(1, int(share * videos)) if share else 0
