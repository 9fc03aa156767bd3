"""Rows that are taken from a list: kept for validation where there is no list for it, or a few of each class."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.split_files import ONE_IN, SplitFile
from umt.data.lists.video_list import VideoList
from umt.errors import AnnotationError
from umt.randomness import generator


def held_out(paths: Sequence[str], labels: Sequence[int], one_in: int = ONE_IN) -> NDArray[np.bool_]:
    """(N,) which rows are held out: of every class 1 in `one_in`, at least one unless the class has only one.

    By a hash of the path: the same rows every time, and a video that is added moves few others to the other side.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        by_class[int(label)].append(row)
    chosen = np.zeros(len(labels), np.bool_)
    for rows in by_class.values():
        if len(rows) > 1:
            rows.sort(key=lambda row: (zlib.crc32(paths[row].encode("utf-8", "surrogateescape")), paths[row]))
            chosen[rows[:: max(one_in, 1)]] = True
    return chosen


def part_of(videos: VideoList, split: SplitFile) -> VideoList:
    """The rows of `videos`, all of `split.path`, that serve as the split. Raises AnnotationError if there are none."""
    if split.part:
        out = held_out([videos.path(row) for row in range(len(videos))], videos.labels.tolist())
        videos = videos.take(np.flatnonzero(out == (split.part == "held out")))
        if not len(videos):
            raise AnnotationError(
                f"{split.path} has no class of two videos, of which one could be held out. Give val.csv next to it."
            )
    videos.note = split.note
    return videos


def few_shots(videos: VideoList, shots: int, seed: int) -> VideoList:
    """`shots` videos of each class of `videos`, all of a class that has fewer; in the order of the list.

    Drawn by `seed`. Of a multi-label list the rarest class chooses first, and a video counts for all of its classes, so
    that of common ones more than `shots` may be taken.
    """
    taken: set[int] = set()
    for label, rows in videos.rows_by_label().items():
        order = [int(row) for row in generator(seed, "shots", label).permutation(rows)]
        missing = shots - sum(row in taken for row in order)
        taken |= set([row for row in order if row not in taken][: max(missing, 0)])
    few = videos.take(np.array(sorted(taken), np.int64))
    few.note = f"{len(few)} of {len(videos)} training videos are taken: {shots} of each class, by --seed {seed}."
    return few
