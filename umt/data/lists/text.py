"""Lists of text: from a file's bytes to rows. `umt.data.lists.lines` says what a line is.

Most lists are plain: every line is a path, the separator and a label, a whole number or words, without quotes and
without spaces around a path. `plain_table` reads these all at once by numpy, 650 000 rows in a fraction of a second;
other lists are read line by line. A byte-order mark, Windows line ends, quotes, blank lines and a header are all fine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.lines import Form, Row, explain, header
from umt.data.lists.video_list import Rows, Table
from umt.data.once import once
from umt.data.storage import remote
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError

MARK = b"\xef\xbb\xbf"  # of byte order, at the beginning of a file
_DIGITS = 18  # what fits 64 bits
_NEWLINE, _RETURN, _SPACE, _DELETE = 10, 13, 32, 127

Places = NDArray[np.int64]  # in the bytes of a list


def read_bytes(source: str) -> bytes:
    """The content of a list: UTF-8 without zero bytes, perhaps with a byte-order mark. Raises AnnotationError."""
    return once([source], "bytes", lambda: _read_bytes(source))


def read_text(source: str) -> str:
    """The text of a list, without its byte-order mark. Raises AnnotationError for anything but text in UTF-8."""
    return read_bytes(source).decode("utf-8-sig")


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Number, from 1, and content of the lines that are not blank."""
    # Not splitlines(): a path may hold the odd characters that it takes for line ends.
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip():
            yield number, line.strip("\n ")


def parsed(text: str, form: Form) -> Iterator[tuple[int, str, Row | None, Form]]:
    """Number, from 1, and content of every line but a header; its row, or None; and the form that a header gives."""
    first = True
    for number, line in lines(text):
        row = form.row(line)
        if first:
            first = False
            named = header(line, form) if form.words or row is None or row.label < 0 else None
            if named is not None:
                form = named
                continue
        yield number, line, row, form


def rows(source: str, form: Form) -> Iterator[tuple[int, Row]]:
    """Number of the line, from 1, and content of every row, one after the other. Raises AnnotationError."""
    for number, line, row, form_of_line in parsed(read_text(source), form):
        if row is None:
            raise AnnotationError(explain(source, number, line, form_of_line))
        yield number, row


def table(source: str, form: Form) -> Table:
    """All rows of a list. Raises AnnotationError naming file:line."""
    plain = plain_table(read_bytes(source), form)
    if plain is not None:
        return plain
    gathered, words = Rows(), dict[str, int]()
    for number, row in rows(source, form):
        label = words.setdefault(row.text, len(words)) if form.words else row.label
        gathered.add(row.path.encode(), row.frames, label, number)
    if not gathered:
        raise AnnotationError(f"{source} holds no video: a line is path{form.separator}label.")
    return gathered.table(tuple(words) if form.words else None)


def plain_table(data: bytes, form: Form) -> Table | None:
    """All rows of `data`, the same as `rows` reads line by line; None if the list is not plain."""
    data = data.removeprefix(MARK)
    returns = data.count(b"\r")
    if b'"' in data or returns != data.count(b"\r\n") or form.columns is not None or not form.separator.isascii():
        return None
    first = data.partition(b"\n")[0].decode().removesuffix("\r")
    if form.words and not first.strip():
        return None  # below a blank line there may be a header
    row, has_header = form.row(first), False
    if first.strip() and (form.words or row is None or row.label < 0):
        named = header(first.strip(" "), form)
        has_header = named is form
        if not has_header and not (form.words and named is None):
            return None
    letters = np.frombuffer(data, np.uint8)
    stops = np.flatnonzero(letters == _NEWLINE)
    if not data.endswith(b"\n"):
        stops = np.append(stops, len(data))
    starts = np.concatenate(([0], stops[:-1] + 1))
    if returns:
        stops = stops - ((stops > starts) & (letters[stops - 1] == _RETURN))
    full = stops > starts
    full[0] &= not has_header
    numbers = np.flatnonzero(full)
    if not len(numbers):
        return None
    return _columns(data, letters, starts[numbers], stops[numbers], numbers + 1, form)


