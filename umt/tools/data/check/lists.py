"""Reads a list as a run does, but goes on where a run stops: every line gives a row or a finding."""

from __future__ import annotations

import os
import re
from array import array
from dataclasses import dataclass, field
from itertools import islice

from umt.data.lists import parquet as parquet_list
from umt.data.lists.class_folders import read_folders
from umt.data.lists.lines import BETWEEN, SEPARATORS, Form, separator_of
from umt.data.lists.reading import classes_of, rows_of
from umt.data.lists.split_files import SPLITS, list_file
from umt.data.lists.text import MARK, lines, parsed, plain_table, read_bytes, read_text
from umt.data.lists.video_list import Rows, Table, VideoList
from umt.data.storage.urls import is_url, join
from umt.errors import AnnotationError
from umt.tools.data.check.findings import Finding

_SAMPLE = 1000  # lines that the separator is detected by
_LOOKED_AT = 50  # lines whose files are looked for
_KEPT = 1000  # findings of each kind that is about how lines are written


@dataclass(frozen=True)
class Reading:
    """How lists are to be read: the flags of a run. `split` None: detected."""

    split: str | None = None
    prefix: str = ""
    frame_folders: bool = False
    pretrain: bool = False


@dataclass
class Checked:
    """A list: the rows that can be read, the line of each, and the findings.

    Attributes:
        role: "train" or "held out" (validation and test), "" where the name does not say it.
        form: how its lines are read; None for a folder per class, for parquet and for names of classes.
    """

    source: str
    role: str
    form: Form | None
    videos: VideoList
    numbers: array[int]
    findings: list[Finding] = field(default_factory=list)
    note: str = ""
    named: bool = False  # its labels are names, or several per video
    several: bool = False  # several labels per video, of which the rows have the first, or none
    _further: dict[str, tuple[int, int]] = field(default_factory=dict, init=False)  # kind -> kept, further

    def style(self, kind: str, number: int, path: str, detail: str = "") -> None:
        """A finding that every line may have: beyond the first 1000 of a kind they are only counted."""
        kept, further = self._further.get(kind, (0, 0))
        if kept < _KEPT:
            self.findings.append(Finding(kind, self.source, number, path, detail))
            self._further[kind] = kept + 1, 0
        else:
            self._further[kind] = kept, further + 1

    def close(self) -> None:
        """Adds the numbers of findings that were only counted."""
        for kind, (_, further) in self._further.items():
            if further:
                self.findings.append(Finding(kind, self.source, detail=f"on {further} further lines", count=further))


def role_of(source: str) -> str:
    """What a list is for, judging by its name."""
    name = os.path.basename(source).lower()
    if "train" in name:
        return "train"
    return "held out" if any(word in name for word in ("val", "test", "eval", "dev")) else ""


def read_class_folders(root: str, classes: int | None) -> list[Checked]:
    """A folder per class as training, validation and test lists. Raises AnnotationError."""
    lists: list[Checked] = []
    for split in SPLITS:
        role = "train" if split == "train" else "held out"
        try:
            videos = read_folders(root, split, num_classes=classes)
        except AnnotationError as error:
            if split == "train":
                raise
            nothing = VideoList(os.path.join(root, split), [], [])
            if not any(other.findings for other in lists):
                lists.append(Checked(nothing.source, role, None, nothing, array("q"), [_unread(nothing.source, error)]))
            continue
        if any(videos.source == other.source and videos.note == other.videos.note for other in lists[1:]):
            continue  # validation serves as test, too
        lists.append(Checked(videos.source, role, None, videos, array("q", range(1, len(videos) + 1))))
    return lists


def _unread(source: str, error: AnnotationError) -> Finding:
    return Finding("list", source, detail=str(error).removeprefix(f"{source} "))


