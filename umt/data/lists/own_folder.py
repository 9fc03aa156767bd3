"""What is in a folder of the user's own videos: class folders or lists, which classes, how many videos, how it is read.

`look` reads every list or folder that a run would read, and raises one sentence for what cannot be one. No torch.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umt.data.lists.class_folders import has_frames, read_folders
from umt.data.lists.lines import BETWEEN, SEPARATORS, Form, Row, separator_of
from umt.data.lists.parquet import is_parquet
from umt.data.lists.reading import classes_of, read_named, rows_of, table_of, words_form
from umt.data.lists.split_files import SPLITS, split_file
from umt.data.lists.subsets import part_of
from umt.data.lists.text import lines, read_text
from umt.data.lists.video_list import VideoList
from umt.data.storage.urls import is_url, join
from umt.data.video.video_reader import VIDEO_ENDINGS
from umt.errors import AnnotationError, VideoError

_LOOKED_AT = 20  # lines that tell separator, prefix and kind
_SPLIT_NAMES = {"validation": "val", "valid": "val", "eval": "val", "testing": "test", "training": "train"}


@dataclass(frozen=True)
class Columns:
    """How lists are to be read. None: to be found out."""

    separator: str | None = None
    prefix: str | None = None
    frame_folders: bool | None = None
    multi_label: bool | None = None


@dataclass(frozen=True)
class FolderContents:
    """A folder of the user's own videos. `splits`: the videos of train, val and test; `notes`: how they came about."""

    data_set: str
    what: str  # for messages
    classes: int
    names: tuple[str, ...] | None
    counts: tuple[int, ...]  # training videos of each class
    splits: dict[str, int]
    notes: tuple[str, ...]
    separator: str = " "
    prefix: str = ""
    frame_folders: bool = False
    multi_label: bool = False


def list_files(folder: str) -> list[str]:
    """The lists train, val and test of a folder of this machine, as csv or parquet."""
    files = []
    for split in SPLITS:
        both = [join(folder, f"{split}{ending}") for ending in (".csv", ".parquet")]
        files += [path for path in both if os.path.isfile(path)][:1]
    return files


def look(folder: str, columns: Columns | None = None) -> FolderContents:
    """Looks at `folder`, which exists. Raises AnnotationError."""
    files = list_files(folder)
    return _lists(folder, files, columns or Columns()) if files else _class_folders(folder)


def require_readable(videos: VideoList, decoder: str = "auto") -> None:
    """Raises AnnotationError for the first class of which no video can be opened; of a large class a few are tried."""
    from umt.data.video.reader import open_video  # here: a dry run opens no video

    for label, rows in sorted(videos.rows_by_label().items()):
        tried: list[VideoError] = []
        for row in rows[:_LOOKED_AT]:
            file = videos.file(int(row))
            if videos.num_frames[row] >= 0 or is_url(file) or not os.path.isfile(file):
                break  # folders of frames, stores and shards are looked into when they are read
            try:
                with open_video(file, decoder):
                    break
            except VideoError as error:
                tried.append(error)
        else:
            name = label if videos.class_names is None else videos.class_names[label]
            raise AnnotationError(
                f"Class {name} has no readable video among {len(tried)} that were looked at: {tried[0]} "
                "Repair them, or remove the class; umt data check looks at all."
            )


# ---- class folders


def _class_folders(folder: str) -> FolderContents:
    _refuse_mixed(Path(folder))
    train = read_folders(folder, "train")
    names = tuple(train.class_names or ())
    counts = train.counts(len(names))
    if len(names) < 2:
        raise AnnotationError(
            f"{folder} has one class only, {names[0]}: there is nothing to tell apart. Give a folder for each of two "
            "or more classes."
        )
    if not counts.all():
        empty = [names[label] for label in np.flatnonzero(counts == 0)]
        where = os.path.join(train.prefix, empty[0])
        more = f", and {len(empty) - 1} further classes have none either" if len(empty) > 1 else ""
        raise AnnotationError(
            f"{where} holds no video to train on ({', '.join(VIDEO_ENDINGS[:4])}, ... or a folder of frames){more}. "
            "Add some, or remove the class."
        )
    if train.note and not (counts > 1).any() and len(train) == len(names):
        raise AnnotationError(
            f"{folder} has one video per class, so none can be held out for validation. Add videos, or a folder val."
        )
    splits = {"train": train, **{split: read_folders(folder, split) for split in SPLITS[1:]}}
    return FolderContents(
        data_set="image_folder",
        what=f"{folder} has a folder per class",
        classes=len(names),
        names=names,
        counts=tuple(counts.tolist()),
        splits={split: len(videos) for split, videos in splits.items()},
        notes=_notes(splits),
    )


def _notes(splits: dict[str, VideoList]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(videos.note for videos in splits.values() if videos.note))


