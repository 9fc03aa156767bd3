"""Reads what the page shows, in processes that may hang or crash without harm (`umt.data.loading.pool`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from tqdm import tqdm

from umt.data.loading.pool import Pool
from umt.errors import VideoError
from umt.randomness import generator
from umt.tasks.base.shown import File, Shown, Strip

_SEED = 0  # of the choice of videos


@dataclass
class Clip:
    """One video of the page."""

    row: int
    strips: list[Strip]


@dataclass
class Seen:
    """All that was read."""

    files: list[File]
    clips: list[Clip]
    notes: list[str] = field(default_factory=list)

    @property
    def readable(self) -> list[File]:
        return [file for file in self.files if not file.cause]


@dataclass(frozen=True)
class _Reader:
    """What a process does with a row: ("file", row) -> File, ("clip", row) -> strips; a File where it fails."""

    shown: Shown

    def __call__(self, work: tuple[str, int]) -> File | list[Strip]:
        what, row = work
        try:
            return self.shown.file(row) if what == "file" else self.shown.strips(row)
        except VideoError as error:
            return File(row, cause=str(error))


def look(shown: Shown, *, clips: int, files: int, processes: int) -> Seen:
    """Looks into `files` videos chosen at random, and makes clips of `clips` of them, of as many classes as it can."""
    rows = generator(_SEED, "show").permutation(len(shown.videos))[:files].tolist()
    pool = Pool(_Reader(shown), workers=min(processes, len(rows)), timeout=shown.timeout, start=_one_thread)

    def read(what: str, rows: Sequence[int]) -> list[Any]:
        items = pool.run([(what, row) for row in rows])
        return list(tqdm(items, desc=what, unit="video", total=len(rows), leave=False, disable=None))

    try:
        seen = Seen(read("file", rows), [])
        chosen = choose([file.row for file in seen.readable], shown.videos.labels, clips)
        for row, result in zip(chosen, read("clip", chosen), strict=True):
            if isinstance(result, File):  # readable when it was measured, and not now
                seen.files = [result if file.row == row else file for file in seen.files]
            else:
                seen.clips.append(Clip(row, result))
    finally:
        pool.close()
    seen.notes += shown.finish([strip for clip in seen.clips for strip in clip.strips])
    return seen


def _one_thread() -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def choose(rows: Sequence[int], labels: NDArray[Any], count: int) -> list[int]:
    """The first `count` of `rows`, but a class has its second turn only when all others have had their first."""
    seen: Counter[int] = Counter()
    turns = []
    for place, row in enumerate(rows):
        label = int(labels[row])
        turns.append((seen[label] if label >= 0 else 0, place))
        seen[label] += 1
    return [rows[place] for _, place in sorted(turns)[:count]]
