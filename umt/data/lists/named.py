"""One's own lists: the last column may name classes (`a.mp4,running`), or have several labels (`a.mp4,3|17|42`).

What classes there are: labels.txt beside the lists, one name a line in the order of the labels; else the names in the
training list, sorted; else, where its labels are whole numbers, as many as the greatest says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umt.data import labels as label_files
from umt.data.lists import parquet as parquet_list
from umt.data.lists.holding_out import held_out
from umt.data.lists.label_sets import BETWEEN, LabelSets
from umt.data.lists.lines import Form, Row, explain, header, lines, read_text, separator_of, whole_number
from umt.data.lists.split_files import SplitFile
from umt.data.lists.video_list import Rows, VideoList
from umt.errors import AnnotationError, ConfigError
from umt.spelling import did_you_mean

_MOST = 1_000_000  # classes that numbers may stand for


@dataclass(frozen=True)
class ListClasses:
    """Classes of lists. `names` None: they have numbers only. `source`: what says so."""

    names: tuple[str, ...] | None
    count: int
    source: str

    def label(self, text: str) -> int | None:
        """The label that a word of a list means: a name, else a number; None for neither."""
        if self.names is not None and text in self.names:
            return self.names.index(text)
        number = whole_number(text)
        return number if number is not None and 0 <= number < self.count else None


def rows_of(source: str, form: Form) -> Iterator[tuple[int, Row]]:
    """Number of the line, from 1, and content of every row, its label as text. Raises AnnotationError."""
    if parquet_list.is_parquet(source):
        for number, path, frames, label in parquet_list.records(source, frame_folders=form.frame_folders):
            text = "" if label is None else str(label)
            yield number, Row(path.decode("utf-8", "surrogateescape"), -1 if frames is None else frames, -1, text)
        return
    first = True
    for number, line in lines(read_text(source)):
        row = form.row(line)
        if first:
            named = header(line, form)
            if named is not None:
                form, first = named, False
                continue
        first = False
        if row is None:
            raise AnnotationError(explain(source, number, line, form))
        yield number, row


def words_form(separator: str, *, frame_folders: bool = False, multi_label: bool = False) -> Form:
    """How lines with any text for a label are read. Raises ConfigError where columns and labels have one separator."""
    made = Form(separator_of(separator), frame_folders, words=True)
    if multi_label and made.separator == BETWEEN:
        raise ConfigError(
            f"--split '{BETWEEN}' parts the labels of one video under --multi_label. Part columns by ','."
        )
    return made


def part_of(videos: VideoList, split: SplitFile) -> VideoList:
    """The rows of `videos`, all of `split.path`, that `split` is."""
    if not split.part:
        videos.note = split.note
        return videos
    out = held_out([videos.path(row) for row in range(len(videos))], videos.labels.tolist())
    rows = np.flatnonzero(out == (split.part == "held out"))
    if not len(rows):
        raise AnnotationError(
            f"{split.path} has no class of two videos, of which one could be held out. Give val.csv beside it."
        )
    made = videos.take(rows)
    made.note = split.note
    return made


def classes_of(training_list: str, form: Form, *, multi_label: bool = False) -> ListClasses:
    """The classes that the lists of a folder have; see the module's docstring. Raises AnnotationError."""
    beside = Path(training_list).parent / label_files.LABELS_FILE
    if beside.is_file():
        names = tuple(label_files.read_names(beside))
        return ListClasses(names, len(names), str(beside))
    seen = {text for _, row in rows_of(training_list, form) for text in _texts(row.text, multi_label)} - {""}
    if not seen:
        raise AnnotationError(f"{training_list} has no label in its last column. A line is path{form.separator}label.")
    numbers = [whole_number(text) for text in seen]
    if None not in numbers:
        count = max(n for n in numbers if n is not None) + 1
        if count > _MOST:
            raise AnnotationError(
                f"{training_list}: label {count - 1} is too great for a number of classes. Are these numbers of "
                "something else? Name the classes, or number them from 0."
            )
        return ListClasses(None, max(count, 0), training_list)
    return ListClasses(tuple(sorted(seen)), len(seen), training_list)


def read_own(
    source: str | os.PathLike[str], classes: ListClasses, form: Form, *, prefix: str = "", multi_label: bool = False
) -> VideoList:
    """Reads a list whose labels are words or several a row. Raises AnnotationError naming file:line and what to do."""
    source = os.fspath(source)
    rows, sets = Rows(), []
    known: dict[str, int | None] = {}
    for number, row in rows_of(source, form):
        found = []
        for text in _texts(row.text, multi_label):
            label = known[text] if text in known else known.setdefault(text, classes.label(text))
            if label is None:
                raise AnnotationError(_unknown(f"{source}:{number}", text, classes, multi_label))
            found.append(label)
        rows.add(row.path.encode("utf-8", "surrogateescape"), row.frames, found[0] if found else -1)
        sets.append(found)
    if not rows:
        raise AnnotationError(f"{source} holds no video: a line is path{form.separator}label.")
    made = VideoList.of(source, rows, prefix=prefix)
    made.class_names = None if classes.names is None else list(classes.names)
    if multi_label:
        made.sets = LabelSets.of(sets, classes.count)
        made.labels = made.sets.first()
    return made


def _texts(text: str, multi_label: bool) -> Sequence[str]:
    """The words that a last column holds. Without several labels a row it is one word, be it empty."""
    if not multi_label:
        return [text.strip()]
    return [word.strip() for word in text.split(BETWEEN) if word.strip()]


def _unknown(where: str, text: str, classes: ListClasses, multi_label: bool) -> str:
    if not text:
        return f"{where}: no label. Give every video one, or several or none under --multi_label."
    if not multi_label and BETWEEN in text:
        return f"{where}: '{text}' is several labels. Add --multi_label, or give the video one."
    if classes.names is None:
        hint = "" if whole_number(text) is None else " Labels start at 0."
        return f"{where}: label '{text}' is none of 0..{classes.count - 1}, the classes of {classes.source}.{hint}"
    hint = did_you_mean(text, classes.names, "Mend the line, or the classes.", count=1)
    return f"{where}: label '{text}' is none of the {classes.count} classes of {classes.source}. {hint}"
