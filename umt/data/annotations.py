"""Lists of videos: the original's csv forms, and a folder per class.

A line is `path<separator>label`; `path<separator>frames<separator>label` for videos kept as folders of frames. Columns
are split from the right, so that a path may contain the separator. A byte-order mark, Windows line ends, quoted fields,
blank lines and a header line are all fine. Nothing here needs torch or pandas.
"""

from __future__ import annotations

import csv
import os
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umt.errors import AnnotationError

VIDEO_ENDINGS = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")

_SEPARATORS = {",": "','", " ": "' '", "\t": "$'\\t'", ";": "';'", "|": "'|'"}  # as a shell writes them
_HEADER_WORDS = {"label", "labels", "class", "class_id", "classid", "label_id", "target", "category", "y"}
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")


class VideoList:
    """Rows of a list: each has a path as the list writes it, a file, a label (-1: none) and a number of frames.

    That number is -1 for a video file and 0 for a folder of frames that nobody counted. Paths lie in one block of
    bytes, not in a million Python strings, whose reference counts would make every worker copy them.
    """

    def __init__(
        self, source: str, paths: list[str], labels: list[int], frames: list[int] | None = None, prefix: str = "",
        extension: str = "", note: str = "",
    ) -> None:  # fmt: skip
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self.source = source
        self.prefix = prefix
        self.note = note  # what a person should know of how the list came about
        self.labels: NDArray[np.int64] = np.array(labels, dtype=np.int64)
        self.num_frames: NDArray[np.int64] = np.array(frames or [-1] * len(paths), dtype=np.int64)
        self._extension = extension
        self._ends: NDArray[np.int64] = np.cumsum([0, *map(len, encoded)])
        self._text = b"".join(encoded)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> str:
        """The path as the list writes it: the name of the row in results."""
        return self._text[self._ends[row] : self._ends[row + 1]].decode("utf-8", "surrogateescape")

    def file(self, row: int) -> str:
        """The file or folder to open: prefix and ending added."""
        path = self.path(row)
        if self._extension and "." not in os.path.basename(path):
            path += self._extension
        return os.path.join(self.prefix, path)

    @property
    def labelled(self) -> bool:
        """Whether every row has a label."""
        return bool((self.labels >= 0).all())


def missing_files(videos: VideoList) -> list[int]:
    """Rows whose file or folder is not there. Looked up side by side: network disks answer slowly, but many at once."""
    with ThreadPoolExecutor(16) as pool:
        there = pool.map(os.path.exists, map(videos.file, range(len(videos))))
        return [row for row, found in enumerate(there) if not found]


def require_files(videos: VideoList) -> None:
    """Raises AnnotationError that counts the videos which are not there, and names the first."""
    missing, prefix = missing_files(videos), videos.prefix or "none"
    if missing:
        raise AnnotationError(
            f"{videos.source}: {len(missing)} of {len(videos)} videos cannot be read: no such file, first "
            f"{videos.file(missing[0])} (row {missing[0]}, counted from 0). Check --prefix ({prefix}), "
            "take them off the list, or give --count_unreadable_as_wrong."
        )


def read_list(
    path: str | os.PathLike[str],
    *,
    separator: str = " ",
    prefix: str = "",
    num_classes: int | None = None,
    frame_folders: bool = False,
    labels_optional: bool = False,
    extension: str = "",
) -> VideoList:
    """Reads a list of videos. Raises AnnotationError naming file:line and what to do.

    Args:
        separator: between the columns (--split); the two characters `\\t` stand for a tab.
        prefix: folder joined before every path (--prefix).
        num_classes: labels must lie in 0..num_classes - 1; None: labels are not looked at (pretraining).
        frame_folders: rows are `path, frames, label`, and the path is a folder of frames.
        labels_optional: the last column may be missing throughout, as in a test list without ground truth.
        extension: appended to paths of videos whose last part has no dot (".mp4" in pretraining lists).
    """
    source = os.fspath(path)
    separator = "\t" if separator == "\\t" else separator
    paths: list[str] = []
    labels: list[int] = []
    frames: list[int] = []
    lines: list[int] = []
    for number, line in _lines(source):
        row = _split(line, separator, frame_folders)
        if row is None and not paths and _is_header(line):
            continue
        if row is None and labels_optional and _other_separator(line, separator, frame_folders) is None:
            row = _split(f"{line}{separator}-1", separator, frame_folders)
        if row is None:
            raise AnnotationError(_explain(source, number, line, separator, frame_folders))
        paths.append(row[0])
        frames.append(row[1])
        labels.append(row[2])
        lines.append(number)
    if not paths:
        raise AnnotationError(f"{source} holds no video: a line is path{separator}label.")
    if num_classes is not None:
        _check_labels(source, labels, lines, num_classes, labels_optional)
    return VideoList(source, paths, labels, frames, prefix, "" if frame_folders else extension)


def count_rows(path: str | os.PathLike[str]) -> int:
    """Videos in a list, whatever its separator: lines that are neither blank nor a header."""
    rows = list(_lines(os.fspath(path)))
    return len(rows) - bool(rows and _is_header(rows[0][1]))


