"""Matches an annotation with the disk: the rows of a list, and the clips that are missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from umt.tools.data.prepare.clips import Clip, Official
from umt.tools.data.prepare.disk import Disk, Entry


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a list."""

    path: str
    label: int
    frames: int
    size: int


@dataclass
class Matched:
    """A split: its rows sorted by path, how many the official list has, and the missing clips with the reasons."""

    rows: list[Row]
    official: int
    missing: list[tuple[str, str]] = field(default_factory=list)
    repeated: int = 0  # annotated clips whose file stands in the list already


def match(official: Official, split: str, disk: Disk) -> Matched:
    """Matches the clips of a split. A video of several sets comes from the first set whose file is there."""
    matched = Matched([], 0)
    taken: set[str] = set()
    for group in _choices(official.splits.get(split, [])):
        tried = [[(clip, *_find(official, clip, disk)) for clip in clips] for clips in group]
        chosen = next((clips for clips in tried if any(entry for _, entry, _ in clips)), tried[0])
        matched.official += len(chosen)
        for clip, entry, why in chosen:
            if entry is None:
                matched.missing.append((clip.shown, why))
            elif entry.path in taken:
                matched.repeated += 1
                matched.official -= 1
            else:
                taken.add(entry.path)
                matched.rows.append(Row(entry.path, clip.label, entry.frames, entry.size))
    matched.rows.sort(key=lambda row: row.path)
    matched.missing.sort()
    return matched


def _find(official: Official, clip: Clip, disk: Disk) -> tuple[Entry | None, str]:
    return disk.find(clip, same_name_is_same_clip=official.same_name_is_same_clip)


def _choices(clips: list[Clip]) -> Iterator[list[list[Clip]]]:
    """For each video, its clips by set, in the order of the sets; with a single set there is nothing to choose."""
    if len({clip.source for clip in clips}) < 2:
        yield from ([[clip]] for clip in clips)
        return
    videos: dict[str, dict[str, list[Clip]]] = {}
    for clip in clips:
        videos.setdefault(clip.video, {}).setdefault(clip.source, []).append(clip)
    for sets in videos.values():
        yield list(sets.values())
