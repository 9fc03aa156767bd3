"""Which list is shown, and by which flags of a run: what `umt data show` is asked for, resolved."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umt.assemble.data import training_list
from umt.config.cli import parse
from umt.config.lists import sources
from umt.config.schema import Config
from umt.data import labels
from umt.data.lists.annotations import VideoList, read_folders, read_list
from umt.data.lists.lines import SEPARATORS
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, ConfigError, UserError
from umt.tools.data.show.base import Shown, changed

# Command -> what it shows.
KINDS = {
    "pretrain": ("umt.tools.data.show.pretraining", "Pretraining"),
    "finetune": ("umt.tools.data.show.finetuning", "Finetuning"),
}


def kind_of(config: Config) -> type[Shown]:
    """The kind of work that a configuration is of."""
    module, name = KINDS[config.task]
    kind: type[Shown] = getattr(importlib.import_module(module), name)
    return kind


def resolve(what: str, flags: Sequence[str], *, task: str | None = None) -> Shown:
    """`what`: "pretrain" or "finetune", whose `flags` name the list; or a list, with `flags` on how to read it.

    Raises AnnotationError for a list that is missing or malformed, ConfigError for flags.
    """
    if what in KINDS:
        if task is not None:
            raise ConfigError(f"--as {task} is for a LIST; umt data show {what} says it already. Leave it out.")
        config = parse(what, flags, files=False)
        if not config.data.data_path:
            raise AnnotationError("--data_path is missing. Give it as the run has it, or name a LIST instead.")
        videos = training_list(config)
    else:
        config, videos = _list(what, list(flags), task)
    # Batches play no part here, and a list may be smaller than one.
    config = changed(
        config,
        optim={"batch_size": 1, "update_freq": 1, "global_batch_size": None, "epochs": 1, "warmup_epochs": 0},
        data={"num_workers": 0, "pin_mem": False},
    )
    return kind_of(config).of(config, videos)


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
    few = [videos.file(row) for row in range(min(len(videos), 20))]
    if "--prefix" not in given and not any(is_url(file) or os.path.exists(file) for file in few):
        prefix = folder if is_url(what) else os.path.abspath(folder)
        config, videos = _read(what, changed(config, data={"prefix": prefix}), [sources(config.data)[0].separator])
    classes = None if "--nb_classes" in given else _classes(folder, int(videos.labels.max()) + 1)
    return kind_of(config).config_for(config, what, folder, classes), videos


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
    videos = read_folders(what, "train")
    return changed(config, data={"nb_classes": len(videos.class_names or ())}), videos


def _read(what: str, config: Config, separators: Sequence[str]) -> tuple[Config, VideoList]:
    """The list by the first separator that fits, and the run that has it for its --split."""
    first: AnnotationError | None = None
    how: dict[str, Any] = {
        "prefix": sources(config.data)[0].prefix,
        "frame_folders": not config.data.use_decord,
        "labels_optional": True,
        "extension": kind_of(config).extension,
    }
    for separator in separators:
        try:
            return changed(config, data={"split": separator}), read_list(what, separator=separator, **how)
        except AnnotationError as error:
            first = first or error
    assert first is not None
    raise first


def _classes(folder: str, labelled: int) -> int:
    """Classes of a list where no flag states them: those of its labels.txt, or as many as its labels ask for."""
    file = Path(folder) / labels.LABELS_FILE
    with contextlib.suppress(AnnotationError):
        return max(len(labels.read_names(file)) if file.is_file() else 0, labelled)
    return labelled
