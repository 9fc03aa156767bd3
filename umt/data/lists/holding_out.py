"""Rows of a training list that are kept for validation, where nobody made a list for it: the same ones every time."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.split_files import ONE_IN


def held_out(paths: Sequence[str], labels: Sequence[int], one_in: int = ONE_IN) -> NDArray[np.bool_]:
    """Which rows are held out: of every class one in `one_in`, at least one unless the class has only one.

    By a hash of the path, so that a video that is added moves few others from one side to the other.
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