def _refuse_mixed(top: Path) -> None:
    """Raises AnnotationError for what is neither class folders nor folders train, val and test of them."""
    entries = sorted(path for path in top.iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir()]
    videos = [path for path in entries if path.is_file() and path.name.lower().endswith(VIDEO_ENDINGS)]
    others = [path for path in entries if path.is_file() and path.suffix in (".csv", ".tsv", ".txt", ".parquet")]
    splits = {path.name for path in folders} & set(SPLITS)
    if not folders:
        if others and not videos:
            hint = f"The training list must be called train.csv; {top} has {', '.join(p.name for p in others[:4])}."
        else:
            hint = "Make a folder per class in it, or write train.csv with a line `path,class` for each video."
        raise AnnotationError(f"{top} has neither class folders nor lists. {hint}")
    if videos:
        raise AnnotationError(
            f"{top} mixes folders and loose videos ({len(videos)}, first {videos[0].name}), which have no class. Move "
            "them into class folders, or write train.csv."
        )
    named = next((path.name for path in folders if path.name.lower() in _SPLIT_NAMES), None)
    if named and ("train" in splits or len(folders) <= len(SPLITS)):
        raise AnnotationError(f"{top / named} should be called {_SPLIT_NAMES[named.lower()]}. Rename it.")
    if "train" in splits:
        classes = [path.name for path in folders if path.name not in SPLITS and _holds_videos(path)]
        if classes:
            raise AnnotationError(
                f"{top} mixes folders train, {', '.join(sorted(splits - {'train'})) or 'val'} and class folders "
                f"({', '.join(classes[:3])}). Move the class folders into train and val."
            )
        if splits == {"train"} and any(_holds_videos(path) for path in (top / "train").iterdir() if path.is_dir()):
            raise AnnotationError(
                f"{top} has a folder train, and neither val nor test. Add one of them, or give --data_path "
                f"{top / 'train'}, of which one video in ten is then held out."
            )
    elif splits and any(_holds_videos(path) for name in splits for path in (top / name).iterdir() if path.is_dir()):
        raise AnnotationError(
            f"{top} has a folder {sorted(splits)[0]} and no folder train. Add it, with a folder per class."
        )


def _holds_videos(folder: Path) -> bool:
    return any(path.name.lower().endswith(VIDEO_ENDINGS) or has_frames(path) for path in folder.iterdir())


# ---- lists


def _lists(folder: str, files: Sequence[str], columns: Columns) -> FolderContents:
    if not os.path.basename(files[0]).startswith("train."):
        raise AnnotationError(
            f"{folder} has {os.path.basename(files[0])} and no train.csv. Add it: lines `path,class`."
        )
    separator, prefix = _separator_and_prefix(folder, files[0], columns)
    first = _first_rows(files[0], words_form(separator))
    frame_folders = columns.frame_folders
    if frame_folders is None:
        frame_folders = bool(first) and all(os.path.isdir(join(prefix, row.path.rpartition(separator)[0] or row.path))
                                            for row in first)  # fmt: skip
    multi_label = columns.multi_label
    if multi_label is None:
        multi_label = separator != BETWEEN and any(
            BETWEEN in word for word in table_of(files[0], words_form(separator)).words or ()
        )
    form = words_form(separator, frame_folders=frame_folders, multi_label=multi_label)
    classes = classes_of(files[0], form, multi_label=multi_label)
    splits: dict[str, VideoList] = {}
    for split in SPLITS:
        file = split_file(folder, split, files)
        videos = read_named(file.path, classes, form, prefix=prefix, multi_label=multi_label)
        splits[split] = part_of(videos, file)
    if classes.count < 2 and not multi_label:
        raise AnnotationError(f"{files[0]} has one class only: there is nothing to tell apart. Add videos of another.")
    kind = "names" if classes.names is not None else "numbers"
    return FolderContents(
        data_set="video_list",
        what=f"{files[0]} is a list with {kind} of classes",
        classes=classes.count,
        names=classes.names,
        counts=tuple(splits["train"].counts(classes.count).tolist()),
        splits={split: len(videos) for split, videos in splits.items()},
        notes=_notes(splits),
        separator=separator,
        prefix=prefix,
        frame_folders=frame_folders,
        multi_label=multi_label,
    )


def _first_rows(file: str, form: Form) -> list[Row]:
    return [row for _, row in itertools.islice(rows_of(file, form), _LOOKED_AT)]


def _separator_and_prefix(folder: str, file: str, columns: Columns) -> tuple[str, str]:
    """The separator by which most of the first lines name files that are there, and the folder that these are below."""
    prefixes = [columns.prefix] if columns.prefix is not None else ["", folder]
    if is_parquet(file):
        first = _first_rows(file, Form(words=True))
        there = [sum(os.path.exists(join(prefix, row.path)) for row in first) for prefix in prefixes]
        return columns.separator or ",", prefixes[int(np.argmax(there))]
    separators = [columns.separator] if columns.separator is not None else list(SEPARATORS)
    shown = [line for _, line in itertools.islice(lines(read_text(file)), _LOOKED_AT + 1)]  # the first may be a header
    scored: Counter[tuple[str, str]] = Counter()
    for separator in separators:
        form = Form(separator_of(separator), words=True)
        rows = [row for line in shown if (row := form.row(line)) is not None and row.text]
        for prefix in prefixes:
            count = sum(_is_there(prefix, row.path, form.separator) for row in rows)
            scored[separator, prefix] = (_LOOKED_AT + 2) * count + len(rows)
    best = max(scored.values())
    if not shown:
        raise AnnotationError(f"{file} is empty. A line is path,class.")
    if not best:
        raise AnnotationError(
            f"{file}: no line ends in a separator and a label, e.g. `{shown[0][:80]}`. A line is path,class."
        )
    return next(choice for choice, score in scored.items() if score == best)


def _is_there(prefix: str, path: str, separator: str) -> bool:
    """Whether the path of a line exists; for a folder of frames without the number of frames after it."""
    return is_url(path) or any(
        os.path.exists(join(prefix, name)) for name in (path, path.rpartition(separator)[0]) if name
    )
