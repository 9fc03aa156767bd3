"""Which videos a probe is trained on, which ones choose its settings, and which ones test it: never the same ones."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umt.data import labels
from umt.data.lists.class_folders import read_folders
from umt.data.lists.split_files import list_file
from umt.data.lists.subsets import held_out
from umt.data.lists.video_list import VideoList
from umt.errors import AnnotationError, ConfigError
from umt.inference.sources import read_rows

HOLD_OUT = 5  # without a list for the choice, one in so many training videos of each class makes it


@dataclass
class Lists:
    """The lists by name, "train", "test", and "val" where there is one of its own; `notes` for a person.

    `chooses` (N,) marks the training rows that are held out for the choice of settings; None where "val" makes it.
    """

    videos: dict[str, VideoList]
    classes: int
    names: list[str] | None
    chooses: NDArray[np.bool_] | None
    notes: list[str] = field(default_factory=list)

    @property
    def choice(self) -> str:
        """What the settings are chosen on, in words."""
        if self.chooses is None:
            return f"the {len(self.videos['val'])} videos of {self.videos['val'].source}"
        return f"{int(self.chooses.sum())} training videos held out, 1 in {HOLD_OUT} of each class"


def find(
    data_path: str, *, train: str = "", val: str = "", test: str = "", prefix: str | None = None, split: str = ""
) -> Lists:
    """The lists of a folder, or those named one by one, which win.

    `data_path`: a folder with train.csv and val.csv, test.csv or both, or with a folder for each class.
    `prefix` None: none, or the folder of the list if the files are there. Raises AnnotationError or ConfigError.
    """
    lists = _folder(data_path, prefix, split) if data_path else {}
    for name, path in (("train", train), ("val", val), ("test", test)):
        if path:
            lists[name] = _list(path, prefix, split)
    return settled(lists, data_path, [])


def settled(lists: dict[str, VideoList], data_path: str | None, notes: list[str]) -> Lists:
    """Lists by name with their roles. `data_path`: where a labels.txt may lie; None: nowhere. `notes` are added to."""
    if "test" not in lists and "val" in lists:
        lists["test"] = lists.pop("val")
        notes.append(f"There is no test list: {lists['test'].source} is the test.")
    for name in ("train", "test"):
        if name not in lists:
            raise ConfigError(
                f"a probe needs a training list and a test list, and there is no {name} list. Give --data_path a "
                f"folder with {name}.csv, or name one: --{name}_list FILE."
            )
    if "val" in lists and _files(lists["val"]) & _files(lists["test"]):
        notes.append("The validation list shares videos with the test: it chooses nothing.")
        del lists["val"]
    both = _files(lists["train"]) & _files(lists["test"])
    if both:
        notes.append(
            f"{len(both)} videos are in the training list and in the test, first {min(both)}: the accuracies are too "
            "high."
        )
    for videos in lists.values():
        if videos.note and videos.note not in notes:
            notes.append(videos.note)
    _number_alike(lists)
    names = lists["train"].class_names if data_path is None else _names(lists, data_path)
    chooses = None
    train_list = lists["train"]
    if "val" not in lists:
        paths = [train_list.path(row) for row in range(len(train_list))]
        chooses = held_out(paths, train_list.labels.tolist(), HOLD_OUT)
        if not chooses.any() or chooses.all():
            raise AnnotationError(
                f"{train_list.source} has too few videos to hold some out for the choice of settings: give every class "
                "at least two, or name a --val_list."
            )
    return Lists(lists, _classes(lists, names), names, chooses, notes)


def _folder(folder: str, prefix: str | None, split: str) -> dict[str, VideoList]:
    if os.path.isfile(folder):
        raise ConfigError(f"--data_path ({folder}) is a file. Name the folder of the lists, or use --train_list.")
    if not os.path.isdir(folder):
        raise AnnotationError(f"--data_path ({folder}) does not exist. Name a folder of lists or of class folders.")
    files = {name: list_file(folder, name) for name in ("train", "val", "test")}
    if os.path.isfile(files["train"]):
        return {name: _list(file, prefix, split) for name, file in files.items() if os.path.isfile(file)}
    parts = {entry.name for entry in Path(folder).iterdir() if entry.is_dir()}
    tests = [name for name in ("val", "test") if name in parts] if "train" in parts else []
    return {name: read_folders(folder, name) for name in ("train", *(tests or ["test"]))}


def _list(path: str, prefix: str | None, split: str) -> VideoList:
    videos = read_rows(path, split=split or None, prefix=prefix or "")
    if not videos.labelled:
        raise AnnotationError(f"{path}: some rows have no label, and a probe needs all of them.")
    return videos


def _files(videos: VideoList) -> set[str]:
    return {videos.file(row) for row in range(len(videos))}


def _number_alike(lists: dict[str, VideoList]) -> None:
    """Gives all lists the labels of the training list, by name: each that names its classes numbers those it has."""
    names = lists["train"].class_names
    for videos in lists.values():
        if videos.multi_label:
            raise AnnotationError(
                f"{videos.source} has several labels per video, and a probe knows one class per video."
            )
        if videos.class_names == names:
            continue
        if names is None or videos.class_names is None:
            raise AnnotationError(
                f"Of {lists['train'].source} and {videos.source} one names its classes and the other numbers them. "
                "Write both alike."
            )
        place = {name: label for label, name in enumerate(names)}
        new = [name for name in videos.class_names if name not in place]
        if new:
            raise AnnotationError(f"{videos.source} has the class '{new[0]}', and {lists['train'].source} does not.")
        videos.labels = np.array([place[name] for name in videos.class_names], np.int64)[videos.labels]
        videos.class_names = list(names)


def _names(lists: dict[str, VideoList], data_path: str) -> list[str] | None:
    """Class names, if the folders or a labels.txt next to the lists give them."""
    train = lists["train"]
    if train.class_names is not None:
        return list(train.class_names)
    file = Path(data_path or os.path.dirname(train.source)) / labels.LABELS_FILE
    return list(labels.read_names(file)) if file.is_file() else None


def _classes(lists: dict[str, VideoList], names: list[str] | None) -> int:
    """Classes of the head: the names, or one more than the greatest training label, and no test label is beyond."""
    classes = len(names) if names else int(lists["train"].labels.max()) + 1
    for videos in lists.values():
        worst = int(videos.labels.max())
        if worst >= classes:
            extent = f"{len(names)} classes are named" if names else f"the training labels end at {classes - 1}"
            raise AnnotationError(f"{videos.source} has the label {worst}, but {extent}. Is it another data set?")
    return classes
