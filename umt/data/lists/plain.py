"""Lists as almost everybody's are, read at once by numpy: 650 000 rows in a tenth of a second instead of two.

Plain is a list whose every line is a path, the separator and a whole number (two for folders of frames): no quotes, no
Windows line ends, no spaces around a path. Whatever else there is, `umt.data.lists.lines` reads line by line.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.lines import Form, header
from umt.data.lists.video_list import Rows

_DIGITS = 18  # what fits 64 bits
_NEWLINE, _SPACE, _DELETE = 10, 32, 127


def plain_rows(text: str, form: Form) -> tuple[Rows, array[int]] | None:
    """Rows of `text` and the numbers of their lines, the same that reading line by line gives; None: not plain."""
    if '"' in text or "\r" in text or form.columns is not None or not form.separator.isascii():
        return None
    start = 0
    first = text[: text.find("\n")] if "\n" in text else text
    row = form.row(first)
    if first.strip() and (row is None or row.label < 0):
        if header(first.strip(" "), form) is not form:
            return None
        start = len(first.encode()) + 1
    data = np.frombuffer(text.encode() if text.endswith("\n") else text.encode() + b"\n", np.uint8)[start:]
    ends = np.flatnonzero(data == _NEWLINE)
    starts = np.concatenate(([0], ends[:-1] + 1))
    numbers = np.flatnonzero(ends > starts)
    starts, ends = starts[numbers], ends[numbers]
    if not len(ends):
        return None
    separators = np.flatnonzero(data == ord(form.separator))
    columns = []
    stops = ends
    for _ in range(2 if form.frame_folders else 1):
        before = np.searchsorted(separators, stops) - 1
        if len(separators) == 0 or before.min() < 0:
            return None
        marks = separators[before]
        values = _numbers(data, marks + 1, stops)
        if values is None or (marks <= starts).any():
            return None
        columns.append(values)
        stops = marks
    edges = data[np.concatenate((starts, stops - 1))]
    if (edges <= _SPACE).any() or (edges >= _DELETE).any() or (form.frame_folders and columns[1].min() < 1):
        return None
    kept = np.zeros(len(data) + 1, np.int8)
    kept[starts] = 1
    kept[stops] -= 1
    rows = Rows()
    rows.text = bytearray(data[np.cumsum(kept[:-1], dtype=np.int8).astype(bool)].tobytes())
    rows.ends.frombytes(np.cumsum(stops - starts, dtype=np.int64).tobytes())
    rows.labels.frombytes(columns[0].tobytes())
    rows.frames.frombytes((columns[1] if form.frame_folders else np.full(len(ends), -1)).tobytes())
    lines = array("q")
    lines.frombytes((numbers + 1 + bool(start)).tobytes())
    return rows, lines


def _numbers(data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The whole numbers, without sign, that stand from `starts` to `ends`; None if one of them is none."""
    lengths = ends - starts
    longest = int(lengths.max())
    if lengths.min() < 1 or longest > _DIGITS:
        return None
    values = np.zeros(len(starts), np.int64)
    for place in range(longest):
        inside = place < lengths
        digits = data[np.where(inside, starts + place, starts)].astype(np.int64) - ord("0")
        if ((digits < 0) | (digits > 9)).any():
            return None
        values = np.where(inside, values * 10 + digits, values)
    return values
