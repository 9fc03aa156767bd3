"""Finds annotation files below the folders of --annotations, by name, in a fixed order."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umt.errors import AnnotationError

_DEPTH = 4
_LIKELY = re.compile(r"annot|label|list|split|kinetics|[kK][467]\d0|\b[467]00", re.IGNORECASE)
_CROWD = 2000  # a folder of more entries than this holds videos


def files(annotations: Sequence[Path], videos: Sequence[Path], endings: tuple[str, ...]) -> list[Path]:
    """Files of these endings below `annotations`, sorted; without --annotations, in or next to the folders of videos.

    Raises AnnotationError for a folder that is not there.
    """
    matches: set[Path] = set()
    for place in annotations:
        if not place.exists():
            raise AnnotationError(f"--annotations ({place}) is not there. Give the folder of the official lists.")
        if place.is_file():
            matches.add(place)
        else:
            _walk(place, endings, matches, _DEPTH, only_likely=False)
    if not annotations:
        for folder in videos:
            _walk(folder, endings, matches, 2, only_likely=True)
            for sibling in ("annotations", "labels"):
                if (folder.parent / sibling).is_dir():
                    _walk(folder.parent / sibling, endings, matches, 2, only_likely=True)
    return sorted(matches)


def _walk(folder: Path, endings: tuple[str, ...], matches: set[Path], depth: int, *, only_likely: bool) -> None:
    try:
        with os.scandir(folder) as scanned:
            entries = []
            for entry in scanned:
                entries.append(entry)
                if len(entries) > _CROWD and only_likely:
                    return
    except OSError as error:
        raise AnnotationError(f"{folder} cannot be looked into: {error.strerror}. Check its permissions.") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if depth > 1 and (not only_likely or _LIKELY.search(entry.name)):
                _walk(Path(entry.path), endings, matches, depth - 1, only_likely=only_likely)
        elif entry.name.lower().endswith(endings):
            matches.add(Path(entry.path))


def lines(file: Path) -> list[tuple[int, str]]:
    """Numbered lines of a text file without the empty ones. Raises AnnotationError if it is not text."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{file} is not UTF-8 text (byte {error.start}). Is it an annotation file?") from None
    except OSError as error:
        raise AnnotationError(f"{file} cannot be read: {error.strerror}. Check its permissions.") from None
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def json_of(file: Path) -> Any:
    """The content of a JSON file. Raises AnnotationError."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise AnnotationError(f"{file} cannot be read as JSON: {error}. Fetch it again.") from None
    except OSError as error:
        raise AnnotationError(f"{file} cannot be read: {error.strerror}. Check its permissions.") from None


def none_found(dataset: str, looked_for: str, annotations: Sequence[Path], videos: Sequence[Path]) -> AnnotationError:
    """The sentence for an annotation that is not there."""
    where = f"below {' or '.join(map(str, annotations))}" if annotations else f"in or next to {videos[0]}"
    remedy = "Check --annotations" if annotations else "Give their folder with --annotations"
    return AnnotationError(f"{dataset}: no annotation {where}: looked for {looked_for}. {remedy}.")
