"""The user's videos, in a folder per class, as lists. The split is that of `--data_set image_folder`."""

from __future__ import annotations

import os
from pathlib import Path

from umt.data.lists.class_folders import read_folders
from umt.data.lists.lines import fits_a_line
from umt.errors import AnnotationError
from umt.tools.data.prepare.disk import NOT_LISTED
from umt.tools.data.prepare.match import Matched, Row


def read(videos: Path) -> tuple[list[str], dict[str, Matched], str]:
    """(class names, splits, a note on how they were chosen). Paths are below `videos`. Raises AnnotationError."""
    if not videos.is_dir():
        raise AnnotationError(f"--videos ({videos}) is not a folder. Give the folder that holds a folder per class.")
    splits: dict[str, Matched] = {}
    names: list[str] = []
    note = ""
    for split in ("train", "val", "test"):
        part = read_folders(videos, split)
        names, note = list(part.class_names or []), part.note or note
        below = os.path.relpath(part.prefix, videos)
        rows: list[Row] = []
        matched = splits[split] = Matched(rows, len(part))
        for row in range(len(part)):
            path = part.path(row) if below == "." else os.path.join(below, part.path(row))
            size = os.path.getsize(part.file(row)) if part.num_frames[row] < 0 else 0
            if part.num_frames[row] >= 0:
                matched.missing.append((path, "a folder of frames: --data_set image_folder reads it, a list does not"))
            elif not fits_a_line(path):
                matched.missing.append((path, NOT_LISTED))
            elif not size:
                matched.missing.append((path, f"{path} is empty (0 bytes)"))
            else:
                rows.append(Row(path, int(part.labels[row]), -1, size))
        rows.sort(key=lambda row: row.path)
    return names, splits, note
