"""What lies on the disk: the videos below a folder, found in one pass, and which of them is a given clip."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from umt.data.labels import plain
from umt.data.lists.class_folders import VIDEO_ENDINGS
from umt.errors import AnnotationError
from umt.tools.data.prepare.clips import Clip

_FRAME = re.compile(r"img_\d{5}\.jpg", re.IGNORECASE)
NOT_LISTED = "its path is no UTF-8, holds a line end or begins with a space: a list cannot name it"
_AT_ONCE = 16  # network disks answer slowly, but many at once


@dataclass(frozen=True, slots=True)
class Found:
    """A video: path below the root, bytes; or a folder of frames and how many there are."""

    path: str
    size: int
    frames: int


@dataclass
class Disk:
    """Videos (or folders of frames) below `root`, by name without ending."""

    root: str
    files: int = 0
    stems: dict[str, list[Found]] = field(default_factory=dict)

    def find(self, clip: Clip, *, same_name_is_same_clip: bool) -> tuple[Found | None, str]:
        """The file of a clip, or None and why not. Of several the fullest, in the folder of its class, is taken."""
        folder = plain(clip.folder)
        for stem in clip.stems:
            known = self.stems.get(stem)
            if not known:
                continue
            found = min(known, key=lambda one: _rank(one, folder))
            if len(known) > 1 and not same_name_is_same_clip and not _in_folder(found, folder):
                return None, f"{len(known)} files have that name, none in a folder {clip.folder}"
            if not found.size and not found.frames:
                return None, f"{found.path} is empty (0 bytes)"
            if not can_be_listed(found.path):
                return None, NOT_LISTED
            return found, ""
        return None, "no such file"

    def examples(self, count: int = 2) -> list[str]:
        """Paths of some videos, the same each time."""
        return sorted(found.path for known in self.stems.values() for found in known)[:count]


def can_be_listed(path: str) -> bool:
    """Whether a line of a list can hold the path."""
    lone = any("\ud800" <= c <= "\udfff" for c in path)  # a byte that is no UTF-8
    return not lone and path == path.strip() and "\n" not in path and "\r" not in path


def _in_folder(found: Found, folder: str) -> bool:
    return plain(os.path.basename(os.path.dirname(found.path))) == folder


def _rank(found: Found, folder: str) -> tuple[bool, bool, bool, int, str]:
    empty = not found.size and not found.frames
    # Kinetics-400 comes with whole copies of files that are damaged in its archives.
    replaces = "replacement" in found.path.lower()
    return empty, not replaces, not _in_folder(found, folder), len(found.path), found.path


def require_folders(folders: Sequence[Path]) -> None:
    """Raises AnnotationError for one that is not there."""
    for folder in folders:
        if not folder.is_dir():
            what = "a file" if folder.exists() else "not there"
            raise AnnotationError(f"--videos ({folder}) is {what}. Give the folder that holds the videos.")


def scan(folders: Sequence[Path], *, frame_folders: bool = False) -> Disk:
    """Looks through `folders`, following links. Raises AnnotationError where there is no video."""
    roots = [os.path.abspath(folder) for folder in folders]
    disk = Disk(roots[0] if len(roots) == 1 else os.path.commonpath(roots))
    linked: set[str] = set()
    with (
        ThreadPoolExecutor(_AT_ONCE) as pool,
        tqdm(desc="looking for videos", unit=" files", disable=None, leave=False, dynamic_ncols=True) as bar,
    ):
        open_: set[Future[tuple[list[Found], list[str]]]] = set()

        def visit(folders: Iterable[str]) -> None:
            for path in folders:
                if os.path.islink(path):
                    real = os.path.realpath(path)
                    if real in linked:
                        continue
                    linked.add(real)
                open_.add(pool.submit(_look, path, disk.root, frame_folders))

        visit(dict.fromkeys(roots))
        while open_:
            done, open_ = wait(open_, return_when=FIRST_COMPLETED)
            for task in done:
                found, inner = task.result()
                for one in found:
                    name = os.path.basename(one.path)
                    disk.stems.setdefault(name if frame_folders else os.path.splitext(name)[0], []).append(one)
                disk.files += len(found)
                bar.update(len(found))
                visit(inner)
    if not disk.files:
        kinds = "folder of frames (img_00001.jpg, ...)" if frame_folders else f"video ({', '.join(VIDEO_ENDINGS)})"
        raise AnnotationError(f"--videos ({' '.join(map(str, folders))}) holds no {kinds}. Is it the right folder?")
    return disk


def _look(folder: str, root: str, frame_folders: bool) -> tuple[list[Found], list[str]]:
    """Videos directly in a folder, and the folders in it; or the folder itself where it holds frames."""
    found: list[Found] = []
    inner: list[str] = []
    frames = 0
    below = os.path.relpath(folder, root)
    start = "" if below == "." else below + os.sep
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if frame_folders and _FRAME.fullmatch(entry.name):
                    frames += 1
                elif entry.is_dir():
                    inner.append(entry.path)
                elif not frame_folders and entry.name.lower().endswith(VIDEO_ENDINGS):
                    found.append(Found(start + entry.name, _size(entry), 0))
    except OSError as error:
        raise AnnotationError(f"{folder} cannot be looked into: {error.strerror}. Check its permissions.") from None
    if frames:
        found.append(Found(below, 0, frames))
    return found, inner


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nowhere
        return 0
