"""A few videos of each class: how well a model does from little is measured on such lists, drawn by a seed."""

from __future__ import annotations

import numpy as np

from umt.data.lists.video_list import VideoList
from umt.randomness import generator


def few(videos: VideoList, shots: int, seed: int) -> VideoList:
    """`shots` videos of each class of `videos`, all of a class that has fewer; in the order of the list.

    Of a multi-label list the rarest class chooses first, and a video counts for all of its classes, so that of common
    ones more than `shots` may be taken.
    """
    if videos.sets is None:
        classes = np.unique(videos.labels[videos.labels >= 0])
        members = {int(label): np.flatnonzero(videos.labels == label) for label in classes}
    else:
        hot = videos.sets.matrix()
        counts = hot.sum(0)
        rarest = [int(label) for label in np.argsort(counts, kind="stable") if counts[label]]
        members = {label: np.flatnonzero(hot[:, label]) for label in rarest}
    taken: set[int] = set()
    for label, rows in members.items():
        order = [int(row) for row in generator(seed, "shots", label).permutation(rows)]
        left = shots - sum(row in taken for row in order)
        taken |= set([row for row in order if row not in taken][: max(left, 0)])
    made = videos.take(np.array(sorted(taken), np.int64))
    made.note = f"{len(made)} of {len(videos)} training videos are taken: {shots} of each class, by --seed {seed}."
    return made
