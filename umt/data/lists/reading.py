"""The entry: lists of videos, in every form that people write them in, as a `VideoList`.

`read_list` reads labels that are numbers. `read_named` reads those that may be words (`a.mp4,running`) or several per
video (`a.mp4,3|17|42`), by the classes that `classes_of` finds: labels.txt next to the lists, with one name per line in
the order of the labels; else the names in the training list, sorted; else, where its labels are whole numbers, as many
as the greatest says. A list is parsed once in a process, whoever reads it, as long as its file does not change.

Nothing here needs torch or pandas; parquet needs pyarrow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from umt.data import labels as label_files
from umt.data.lists import parquet, text
from umt.data.lists.label_sets import LabelSets
from umt.data.lists.lines import BETWEEN, SEPARATORS, Form, Row, header, separator_of, whole_number
from umt.data.lists.video_list import Table, VideoList
from umt.data.once import once
from umt.errors import AnnotationError, ConfigError
from umt.spelling import did_you_mean

_MOST = 1_000_000  # classes that numbers may stand for


# ---- labels that are numbers


def read_list(
    path: str | os.PathLike[str],
    *,
    separator: str = " ",
    prefix: str = "",
    num_classes: int | None = None,
    frame_folders: bool = False,
    labels_optional: bool = False,
    extension: str = "",
) -> VideoList:
    """Reads a list of videos. Raises AnnotationError naming file:line (of parquet: file:row) and what to do.

    Args:
        separator: between the columns (--split); the two characters `\\t` stand for a tab. Parquet has none.
        prefix: folder joined before every path (--prefix).
        num_classes: labels must lie in 0..num_classes - 1; None: labels are not checked (pretraining).
        frame_folders: rows are `path, frames, label`, and the path is a folder of frames.
        labels_optional: the last column may be missing throughout, as in a test list without ground truth.
        extension: appended to paths of videos whose last part has no dot (".mp4" in pretraining lists).
    """
    source = os.fspath(path)
    form = Form(" " if parquet.is_parquet(source) else separator_of(separator), frame_folders, labels_optional)
    table = table_of(source, form)
    if num_classes is not None:
        _check_labels(source, table, num_classes, labels_optional)
    return VideoList.of(source, table, prefix=prefix, extension="" if frame_folders else extension)


def count_rows(path: str | os.PathLike[str]) -> int:
    """Videos in a list with any separator: rows of parquet, or lines that are neither blank nor a header."""
    source = os.fspath(path)
    if parquet.is_parquet(source):
        return parquet.count(source)
    content = text.read_text(source).replace("\r", "\n")
    first = next((line for _, line in text.lines(content)), None)
    named = first is not None and any(header(first, Form(s, labels_optional=True)) for s in SEPARATORS)
    return sum(map(bool, map(str.strip, content.split("\n")))) - named


def _check_labels(source: str, table: Table, num_classes: int, optional: bool) -> None:
    labels = table.labels
    known = labels[labels != -1] if optional else labels
    if optional and 0 < len(known) < len(labels):
        line = table.lines[(labels == -1).argmax()]
        raise AnnotationError(f"{source}:{line}: no label, while other lines have one. Give all or none of them.")
    outside = (labels < 0) | (labels >= num_classes)
    if optional:
        outside &= labels != -1
    if outside.any():
        row = int(outside.argmax())
        hint = "Check --nb_classes and the list."
        if labels[row] == num_classes and known.min() >= 1:
            hint = "Is the file 1-based? Labels start at 0."
        raise AnnotationError(
            f"{source}:{table.lines[row]}: label {labels[row]} is outside 0..{num_classes - 1} "
            f"(--nb_classes {num_classes}). {hint}"
        )


# ---- labels that are words, or several per video


@dataclass(frozen=True)
class ListClasses:
    """Classes of lists. `names` None: they have numbers only. `source`: where they come from."""

    names: tuple[str, ...] | None
    count: int
    source: str

    def label(self, word: str) -> int | None:
        """The label that a word of a list means: a name, else a number; None for neither."""
        if self.names is not None and word in self.names:
            return self.names.index(word)
        number = whole_number(word)
        return number if number is not None and 0 <= number < self.count else None


def words_form(separator: str, *, frame_folders: bool = False, multi_label: bool = False) -> Form:
    """How lines with any text for a label are read. Raises ConfigError where columns and labels share a separator."""
    form = Form(separator_of(separator), frame_folders, words=True)
    if multi_label and form.separator == BETWEEN:
        raise ConfigError(
            f"--split '{BETWEEN}' separates the labels of one video under --multi_label. Separate columns by ','."
        )
    return form


def classes_of(training_list: str, form: Form, *, multi_label: bool = False) -> ListClasses:
    """The classes that the lists of a folder have; see the module's docstring. Raises AnnotationError."""
    names_file = Path(training_list).parent / label_files.LABELS_FILE
    if names_file.is_file():
        names = label_files.read_names(names_file)
        return ListClasses(names, len(names), str(names_file))
    columns = table_of(training_list, form).words or ()
    words = {word for column in columns for word in _words(column, multi_label)} - {""}
    if not words:
        raise AnnotationError(f"{training_list} has no label in its last column. A line is path{form.separator}label.")
    numbers = [number for word in words if (number := whole_number(word)) is not None]
    if len(numbers) < len(words):
        return ListClasses(tuple(sorted(words)), len(words), training_list)
    count = max(numbers) + 1
    if count > _MOST:
        raise AnnotationError(
            f"{training_list}: label {count - 1} is too great for a number of classes. Are these numbers of "
            "something else? Name the classes, or number them from 0."
        )
    return ListClasses(None, max(count, 0), training_list)


