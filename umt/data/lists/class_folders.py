"""A folder per class instead of a list: classes are the sorted folder names."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from umt.data.lists.split_files import ONE_IN
from umt.data.lists.subsets import held_out
from umt.data.lists.video_list import VideoList
from umt.data.once import once
from umt.data.video.video_reader import IMAGE_ENDINGS, VIDEO_ENDINGS
from umt.errors import AnnotationError


def read_folders(
    root: str | os.PathLike[str], split: str, *, num_classes: int | None = None, one_in: int = ONE_IN
) -> VideoList:
    """A folder per class, holding videos or folders of frames; classes are the sorted folder names.

    `root` has folders train, val and test of classes (test may be missing: val then), or the classes themselves. Of
    the latter every `one_in`-th video of a class, in the order of a hash of its name, is for validation and test, the
    others are for training; `VideoList.note` says so. Raises AnnotationError.
    """
    top = Path(root)
    if not top.is_dir():
        raise AnnotationError(
            f"{top} is not a folder. --data_path of image_folder is a folder with a folder per class."
        )
    parts = {path.name for path in top.iterdir() if path.is_dir()}
    has_splits = "train" in parts and bool({"val", "test"} & parts)
    if has_splits:
        name = split if split in parts else {"test": "val", "val": "test"}.get(split, split)
        note = "" if name == split else f"{top} has no folder {split}: {name} is used."
        folder = top / name
        classes = sorted({path.name for part in ("train", "val", "test") for path in _folders(top / part)})
    else:
        folder, classes = top, sorted(path.name for path in _folders(top))
        note = f"{top} has no folders train and val: 1 in {one_in} videos of a class is held out, chosen by a hash."
    if not classes:
        raise AnnotationError(f"{top} has no folder per class.")
    if num_classes is not None and len(classes) != num_classes:
        alone = "train" in parts and not has_splits
        hint = " If train holds the classes, add val or test next to it." if alone else ""
        raise AnnotationError(
            f"{top} has {len(classes)} folders, one per class, not --nb_classes {num_classes}. "
            f"Try --nb_classes {len(classes)}.{hint}"
        )
    paths: list[str] = []
    labels: list[int] = []
    frames: list[int] = []
    for label, (name, videos) in enumerate(_videos_of(folder, classes).items()):
        names = [f"{name}/{video}" for video in videos]
        out = held_out(names, [label] * len(names), one_in)
        kept = [has_splits or out_ != (split == "train") for out_ in out]
        paths += itertools.compress(names, kept)
        labels += [label] * sum(kept)
        frames += itertools.compress(videos.values(), kept)
    if not paths:
        raise AnnotationError(
            f"{folder} holds no video for {split}: neither {', '.join(VIDEO_ENDINGS[:4])} ... nor frames."
        )
    return VideoList(str(folder), paths, labels, frames, prefix=str(folder), note=note, class_names=classes)


def has_frames(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` is a folder that holds pictures."""
    return os.path.isdir(folder) and any(name.lower().endswith(IMAGE_ENDINGS) for name in os.listdir(folder))


def _folders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")] if folder.is_dir() else []


def _videos_of(folder: Path, classes: list[str]) -> dict[str, dict[str, int]]:
    """Class -> name of each of its videos, sorted -> its `VideoList.num_frames`. A tree is looked through once."""
    there = [str(folder / name) for name in classes if (folder / name).is_dir()]
    videos = once(there, "videos", lambda: {os.path.basename(path): _videos(path) for path in there})
    return {name: videos.get(name, {}) for name in classes}


def _videos(folder: str) -> dict[str, int]:
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    return {
        entry.name: 0 if entry.is_dir() else -1
        for entry in visible
        if entry.name.lower().endswith(VIDEO_ENDINGS) or has_frames(entry.path)
    }
