"""Which list is shown, and by which flags of a run: what `umt data show` is asked for, resolved."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umt.assemble import classes
from umt.assemble.data import train_loader, training_list, validation_loader
from umt.config.cli import parse
from umt.config.lists import sources
from umt.config.plan import plan
from umt.config.schema import Config, FinetuneConfig
from umt.data import labels
from umt.data.lists.lines import SEPARATORS
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import TrainClips, ViewClips
from umt.data.storage.urls import is_url
from umt.engine.runtime import Runtime
from umt.errors import AnnotationError, ConfigError, UserError


@dataclass(frozen=True)
class Shown:
    """A list as a run reads it."""

    config: Config
    videos: VideoList
    train: TrainClips
    validation: ViewClips | None  # the same rows as validation would see them; None in pretraining
    names: tuple[str, ...] | None  # of the classes
    names_from: str
    grid: tuple[int, int, int]  # T' x h x w tokens

    @property
    def task(self) -> str:
        return self.config.task

    @property
    def classes(self) -> int:
        """Classes of the histogram; 0 for a list without labels."""
        if (self.videos.labels < 0).all():
            return 0
        most = int(self.videos.labels.max()) + 1
        if self.names is not None:
            return max(most, len(self.names))
        return max(most, self.config.data.nb_classes) if isinstance(self.config, FinetuneConfig) else most

    def name(self, label: int) -> str:
        """How the page calls a class."""
        if label < 0:
            return "no label"
        return self.names[label] if self.names is not None and label < len(self.names) else f"class {label}"


def resolve(what: str, flags: Sequence[str], *, task: str | None = None) -> Shown:
    """`what`: "pretrain" or "finetune", whose `flags` name the list; or a list, with `flags` on how to read it.

    Raises AnnotationError for a list that is missing or malformed, ConfigError for flags.
    """
    if what in ("pretrain", "finetune"):
        if task is not None:
            raise ConfigError(f"--as {task} is for a LIST; umt data show {what} says it already. Leave it out.")
        config = parse(what, flags, files=False)
        if not config.data.data_path:
            raise AnnotationError("--data_path is missing. Give it as the run has it, or name a LIST instead.")
        return _shown(config, training_list(config))
    return _shown(*_list(what, list(flags), task))


def _list(what: str, flags: list[str], task: str | None) -> tuple[Config, VideoList]:
    if not is_url(what) and not os.path.exists(what):
        raise AnnotationError(f"{what} does not exist. Name a list of videos, or pretrain or finetune and its flags.")
    if os.path.isdir(what):
        return _folder(what, flags, task)
    config = parse(task or "finetune", flags, files=False)
    given = {word.split("=")[0] for word in flags}
    stated = sources(config.data)[0].separator
    separators = [stated] if "--split" in given else [stated, *SEPARATORS]
    config, videos = _read(what, config, separators)
    if task is None and (videos.labels < 0).any():
        config, videos = _read(what, parse("pretrain", flags, files=False), separators)
    folder = what.rpartition("/")[0] if is_url(what) else str(Path(what).parent)
    beside = folder if is_url(what) else os.path.abspath(folder)
    few = [videos.file(row) for row in range(min(len(videos), 20))]
    if "--prefix" not in given and not any(is_url(file) or os.path.exists(file) for file in few):
        config, videos = _read(what, _with(config, data={"prefix": beside}), [sources(config.data)[0].separator])
    if isinstance(config, FinetuneConfig):
        number = config.data.nb_classes if "--nb_classes" in given else _classes(folder, int(videos.labels.max()) + 1)
        return _with(config, data={"data_path": folder, "nb_classes": number}), videos
    return _with(config, data={"data_path": what}), videos


def _folder(what: str, flags: list[str], task: str | None) -> tuple[Config, VideoList]:
    """A folder of lists, or of class folders."""
    if task == "pretrain":
        raise ConfigError(f"--as pretrain takes a list, and {what} is a folder. Name the list itself.")
    folders = not any((Path(what) / name).is_file() for name in ("train.csv", "train.parquet"))
    more = ["--data_path", what, *(["--data_set", "image_folder"] if folders else [])]
    config = parse("finetune", [*flags, *more], files=False)
    try:
        return config, training_list(config)
    except UserError:
        if not folders or any(word.startswith("--nb_classes") for word in flags):
            raise
    from umt.data.lists.class_folders import read_folders

    videos = read_folders(what, "train")
    return _with(config, data={"nb_classes": len(videos.class_names or ())}), videos


def _read(what: str, config: Config, separators: Sequence[str]) -> tuple[Config, VideoList]:
    """The list by the first separator that fits, and the run that has it for its --split."""
    first: AnnotationError | None = None
    for separator in separators:
        try:
            return _with(config, data={"split": separator}), read_list(
                what,
                separator=separator,
                prefix=sources(config.data)[0].prefix,
                frame_folders=not config.data.use_decord,
                labels_optional=True,
                extension="" if isinstance(config, FinetuneConfig) else ".mp4",
            )
        except AnnotationError as error:
            first = first or error
    assert first is not None
    raise first


def _classes(folder: str, labelled: int) -> int:
    """Classes of a list that nobody has stated: those of labels.txt beside it, or one more than its greatest label."""
    file = Path(folder) / labels.LABELS_FILE
    with contextlib.suppress(AnnotationError):
        return max(len(labels.read_names(file)) if file.is_file() else 0, labelled)
    return labelled


def _shown(config: Config, videos: VideoList) -> Shown:
    # Batches play no part here, and a list may be smaller than one.
    config = _with(
        config,
        optim={"batch_size": 1, "update_freq": 1, "global_batch_size": None, "epochs": 1, "warmup_epochs": 0},
        data={"num_workers": 0, "pin_mem": False},
    )
    run = Runtime()
    made = plan(config, world_size=1, videos=len(videos))
    train = train_loader(config, videos, run, made).clips
    assert isinstance(train, TrainClips)
    validation, names, source = None, None, ""
    if isinstance(config, FinetuneConfig):
        clips = validation_loader(config, videos, run).clips
        assert isinstance(clips, ViewClips)
        validation = clips
        order = classes.listed(config, videos)
        names, source = order.names, order.source
    else:
        file = Path(sources(config.data)[0].path).parent / labels.LABELS_FILE
        if file.is_file():
            names, source = tuple(labels.read_names(file)), str(file)
    return Shown(config, videos, train, validation, names, source, made.grid)


def _with(config: Config, **groups: dict[str, Any]) -> Config:
    """The same run with some flags changed."""
    changed = {name: dataclasses.replace(getattr(config, name), **values) for name, values in groups.items()}
    return dataclasses.replace(config, **changed)
