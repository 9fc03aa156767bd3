"""A folder per class instead of a list: classes are the sorted folder names."""

from __future__ import annotations

import os
from pathlib import Path

from umt.data.lists.holding_out import held_out
from umt.data.lists.split_files import ONE_IN
from umt.data.lists.video_list import VideoList
from umt.errors import AnnotationError

VIDEO_ENDINGS = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


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
        raise AnnotationError(f"{top} is no folder. --data_path of image_folder is a folder with a folder per class.")
    parts = {p.name for p in top.iterdir() if p.is_dir()}
    split_folders = "train" in parts and bool({"val", "test"} & parts)
    note = ""
    if split_folders:
        name = split if split in parts else {"test": "val", "val": "test"}.get(split, split)
        note = "" if name == split else f"{top} has no folder {split}: {name} is taken."
        folder = top / name
        classes = sorted({p.name for part in ("train", "val", "test") for p in _folders(top / part)})
    else:
        folder, classes = top, sorted(p.name for p in _folders(top))
        note = f"{top} has no folders train and val: 1 in {one_in} videos of a class is held out, chosen by a hash."
    if not classes:
        raise AnnotationError(f"{top} has no folder per class.")
    if num_classes is not None and len(classes) != num_classes:
        alone = (
            "" if split_folders or "train" not in parts else " If train holds the classes, add val or test beside it."
        )
        raise AnnotationError(
            f"{top} has {len(classes)} folders, one a class, not --nb_classes {num_classes}. "
            f"Try --nb_classes {len(classes)}.{alone}"
        )
    paths: list[str] = []
    labels: list[int] = []
    frames: list[int] = []
    for label, name in enumerate(classes):
        found = [f"{name}/{entry}" for entry in _videos(folder / name)]
        if not split_folders:
            held = held_out(found, [label] * len(found), one_in)
            found = [path for path, out in zip(found, held, strict=True) if out != (split == "train")]
        paths += found
        labels += [label] * len(found)
        frames += [0 if (folder / path).is_dir() else -1 for path in found]
    if not paths:
        raise AnnotationError(
            f"{folder} holds no video for {split}: neither {', '.join(VIDEO_ENDINGS[:4])} ... nor frames."
        )
    return VideoList(str(folder), paths, labels, frames, prefix=str(folder), note=note, class_names=classes)


def _folders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")] if folder.is_dir() else []


def _videos(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(
        p.name
        for p in folder.iterdir()
        if not p.name.startswith(".") and (p.name.lower().endswith(VIDEO_ENDINGS) or has_frames(p))
    )


def has_frames(folder: Path) -> bool:
    """Whether `folder` is one and holds pictures."""
    return folder.is_dir() and any(path.name.lower().endswith(IMAGE_ENDINGS) for path in folder.iterdir())