def _columns(
    data: bytes,
    letters: NDArray[np.uint8],
    starts: Places,
    ends: Places,
    numbers: NDArray[np.int64],
    form: Form,
) -> Table | None:
    """The table of lines number `numbers` from `starts` to `ends`; None if they are not all plain."""
    separators = np.flatnonzero(letters == ord(form.separator))
    spans = []
    stops = ends
    for _ in range(2 if form.frame_folders else 1):
        before = np.searchsorted(separators, stops) - 1
        if len(separators) == 0 or before.min() < 0:
            return None
        marks = separators[before]
        if (marks <= starts).any():
            return None
        spans.append((marks + 1, stops))
        stops = marks
    if not _are_tight(letters, starts, stops):
        return None
    frames = _numbers(letters, *spans[1]) if form.frame_folders else np.full(len(starts), -1)
    words, labels = None, None
    if form.words:
        words, labels = _words(data, letters, *spans[0])
    else:
        labels = _numbers(letters, *spans[0])
    if labels is None or frames is None or (form.frame_folders and frames.min() < 1):
        return None
    return Table(data, starts, stops, frames, labels, numbers, words)


def _are_tight(letters: NDArray[np.uint8], starts: Places, stops: Places) -> bool:
    """Whether the fields begin and end with visible ASCII letters, so that nothing is to be stripped from them."""
    edges = letters[np.concatenate((starts, stops - 1))]
    return not ((edges <= _SPACE) | (edges >= _DELETE)).any()


def _numbers(letters: NDArray[np.uint8], starts: Places, stops: Places) -> NDArray[np.int64] | None:
    """The whole numbers, without sign, from `starts` to `stops`; None if one of them is anything else."""
    lengths = stops - starts
    longest = int(lengths.max())
    if lengths.min() < 1 or longest > _DIGITS:
        return None
    values = np.zeros(len(starts), np.int64)
    for place in range(longest):
        inside = place < lengths
        digits = letters[np.where(inside, starts + place, starts)].astype(np.int64) - ord("0")
        if ((digits < 0) | (digits > 9)).any():
            return None
        values = np.where(inside, values * 10 + digits, values)
    return values


def _words(
    data: bytes, letters: NDArray[np.uint8], starts: Places, stops: Places
) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:
    """The different texts from `starts` to `stops`, and which of them each is; None if something is to be stripped."""
    some = stops > starts
    lost = not some.all() and data[starts[~some][0] - 1] == _SPACE  # a separator that is stripped from the line
    if lost or not _are_tight(letters, starts[some], stops[some]):
        return (), None
    known: dict[bytes, int] = {}
    each = (known.setdefault(data[a:b], len(known)) for a, b in zip(starts.tolist(), stops.tolist(), strict=True))
    labels = np.fromiter(each, np.int64, len(starts))
    return tuple(word.decode() for word in known), labels


def _read_bytes(source: str) -> bytes:
    if os.path.isdir(source):
        inside = _lists_in(source)
        raise AnnotationError(
            f"{source} is a folder, not a list of videos; "
            + (f"it holds {inside}: name one of them." if inside else "name a file of lines `path label`.")
        )
    try:
        data = remote.read_list(source) if is_url(source) else Path(source).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        inside = _lists_in(os.path.dirname(source) or ".")
        raise AnnotationError(
            f"{source} does not exist; "
            + (f"its folder holds {inside}." if inside else "there is no other list in its folder.")
            + " Check the path."
        ) from None
    except OSError as error:
        raise AnnotationError(f"{source} cannot be read: {error.strerror}. Check its permissions.") from None
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError as error:
        guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
        if guess == "LATIN1" and b"\0" in data:
            raise AnnotationError(f"{source} is not text. Give a list of videos: lines `path label`.") from None
        raise AnnotationError(
            f"{source} is not UTF-8 text (byte {error.start}, line {data.count(10, 0, error.start) + 1}). "
            f"Is it a list of videos? Convert it, e.g. iconv -f {guess} -t UTF-8."
        ) from None
    if b"\0" in data:
        raise AnnotationError(
            f"{source}:{data.count(10, 0, data.index(0)) + 1}: a zero byte, which a path cannot have. "
            "Is it a list of videos?"
        )
    return data


def _lists_in(folder: str) -> str:
    try:
        names = sorted(n for n in os.listdir(folder) if n.endswith((".csv", ".txt", ".tsv", ".list", ".parquet")))
    except OSError:
        return ""
    return ", ".join(names[:8])