def read(source: str, how: Reading) -> Checked:
    """The rows of a list, and its findings. Raises AnnotationError only if there is no such file."""
    if not is_url(source) and not os.path.exists(source):
        read_text(source)  # raises the error that names it
    checked = Checked(source, role_of(source), None, _listed(source, Rows().table(), how), array("q"))
    try:
        if parquet_list.is_parquet(source):
            table = _parquet(checked, how)
        elif form := _form_of_names(checked, how):
            table = _by_names(checked, form)
        else:
            table = _text(checked, how)
    except AnnotationError as error:
        checked.findings.append(_unread(source, error))
        return checked
    checked.close()
    checked.videos, checked.numbers = _listed(source, table, how), array("q", table.lines.tobytes())
    if not len(table) and not checked.findings:
        checked.findings.append(Finding("list", source, detail="it holds no video"))
    return checked


def _listed(source: str, table: Table, how: Reading) -> VideoList:
    extension = ".mp4" if how.pretrain and not how.frame_folders else ""
    return VideoList.of(source, table, prefix=how.prefix, extension=extension)


def _parquet(checked: Checked, how: Reading) -> Table:
    rows = Rows()
    for number, path, frames, label in parquet_list.records(checked.source, frame_folders=how.frame_folders):
        if not path or b"\0" in path or (frames is not None and frames < 0):
            cause = "no path" if not path else "a zero byte in the path" if b"\0" in path else f"{frames} frames"
            checked.findings.append(Finding("malformed", checked.source, number, detail=cause))
            continue
        rows.add(path, -1 if frames is None else frames, -1 if label is None else label, number)
    return rows.table()


def _form_of_names(checked: Checked, how: Reading) -> Form | None:
    """How to read a list whose labels are names, or several per video; None: nothing shows that it is such a list.

    It is one if its first lines name files that exist: other text with words at the end of lines may be no list at all.
    """
    if how.pretrain:
        return None
    sample = [line for _, line in islice(lines(read_text(checked.source)), _SAMPLE)]
    separators = list(SEPARATORS) if how.split is None else [separator_of(how.split)]
    read: dict[str, tuple[int, bool]] = {}  # separator -> files that exist, and whether any has several labels
    for separator in separators:
        form = Form(separator, how.frame_folders, words=True)
        rows = [row for line in sample[:_LOOKED_AT] if (row := form.row(line)) is not None]
        there = sum(os.path.exists(join(how.prefix, row.path)) for row in rows)
        read[separator] = there, separator != BETWEEN and any(BETWEEN in row.text for row in rows)
    best = max(read, key=lambda separator: read[separator][0])
    there, several = read[best]
    numbers = any(Form(s, how.frame_folders).row(line) is not None for s in SEPARATORS for line in sample)
    return Form(best, how.frame_folders, words=True) if there and (several or not numbers) else None


def _by_names(checked: Checked, form: Form) -> Table:
    """Rows by the classes that labels.txt, or the training list of the folder, names."""
    training = [path for path in find_lists(os.path.dirname(checked.source) or ".") if role_of(path) == "train"]
    train = (training or [checked.source])[0]
    texts = (row.text for source in {train, checked.source} for _, row in rows_of(source, form))
    several = form.separator != BETWEEN and any(BETWEEN in text for text in texts)
    classes = classes_of(train, form, multi_label=several)
    rows = Rows()
    for number, row in rows_of(checked.source, form):
        words = [word.strip() for word in row.text.split(BETWEEN if several else "\0") if word.strip()]
        labels = [classes.label(word) for word in words]
        if None in labels or not (labels or several):
            unknown = next((word for word, label in zip(words, labels, strict=True) if label is None), "")
            detail = f"'{unknown}' is none of the classes of {classes.source}" if unknown else "no label"
            checked.findings.append(Finding("malformed", checked.source, number, row.path, detail))
            continue
        label = -1 if not labels or labels[0] is None else labels[0]
        rows.add(row.path.encode("utf-8", "surrogateescape"), row.frames, label, number)
    checked.named, checked.several = True, several
    checked.note = f"separator {SEPARATORS[form.separator]}, {classes.count} classes of {classes.source}"
    return rows.table()