def read_named(
    source: str | os.PathLike[str], classes: ListClasses, form: Form, *, prefix: str = "", multi_label: bool = False
) -> VideoList:
    """Reads a list whose labels are words, or several per row. Raises AnnotationError naming file:line."""
    source = os.fspath(source)
    table = table_of(source, form)
    words = [_words(column, multi_label) for column in table.words or ()]
    labels = [[classes.label(word) for word in each] for each in words]
    unknown = [place for place, each in enumerate(labels) if None in each]
    if unknown:
        row = int(np.isin(table.labels, unknown).argmax())
        place = table.labels[row]
        word = words[place][labels[place].index(None)]
        raise AnnotationError(_unknown(f"{source}:{table.lines[row]}", word, classes, multi_label))
    sets = LabelSets.of([[label for label in each if label is not None] for each in labels], classes.count)
    sets = sets.take(table.labels)
    videos = VideoList.of(source, replace(table, labels=sets.first(), words=None), prefix=prefix)
    videos.class_names = None if classes.names is None else list(classes.names)
    videos.sets = sets if multi_label else None
    return videos


def _words(column: str, multi_label: bool) -> list[str]:
    """The words of a last column. Without several labels per row it is one word, be it empty."""
    if not multi_label:
        return [column.strip()]
    return [word.strip() for word in column.split(BETWEEN) if word.strip()]


def _unknown(where: str, word: str, classes: ListClasses, multi_label: bool) -> str:
    if not word:
        return f"{where}: no label. Give every video one, or several or none under --multi_label."
    if not multi_label and BETWEEN in word:
        return f"{where}: '{word}' is several labels. Add --multi_label, or give the video one."
    if classes.names is None:
        hint = "" if whole_number(word) is None else " Labels start at 0."
        return f"{where}: label '{word}' is none of 0..{classes.count - 1}, the classes of {classes.source}.{hint}"
    hint = did_you_mean(word, classes.names, "Correct the line, or the classes.", count=1)
    return f"{where}: label '{word}' is none of the {classes.count} classes of {classes.source}. {hint}"


# ---- any form


def table_of(source: str, form: Form) -> Table:
    """The rows of the file, parsed once for each `form`. Raises AnnotationError naming file:line."""
    if parquet.is_parquet(source):
        form = replace(form, separator=" ")  # it has no separator: the same rows
        return once([source], form, lambda: parquet.table(source, form))
    return once([source], form, lambda: text.table(source, form))


def rows_of(source: str, form: Form) -> Iterator[tuple[int, Row]]:
    """Number of the line, from 1, and content of every row, read as they are asked for. Raises AnnotationError."""
    return parquet.rows(source, form) if parquet.is_parquet(source) else text.rows(source, form)
