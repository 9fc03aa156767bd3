"""One line of a list: from its text to path, number of frames and label, and back.

A line is `path<separator>label`; `path<separator>frames<separator>label` for videos kept as folders of frames. Columns
are split from the right, so that a path may contain the separator. A header that names its columns may order them
differently (`label,path`, or with further columns between); the lines below it are then read as a csv file's.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from umt.errors import AnnotationError, ConfigError

# As a shell writes them, the commonest first.
SEPARATORS = {",": "','", " ": "' '", "\t": "$'\\t'", ";": "';'", "|": "'|'"}
BETWEEN = "|"  # separates the labels of one video, in the last column of a multi-label list

PATH_COLUMNS = ("path", "video", "video_path", "file", "file_path", "filepath", "filename", "file_name", "name")
LABEL_COLUMNS = ("label", "labels", "class", "class_id", "classid", "label_id", "target", "category", "y")
FRAME_COLUMNS = ("num_frames", "total_frames", "n_frames", "nframes", "frames", "frame_count", "number_of_frames")

# At most 18 digits: what fits 64 bits.
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


class Row(NamedTuple):
    """What a line says: `frames` is -1 unless the list is one of frame folders, `label` -1 where there is none.

    `text`: the last column as it stands, where it may be other than a number.
    """

    path: str
    frames: int
    label: int
    text: str = ""


@dataclass(frozen=True)
class Form:
    """How the lines of a list are read.

    Attributes:
        labels_optional: the last column may be missing.
        columns: where a header says that path, frames and label stand.
        words: the last column is any text, the name of a class for instance, and may be empty.
    """

    separator: str = " "
    frame_folders: bool = False
    labels_optional: bool = False
    columns: tuple[int, int, int] | None = None
    words: bool = False

    def __post_init__(self) -> None:
        if len(self.separator) != 1 or self.separator.isalnum() or self.separator in '"\n\r\0':
            raise ConfigError(
                f"--split ({self.separator!r}) must be one character that separates columns, e.g. ',' or ' ' or $'\\t'."
            )

    def row(self, line: str) -> Row | None:
        """The row that `line` stands for; None if it does not have the columns."""
        if self.columns is not None:
            return self._named(line)
        row = self._split(line, self.separator)
        if row is None and self.labels_optional and self.other_separator(line) is None:
            row = self._split(f"{line}{self.separator}-1", self.separator)
        return row

    def other_separator(self, line: str) -> str | None:
        """A separator other than this form's that splits `line` into its columns; None if there is none."""
        return next((s for s in SEPARATORS if s != self.separator and self._split(line, s)), None)

    def lacks_frames(self, line: str) -> bool:
        """Whether `line` would be right in a list of videos, where frame folders are expected."""
        return self.frame_folders and Form(self.separator)._split(line, self.separator) is not None

    def _split(self, line: str, separator: str) -> Row | None:
        columns = 2 if self.frame_folders else 1
        if '"' in line:
            fields = _csv_fields(line, separator)
            fields = [separator.join(fields[:-columns]), *fields[-columns:]] if len(fields) > columns else []
        else:
            blank = " " if self.words else None  # after a tab at the end there is an empty label
            fields = (line.rstrip(blank) if separator.isspace() else line).rsplit(separator, columns)
        if len(fields) != columns + 1:
            return None
        return self._row(fields[0].strip(), fields[1] if self.frame_folders else "", fields[-1].strip())

    def _row(self, path: str, count: str, text: str) -> Row | None:
        label = -1 if self.words else whole_number(text)
        frames = whole_number(count) if self.frame_folders else -1
        if not path or label is None or frames is None or (self.frame_folders and frames < 1):
            return None
        return Row(path, frames, label, text if self.words else "")

    def _named(self, line: str) -> Row | None:
        assert self.columns is not None
        fields = [field.strip() for field in _csv_fields(line, self.separator)]
        if len(fields) <= max(self.columns):
            return None
        at_path, at_frames, at_label = self.columns
        text = "-1" if self.labels_optional and not fields[at_label] else fields[at_label]
        return self._row(fields[at_path], fields[at_frames] if self.frame_folders else "", text)

    def line(self, row: Row) -> str:
        """`row` as a line that `Form.row` reads back. Raises AnnotationError for a path that no line can hold."""
        fields = [row.path, str(row.label)]
        if self.frame_folders:
            fields.insert(1, str(row.frames))
        if '"' in row.path:
            text = io.StringIO()
            csv.writer(text, delimiter=self.separator, lineterminator="").writerow(fields)
            line = text.getvalue()
        else:
            line = self.separator.join(fields)
        if not fits_a_line(row.path) or Form(self.separator, self.frame_folders).row(line) != row:
            raise AnnotationError(
                f"The path {row.path!r} cannot be written into a list of text: it has line ends in it or spaces "
                "around it, or is not UTF-8. Rename the file, or write the list as parquet."
            )
        return line


def separator_of(split: str) -> str:
    """The character that --split stands for: the two characters `\\t` mean a tab."""
    return "\t" if split == "\\t" else split


def fits_a_line(path: str) -> bool:
    """Whether a list of text can hold `path`: UTF-8 without line ends in it and spaces around it."""
    return path == path.strip() and not re.search(r"[\r\n\0\ud800-\udfff]|^\ufeff", path)


def whole_number(field: str) -> int | None:
    """The number that a field is; None for anything else."""
    field = field.strip()
    return int(field.partition(".")[0]) if _WHOLE_NUMBER.fullmatch(field) else None


def _csv_fields(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # a field of more than 128 KiB
        return []


def header(line: str, form: Form) -> Form | None:
    """How the lines below `line` are read if it is a header, else None. Only asked of a line that is not a row."""
    words = [word.strip().lower() for word in _csv_fields(line, form.separator)]
    at_path, at_frames, at_label = (
        next((words.index(name) for name in names if name in words), -1)
        for names in (PATH_COLUMNS, FRAME_COLUMNS, LABEL_COLUMNS)
    )
    if any(map(_WHOLE_NUMBER.fullmatch, words)):
        return None
    if at_path >= 0 and at_label >= 0 and (at_frames >= 0 or not form.frame_folders):
        usual = [at_path, at_frames, at_label] if form.frame_folders else [at_path, at_label]
        if usual == list(range(len(words))):
            return form
        return replace(form, columns=(at_path, at_frames, at_label))
    if form.labels_optional and len(words) == 1 and at_path == 0:
        return form
    words = re.split(r"[,\s;|]+", line.strip().replace('"', "").lower())
    return form if len(words) > 1 and words[-1] in LABEL_COLUMNS else None


def explain(source: str, number: int, line: str, form: Form) -> str:
    """The error message for a line that `form` cannot read."""
    shown = line if len(line) <= 80 else line[:77] + "..."
    named = SEPARATORS.get(form.separator, repr(form.separator))
    right = None if form.columns is not None else form.other_separator(line)
    if right is not None:
        return (
            f"{source}:{number}: --split {named} does not split `{shown}` into path and label. "
            f"Try --split {SEPARATORS[right]}."
        )
    if form.columns is not None:
        return f"{source}:{number}: `{shown}` lacks columns that the header names. Correct the line, or the header."
    if form.lacks_frames(line):
        return f"{source}:{number}: `{shown}` lacks a column: rows of frame folders are path, number of frames, label."
    return (
        f"{source}:{number}: `{shown}` does not end in {named} and a whole-number label. Correct the line, or --split."
    )