def _text(checked: Checked, how: Reading) -> Table:
    data, text = read_bytes(checked.source), read_text(checked.source)
    if data.startswith(MARK):
        checked.findings.append(Finding("bom", checked.source, 1))
    _line_ends(checked, text)
    form = checked.form = _form(checked, text, how)
    table = plain_table(data, form)
    if table is None:
        _outer_spaces(checked, text)
        return _line_by_line(checked, text, form)
    in_paths = text.count(" ") - (len(table) * (1 + form.frame_folders) if form.separator == " " else 0)
    if not text.isascii() or in_paths:
        videos = _listed(checked.source, table, how)
        for row, number in enumerate(table.lines.tolist()):
            _letters(checked, number, videos.path(row))
    return table


def _line_by_line(checked: Checked, text: str, detected: Form) -> Table:
    rows = Rows()
    for number, line, row, form in parsed(text, detected):
        checked.form = form
        if row is None:
            checked.findings.append(Finding("malformed", checked.source, number, line[:200], _why(line, form)))
            continue
        if '"' in line:
            checked.style("quotes", number, row.path)
        fields = (row.path, str(row.frames), str(row.label)) if form.frame_folders else (row.path, str(row.label))
        tight = form.separator.join(fields)
        if len(line) > len(tight) and _bare(line) == _bare(tight):
            checked.style("spaces", number, row.path, "around a field")
        _letters(checked, number, row.path)
        rows.add(row.path.encode(), row.frames, row.label, number)
    return rows.table()


def _why(line: str, form: Form) -> str:
    other = None if form.columns is not None else form.other_separator(line)
    if other is not None:
        usual = SEPARATORS.get(form.separator, repr(form.separator))
        return f"separated by {SEPARATORS[other]}, other lines by {usual}"
    if form.columns is not None:
        return "not the columns that the header names"
    return "path and label, but no number of frames" if form.lacks_frames(line) else "no whole number at its end"


def _bare(line: str) -> str:
    return line.replace(" ", "").replace("\t", "")


def _letters(checked: Checked, number: int, path: str) -> None:
    if not path.isascii():
        checked.style("non_ascii", number, path)
    if " " in path:
        checked.style("spaces", number, path, "in the path")


def _outer_spaces(checked: Checked, text: str) -> None:
    places = [match.start() for match in re.finditer(r"^ +(?=\S)|(?<=\S) +\r?$", text, re.MULTILINE)]
    if places:
        line = text.count("\n", 0, places[0]) + 1
        checked.findings.append(Finding("spaces", checked.source, line, detail="around lines", count=len(places)))


def _line_ends(checked: Checked, text: str) -> None:
    windows, total = text.count("\r\n"), text.count("\n")
    if windows:
        line = text.count("\n", 0, text.index("\r\n")) + 1
        share = "on every line" if windows == total else f"on {windows} of {total} lines"
        checked.findings.append(Finding("line_ends", checked.source, line, detail=share, count=windows))


def _form(checked: Checked, text: str, how: Reading) -> Form:
    """How the lines are to be read: by --split, unless another separator fits most of the first lines."""
    sample = [line for _, line in islice(lines(text), _SAMPLE)]
    forms = {s: Form(s, how.frame_folders) for s in SEPARATORS}
    read_by = {s: sum(form.row(line) is not None for line in sample) for s, form in forms.items()}
    best = max(read_by, key=lambda s: read_by[s])
    split = None if how.split is None else separator_of(how.split)
    if split is None:
        split = best if read_by[best] else ","
        if read_by[best]:
            checked.note = f"separator {SEPARATORS[best]}"
    else:
        given = Form(split, how.frame_folders)
        if read_by[best] > len(sample) // 2 > sum(given.row(line) is not None for line in sample):
            named = SEPARATORS.get(split, repr(split))
            detail = f"--split {named} does not separate the columns, --split {SEPARATORS[best]} does"
            checked.findings.append(Finding("separator", checked.source, 1, sample[0][:200], detail))
            split = best
    return Form(split, how.frame_folders, how.pretrain)


def find_lists(folder: str) -> list[str]:
    """The train, val and test lists of a folder."""
    return [file for split in SPLITS if os.path.isfile(file := list_file(folder, split))]