def _lines(source: str) -> Iterator[tuple[int, str]]:
    if os.path.isdir(source):
        inside = _lists_in(source)
        raise AnnotationError(
            f"{source} is a folder where a list of videos is wanted; "
            + (f"it holds {inside}: name one of them." if inside else "name a file of lines `path label`.")
        )
    try:
        text = Path(source).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        inside = _lists_in(os.path.dirname(source) or ".")
        raise AnnotationError(
            f"{source} does not exist; "
            + (f"its folder holds {inside}." if inside else "nor does any other list in its folder.")
            + " Check --data_path."
        ) from None
    except OSError as error:
        raise AnnotationError(f"{source} cannot be read: {error.strerror}. Check its permissions.") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{source} is no text in UTF-8 (byte {error.start}). Is it a list of videos? Convert it, e.g. with iconv."
        ) from None
    # Not splitlines(): a path may hold the odd characters that it takes for line ends.
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip():
            yield number, line.strip("\n ")


def _lists_in(folder: str) -> str:
    try:
        names = sorted(n for n in os.listdir(folder) if n.endswith((".csv", ".txt", ".tsv", ".list")))
    except OSError:
        return ""
    return ", ".join(names[:8])


def _split(line: str, separator: str, frame_folders: bool) -> tuple[str, int, int] | None:
    """Path, frames (-1 unless `frame_folders`) and label of a line; None if it has no such columns."""
    columns = 2 if frame_folders else 1
    if '"' in line:
        fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
        fields = [separator.join(fields[:-columns]), *fields[-columns:]] if len(fields) > columns else []
    else:
        fields = (line.rstrip() if separator.isspace() else line).rsplit(separator, columns)
    if len(fields) != columns + 1 or not all(_WHOLE_NUMBER.fullmatch(field.strip()) for field in fields[1:]):
        return None
    path, numbers = fields[0].strip(), [int(float(field)) for field in fields[1:]]
    if not path or (frame_folders and numbers[0] < 1):
        return None
    return path, numbers[0] if frame_folders else -1, numbers[-1]


def _is_header(line: str) -> bool:
    words = re.split(r"[,\s;|]+", line.strip().replace('"', "").lower())
    return len(words) > 1 and words[-1] in _HEADER_WORDS


def _other_separator(line: str, separator: str, frame_folders: bool) -> str | None:
    return next((s for s in _SEPARATORS if s != separator and _split(line, s, frame_folders)), None)


def _explain(source: str, number: int, line: str, separator: str, frame_folders: bool) -> str:
    shown = line if len(line) <= 80 else line[:77] + "..."
    named = _SEPARATORS.get(separator, repr(separator))
    right = _other_separator(line, separator, frame_folders)
    if right is not None:
        return (
            f"{source}:{number}: --split {named} does not part `{shown}` into path and label. "
            f"Try --split {_SEPARATORS[right]}."
        )
    if frame_folders and _split(line, separator, False):
        return f"{source}:{number}: `{shown}` lacks a column: rows of frame folders are path, number of frames, label."
    return (
        f"{source}:{number}: `{shown}` does not end in {named} and a whole-number label. Mend the line, or its --split."
    )


def _check_labels(source: str, labels: list[int], lines: list[int], num_classes: int, optional: bool) -> None:
    known = [label for label in labels if not (optional and label == -1)]
    if optional and 0 < len(known) < len(labels):
        where = lines[labels.index(-1)]
        raise AnnotationError(f"{source}:{where}: no label, while other lines have one. Give all or none of them.")
    for line, label in zip(lines, labels, strict=True):
        if 0 <= label < num_classes or (optional and label == -1):
            continue
        hint = "Check --nb_classes and the list."
        if label == num_classes and min(known) >= 1:
            hint = "Is the file 1-based? Labels start at 0."
        raise AnnotationError(
            f"{source}:{line}: label {label} is outside 0..{num_classes - 1} (--nb_classes {num_classes}). {hint}"
        )


def read_folders(
    root: str | os.PathLike[str], split: str, *, num_classes: int | None = None, held_out: int = 10
) -> VideoList:
    """A folder per class, holding videos or folders of frames; classes are the sorted folder names.

    `root` has folders train, val and test of classes (test may be missing: val then), or the classes themselves. Of
    the latter every `held_out`-th video of a class, in the order of a hash of its name, is for validation and test, the
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
        note = f"{top} has no folders train and val: 1 in {held_out} videos of a class is held out, chosen by a hash."
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
            order = sorted(found, key=lambda path: (zlib.crc32(path.encode("utf-8", "surrogateescape")), path))
            held = set(order[:: max(held_out, 1)]) if len(order) > 1 else set()
            found = [path for path in found if (path in held) != (split == "train")]
        paths += found
        labels += [label] * len(found)
        frames += [0 if (folder / path).is_dir() else -1 for path in found]
    if not paths:
        raise AnnotationError(
            f"{folder} holds no video for {split}: neither {', '.join(VIDEO_ENDINGS[:4])} ... nor frames."
        )
    return VideoList(str(folder), paths, labels, frames, prefix=str(folder), note=note)


def _folders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")] if folder.is_dir() else []


def _videos(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(
        p.name
        for p in folder.iterdir()
        if not p.name.startswith(".")
        and (p.name.lower().endswith(VIDEO_ENDINGS) or (p.is_dir() and any(_is_image(q) for q in p.iterdir())))
    )


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(IMAGE_ENDINGS)
