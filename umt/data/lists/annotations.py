"""Lists of videos: the original's csv forms and their headers, and parquet. `umt.data.lists.lines` says what a line is.

A byte-order mark, Windows line ends, quoted fields, blank lines and a header line are all fine. Nothing here needs
torch or pandas; parquet needs pyarrow.
"""

from __future__ import annotations

import os
from array import array
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from umt.data.lists import parquet as parquet_list
from umt.data.lists.class_folders import VIDEO_ENDINGS, read_folders
from umt.data.lists.lines import SEPARATORS, Form, explain, header, lines, read_text, separator_of
from umt.data.lists.plain import plain_rows
from umt.data.lists.video_list import Rows, VideoList
from umt.errors import AnnotationError

__all__ = [
    "VIDEO_ENDINGS", "Files", "VideoList", "count_rows", "missing_files", "read_folders", "read_list", "require_files",
    "require_some_files",
]  # fmt: skip


class Files:
    """Rows that are files of this machine. `umt.data.storage.source.Storage` knows other places too."""

    def name(self, videos: VideoList, row: int) -> str:
        """How messages name the row's file."""
        return videos.file(row)

    def there(self, videos: VideoList, row: int) -> bool:
        """Whether it exists."""
        return os.path.exists(videos.file(row))


def missing_files(videos: VideoList, files: Files | None = None) -> list[int]:
    """Rows whose file or folder is not there. Looked up side by side: network disks answer slowly, but many at once."""
    files = files or Files()
    with ThreadPoolExecutor(16) as pool:
        there = pool.map(lambda row: files.there(videos, row), range(len(videos)))
        return [row for row, found in enumerate(there) if not found]


def require_files(videos: VideoList, files: Files | None = None) -> None:
    """Raises AnnotationError that counts the videos which are not there, and names the first."""
    files = files or Files()
    missing, prefix = missing_files(videos, files), videos.prefix or "none"
    if missing:
        raise AnnotationError(
            f"{videos.source}: {len(missing)} of {len(videos)} videos cannot be read: no such file, first "
            f"{files.name(videos, missing[0])} (row {missing[0]}, counted from 0). Check --prefix ({prefix}), "
            "take them off the list, or give --count_unreadable_as_wrong."
        )


def require_some_files(videos: VideoList, looks: int = 20, files: Files | None = None) -> None:
    """Raises AnnotationError where none of a few videos, spread over the list, is there: then the prefix is wrong."""
    files = files or Files()
    rows = range(0, len(videos), -(-len(videos) // looks))
    if not any(files.there(videos, row) for row in rows):
        raise AnnotationError(
            f"{videos.source}: none of {len(rows)} videos looked up is there, first {files.name(videos, 0)}. "
            f"Check --prefix ({videos.prefix or 'none'}) and the list."
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
    """Reads a list of videos. Raises AnnotationError naming file:line (of parquet: file:row) and what to do.

    Args:
        separator: between the columns (--split); the two characters `\\t` stand for a tab. Parquet has none.
        prefix: folder joined before every path (--prefix).
        num_classes: labels must lie in 0..num_classes - 1; None: labels are not looked at (pretraining).
        frame_folders: rows are `path, frames, label`, and the path is a folder of frames.
        labels_optional: the last column may be missing throughout, as in a test list without ground truth.
        extension: appended to paths of videos whose last part has no dot (".mp4" in pretraining lists).
    """
    source = os.fspath(path)
    if parquet_list.is_parquet(source):
        rows = parquet_list.read(source, frame_folders=frame_folders, labels_optional=labels_optional)
        numbers = array("q")
    else:
        form = Form(separator_of(separator), frame_folders, labels_optional)
        rows, numbers = _rows(source, form)
    if num_classes is not None:
        _check_labels(source, rows, numbers, num_classes, labels_optional)
    return VideoList.of(source, rows, prefix=prefix, extension="" if frame_folders else extension)


def _rows(source: str, form: Form) -> tuple[Rows, array[int]]:
    """The rows of a list of text, and the number of the line of each."""
    text = read_text(source)
    plain = plain_rows(text, form)
    if plain is not None:
        return plain
    rows, numbers, first = Rows(), array("q"), True
    for number, line in lines(text):
        row = form.row(line)
        if first and (row is None or row.label < 0):
            named = header(line, form)
            if named is not None:
                form, first = named, False
                continue
        first = False
        if row is None:
            raise AnnotationError(explain(source, number, line, form))
        rows.add(row.path.encode(), row.frames, row.label)
        numbers.append(number)
    if not rows:
        raise AnnotationError(f"{source} holds no video: a line is path{form.separator}label.")
    return rows, numbers


def count_rows(path: str | os.PathLike[str]) -> int:
    """Videos in a list, whatever its separator: rows of parquet, or lines that are neither blank nor a header."""
    source = os.fspath(path)
    if parquet_list.is_parquet(source):
        return parquet_list.count(source)
    text = read_text(source).replace("\r", "\n")
    first = next((line for _, line in lines(text)), None)
    named = first is not None and any(header(first, Form(s, labels_optional=True)) for s in SEPARATORS)
    return sum(map(bool, map(str.strip, text.split("\n")))) - named


def _check_labels(source: str, rows: Rows, numbers: array[int], num_classes: int, optional: bool) -> None:
    labels = np.frombuffer(rows.labels, np.int64)
    known = labels[labels != -1] if optional else labels

    def where(row: int) -> int:
        return numbers[row] if numbers else row + 1

    if optional and 0 < len(known) < len(labels):
        raise AnnotationError(
            f"{source}:{where(rows.labels.index(-1))}: no label, while other lines have one. Give all or none of them."
        )
    outside = (labels < 0) | (labels >= num_classes)
    if optional:
        outside &= labels != -1
    if outside.any():
        row = int(outside.argmax())
        hint = "Check --nb_classes and the list."
        if labels[row] == num_classes and known.min() >= 1:
            hint = "Is the file 1-based? Labels start at 0."
        raise AnnotationError(
            f"{source}:{where(row)}: label {labels[row]} is outside 0..{num_classes - 1} (--nb_classes {num_classes}). "
            f"{hint}"
        )
