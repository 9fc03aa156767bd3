"""The videos below a folder, listed in one pass, and which of them is a given clip."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from umt.data.labels import plain
from umt.data.lists.lines import fits_a_line
from umt.data.video.video_reader import VIDEO_ENDINGS
from umt.errors import AnnotationError
from umt.tools.data.prepare.clips import Clip

_FRAME = re.compile(r"img_\d{5}\.jpg", re.IGNORECASE)
NOT_LISTED = "its path is not UTF-8, has a line end in it or spaces around it: a list cannot name it"
_AT_ONCE = 16  # network disks answer slowly, but many at once


@dataclass(frozen=True, slots=True)
class Entry:
    """A video: path below the root, bytes; or a folder of frames and how many there are."""

    path: str
    size: int
    frames: int


@dataclass
class Disk:
    """Videos (or folders of frames) below `root`, by name without ending."""

    root: str
    files: int = 0
    stems: dict[str, list[Entry]] = field(default_factory=dict)

    def find(self, clip: Clip, *, same_name_is_same_clip: bool) -> tuple[Entry | None, str]:
        """The file of a clip, or None and why not. Of several files `_rank` says which is taken."""
        folder = plain(clip.folder)
        for stem in clip.stems:
            known = self.stems.get(stem)
            if not known:
                continue
            entry = min(known, key=lambda entry: _rank(entry, folder))
            if len(known) > 1 and not same_name_is_same_clip and not _in_folder(entry, folder):
                return None, f"{len(known)} files have that name, none in a folder {clip.folder}"
            if not entry.size and not entry.frames:
                return None, f"{entry.path} is empty (0 bytes)"
            if not fits_a_line(entry.path):
                return None, NOT_LISTED
            return entry, ""
        return None, "no such file"

    def examples(self, count: int = 2) -> list[str]:
        """Paths of some videos, the same each time."""
        return sorted(entry.path for known in self.stems.values() for entry in known)[:count]


def _in_folder(entry: Entry, folder: str) -> bool:
    return plain(os.path.basename(os.path.dirname(entry.path))) == folder


def _rank(entry: Entry, folder: str) -> tuple[bool, bool, bool, int, str]:
    empty = not entry.size and not entry.frames
    # Kinetics-400 comes with whole copies of files that are damaged in its archives.
    replaces = "replacement" in entry.path.lower()
    return empty, not replaces, not _in_folder(entry, folder), len(entry.path), entry.path


def require_folders(folders: Sequence[Path]) -> None:
    """Raises AnnotationError for one that is not there."""
    for folder in folders:
        if not folder.is_dir():
            what = "a file" if folder.exists() else "not there"
            raise AnnotationError(f"--videos ({folder}) is {what}. Give the folder that holds the videos.")


def scan(folders: Sequence[Path], *, frame_folders: bool = False) -> Disk:
    """Lists the videos below `folders`, following links. Raises AnnotationError where there is none."""
    roots = [os.path.abspath(folder) for folder in folders]
    disk = Disk(roots[0] if len(roots) == 1 else os.path.commonpath(roots))
    linked: set[str] = set()
    with (
        ThreadPoolExecutor(_AT_ONCE) as pool,
        tqdm(desc="looking for videos", unit=" files", disable=None, leave=False, dynamic_ncols=True) as bar,
    ):
        open_: set[Future[tuple[list[Entry], list[str]]]] = set()

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
                videos, inner = task.result()
                for entry in videos:
                    name = os.path.basename(entry.path)
                    disk.stems.setdefault(name if frame_folders else os.path.splitext(name)[0], []).append(entry)
                disk.files += len(videos)
                bar.update(len(videos))
                visit(inner)
    if not disk.files:
        kinds = "folder of frames (img_00001.jpg, ...)" if frame_folders else f"video ({', '.join(VIDEO_ENDINGS)})"
        raise AnnotationError(f"--videos ({' '.join(map(str, folders))}) holds no {kinds}. Is it the right folder?")
    return disk


def _look(folder: str, root: str, frame_folders: bool) -> tuple[list[Entry], list[str]]:
    """Videos directly in a folder, and the folders in it; or the folder itself where it holds frames."""
    videos: list[Entry] = []
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
                    videos.append(Entry(start + entry.name, _size(entry), 0))
    except OSError as error:
        raise AnnotationError(f"{folder} cannot be looked into: {error.strerror}. Check its permissions.") from None
    if frames:
        videos.append(Entry(below, 0, frames))
    return videos, inner


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nowhere
        return 0
