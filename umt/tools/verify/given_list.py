"""What LIST is: a list, from which its separator, class names and folder are detected, or a folder per class."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umt.data import catalog, labels
from umt.data.lists.lines import BETWEEN, SEPARATORS, Form, Row, header, separator_of, whole_number
from umt.data.lists.parquet import is_parquet
from umt.data.lists.reading import ListClasses, count_rows, read_named, rows_of
from umt.data.lists.text import lines, read_text
from umt.data.storage.urls import is_url, join
from umt.errors import AnnotationError, ConfigError
from umt.tools.verify.checkpoint import Stated
from umt.tools.verify.tested_list import folder_of
from umt.writing import output_errors, whole

_SAMPLE = 20  # rows from which separator, kind of labels and folder are detected


@dataclass(frozen=True)
class ListFlags:
    """Flags of the command line about LIST; "": not given."""

    split: str = ""
    prefix: str = ""
    data_set: str = ""
    frame_folders: bool = False
    sample: int | None = None


@dataclass(frozen=True)
class Prepared:
    """`folder` for --data_path. `lines`: of a sample, those of the whole list; `videos` of the list, if known."""

    folder: str
    lines: int | None
    flags: dict[str, str]
    videos: int | None = None


def prepare(path: str, output: Path, stated: Stated, given: ListFlags) -> Prepared:
    """Brings LIST to where `umt test` looks for it. Raises AnnotationError, ConfigError, OutputError."""
    usual = separator_of(given.split or stated.flags.get("split", " "))
    if is_url(path):
        return Prepared(*folder_of(path, output, Form(usual, given.frame_folders), given.sample), {})
    data_set = given.data_set or stated.flags.get("data_set", "")
    source = _file(path, ("test", "val") if data_set == "video_list" else ("test",))
    if source is None:
        return _without_list(Path(path), output, stated, given)
    if not source.is_file():
        raise ConfigError(f"LIST ({path}) does not exist. Give the test list, or the folder of test.csv.")
    if given.data_set in catalog.OWN:  # asked for: unchanged
        return Prepared(*folder_of(path, output, Form(usual, given.frame_folders), given.sample), {})
    candidates = [usual] if given.split else [usual, *(s for s in SEPARATORS if s != usual)]
    form = _form(source, stated, candidates, given.frame_folders)
    flags = {"split": form.separator}
    try:
        first_rows = [row for _, row in itertools.islice(rows_of(str(source), form), _SAMPLE)]
    except AnnotationError:  # the test says it better for lists of numbers
        first_rows = []
    if not given.prefix and _starts_at_list(source, first_rows):
        flags["prefix"] = str(source.parent)
    own_classes = stated.flags.get("data_set") in catalog.OWN
    if own_classes:
        flags["data_set"] = catalog.sampled_as("sparse")
    named = own_classes or not all(map(_is_numbered, first_rows))
    if first_rows and named and (own_classes or stated.names is not None):
        source, flags["split"] = _numbered(source, output, stated, form), ","
    form = Form(flags["split"], given.frame_folders)
    return Prepared(*folder_of(str(source), output, form, given.sample), flags, count_rows(str(source)))


def _file(path: str, splits: Sequence[str]) -> Path | None:
    """The list; None for a folder that holds none of these."""
    if not os.path.isdir(path):
        return Path(path)
    files = [Path(path, f"{split}{ending}") for split in splits for ending in (".csv", ".parquet")]
    return next((file for file in files if file.is_file()), None)


# ---- lists


def _form(source: Path, stated: Stated, candidates: Sequence[str], frame_folders: bool) -> Form:
    """How the rows are read: by the first of the separators with which most labels are known."""
    forms = [Form(separator, frame_folders, words=True) for separator in candidates]
    if is_parquet(str(source)):
        return forms[0]
    sample = [line for _, line in itertools.islice(lines(read_text(str(source))), _SAMPLE + 1)]

    def fits(form: Form) -> tuple[int, int]:
        if stated.multi_label and form.separator == BETWEEN:
            return (-1, -1)
        named = header(sample[0], form) if sample else None
        rows = [row for line in sample[named is not None :] if (row := (named or form).row(line)) is not None]
        return sum(_is_label(row, stated) for row in rows), len(rows)

    return max(forms, key=fits)


def _is_label(row: Row, stated: Stated) -> bool:
    words = row.text.split(BETWEEN) if stated.multi_label else [row.text]
    known = all(
        whole_number(word) is not None or word.strip() in (stated.names or ()) for word in words if word.strip()
    )
    return known and bool(row.text or stated.multi_label) and row.path[-1] not in ",;|"


def _is_numbered(row: Row) -> bool:
    return all(whole_number(word) is not None for word in row.text.split(BETWEEN) if word.strip())


def _starts_at_list(source: Path, rows: Sequence[Row]) -> bool:
    """Whether the paths exist from the list's own folder, and not from here."""
    here = any(is_url(row.path) or os.path.exists(row.path) for row in rows)
    return not here and any(os.path.exists(join(str(source.parent), row.path)) for row in rows)


