"""Which list is shown, and by which flags of a run: what `umt data show` is asked for, resolved."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umt.data import labels
from umt.data.lists.class_folders import read_folders
from umt.data.lists.lines import SEPARATORS
from umt.data.lists.reading import read_list
from umt.data.lists.video_list import VideoList
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, ConfigError, UserError
from umt.run.command_line import parse
from umt.tasks import base
from umt.tasks.base import Recipe
from umt.tasks.base.shown import Shown


def kind_of(config: Recipe) -> type[Shown]:
    """What the kind of a run shows. Raises ConfigError where it shows nothing."""
    shown: type[Shown] = base.kind_of(config.command).offer("show")
    return shown


def resolve(what: str, flags: Sequence[str], *, task: str | None = None) -> Shown:
    """`what`: "pretrain" or "finetune", whose `flags` name the list; or a list, with `flags` on how to read it.

    Raises AnnotationError for a list that is missing or malformed, ConfigError for flags.
    """
    if what in base.TASKS or what in base.entry_points():
        if task is not None:
            raise ConfigError(f"--as {task} is for a LIST; umt data show {what} says it already. Leave it out.")
        config: Any = parse(what, flags, files=False)
        if not config.data.data_path:
            raise AnnotationError("--data_path is missing. Give it as the run has it, or name a LIST instead.")
        videos = kind_of(config).rows(config)
    else:
        config, videos = _list(what, list(flags), task)
    # Batches play no part here, and a list may be smaller than one.
    config = config.with_flags(
        batch_size=1, update_freq=1, global_batch_size=None, epochs=1, warmup_epochs=0, num_workers=0, pin_mem=False
    )
    return kind_of(config).of(config, videos)


def _list(what: str, flags: list[str], task: str | None) -> tuple[Any, VideoList]:
    if not is_url(what) and not os.path.exists(what):
        raise AnnotationError(f"{what} does not exist. Name a list of videos, or pretrain or finetune and its flags.")
    if os.path.isdir(what):
        return _folder(what, flags, task)
    config: Any = parse(task or "finetune", flags, files=False)
    given = {word.split("=")[0] for word in flags}
    stated = _first(config.data.split)
    separators = [stated] if "--split" in given else [stated, *SEPARATORS]
    config, videos = _read(what, config, separators)
    if task is None and (videos.labels < 0).any():
        config, videos = _read(what, parse("pretrain", flags, files=False), separators)
    folder = what.rpartition("/")[0] if is_url(what) else str(Path(what).parent)
    few = [videos.file(row) for row in range(min(len(videos), 20))]
    if "--prefix" not in given and not any(is_url(file) or os.path.exists(file) for file in few):
        prefix = folder if is_url(what) else os.path.abspath(folder)
        config, videos = _read(what, config.with_flags(prefix=prefix), [_first(config.data.split)])
    classes = None if "--nb_classes" in given else _classes(folder, int(videos.labels.max()) + 1)
    return kind_of(config).config_for(config, what, folder, classes), videos


def _folder(what: str, flags: list[str], task: str | None) -> tuple[Any, VideoList]:
    """A folder of lists, or of class folders."""
    if task == "pretrain":
        raise ConfigError(f"--as pretrain takes a list, and {what} is a folder. Name the list itself.")
    folders = not any((Path(what) / name).is_file() for name in ("train.csv", "train.parquet"))
    more = ["--data_path", what, *(["--data_set", "image_folder"] if folders else [])]
    config: Any = parse("finetune", [*flags, *more], files=False)
    try:
        return config, kind_of(config).rows(config)
    except UserError:
        if not folders or any(word.startswith("--nb_classes") for word in flags):
            raise
    videos = read_folders(what, "train")
    return config.with_flags(nb_classes=len(videos.class_names or ())), videos


def _read(what: str, config: Any, separators: Sequence[str]) -> tuple[Any, VideoList]:
    """The list by the first separator that fits, and the run that has it for its --split."""
    first: AnnotationError | None = None
    how: dict[str, Any] = {
        "prefix": _first(config.data.prefix),
        "frame_folders": not config.data.use_decord,
        "labels_optional": True,
        "extension": kind_of(config).extension,
    }
    for separator in separators:
        try:
            return config.with_flags(split=separator), read_list(what, separator=separator, **how)
        except AnnotationError as error:
            first = first or error
    assert first is not None
    raise first


def _first(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else value[0]


def _classes(folder: str, labelled: int) -> int:
    """Classes of a list where no flag states them: those of its labels.txt, or as many as its labels ask for."""
    file = Path(folder) / labels.LABELS_FILE
    with contextlib.suppress(AnnotationError):
        return max(len(labels.read_names(file)) if file.is_file() else 0, labelled)
    return labelled