def _numbered(source: Path, output: Path, stated: Stated, form: Form) -> Path:
    """The list with a number for each class, by labels.txt next to it, else by the class names of the weights."""
    file = source.parent / labels.LABELS_FILE
    names = tuple(labels.read_names(file)) if file.is_file() else stated.names
    count = len(names) if names is not None else int(stated.flags.get("nb_classes", 0))
    classes = ListClasses(names, count, str(file) if file.is_file() else "the weights")
    videos = read_named(str(source), classes, form, multi_label=stated.multi_label)
    text = io.StringIO()
    for row in range(len(videos)):
        label = BETWEEN.join(map(str, videos.labels_of(row)))
        fields = [videos.path(row), *([str(videos.num_frames[row])] if form.frame_folders else []), label]
        if '"' in fields[0]:
            csv.writer(text, lineterminator="\n").writerow(fields)
        else:
            text.write(",".join(fields) + "\n")
    folder = output / "numbered"
    with output_errors(str(folder), "Change --output_dir."):
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / "test.csv", shared=True) as place:
            place.write_text(text.getvalue(), "utf-8", "surrogateescape")
        if names is None:
            (folder / labels.LABELS_FILE).unlink(missing_ok=True)
        else:
            with whole(folder / labels.LABELS_FILE, shared=True) as place:
                place.write_text(labels.text_of(names), "utf-8", "surrogateescape")
    return folder / "test.csv"


# ---- a folder per class


def _without_list(folder: Path, output: Path, stated: Stated, given: ListFlags) -> Prepared:
    """All videos of the class folders, or those of a folder `test` among them.

    The folder that the weights were trained on is tested as in their run, in which a tenth may have been held out.
    """
    trained_on = bool(stated.data_path) and folder.resolve() == Path(stated.data_path).resolve()
    data_set = given.data_set or stated.flags.get("data_set", "")
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if trained_on and given.sample is None and data_set == "video_list":
        return Prepared(str(folder), None, {})
    known = data_set == "image_folder" or stated.names is not None
    if not folders or not known or not data_set or catalog.get(data_set).sampling != "sparse":
        raise ConfigError(f"LIST ({folder}) holds no test.csv. Give the test list, or the folder of test.csv.")
    if given.sample is not None:
        raise ConfigError(
            f"--sample takes lines of a csv list, and LIST ({folder}) is a folder of classes. Write its list first, "
            "with umt data prepare folder."
        )
    flags = {"data_set": "image_folder"}
    parted = "train" in folders and not {"val", "test"}.isdisjoint(folders)
    if parted or trained_on:
        return Prepared(str(folder), None, flags)  # tested as in the run
    names = stated.names or tuple(folders)
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise ConfigError(
            f"LIST ({folder}) has {len(unknown)} folders that are not classes of the weights, first '{unknown[0]}'. "
            "Give a folder for each of their classes, or a list."
        )
    top = output / "classes"
    with output_errors(str(top), "Change --output_dir."):
        for name in names:  # also those without a folder in LIST: the weights have them
            (top / "train" / name).mkdir(parents=True, exist_ok=True)
        for path in (top / "train").iterdir():
            if path.name not in names:
                path.rmdir()
        link = top / f"test.{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.resolve(), target_is_directory=True)
        link.replace(top / "test")
    return Prepared(str(top), None, flags)
