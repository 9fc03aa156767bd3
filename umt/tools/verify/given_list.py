"""What LIST is: a list, whose separator, names of classes and folder are found by looking, or a folder per class."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umt.data import catalog, labels
from umt.data.lists.lines import BETWEEN, SEPARATORS, Form, Row, header, separator_of, whole_number
from umt.data.lists.parquet import is_parquet
from umt.data.lists.reading import ListClasses, count_rows, read_named, rows_of
from umt.data.lists.text import lines, read_text
from umt.data.storage.urls import is_url, join
from umt.errors import AnnotationError, ConfigError, OutputError
from umt.tools.verify.tested_list import folder_of
from umt.writing import whole

_LOOKED_AT = 20  # rows that tell separator, kind of labels and folder


@dataclass(frozen=True)
class Told:
    """What weights say of their test: its flags, their classes in the order of the labels, what they trained on."""

    flags: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    data_path: str = ""

    @property
    def several(self) -> bool:
        return self.flags.get("multi_label") == "True"


@dataclass(frozen=True)
class Given:
    """What the command line says of LIST; "": nothing."""

    split: str = ""
    prefix: str = ""
    data_set: str = ""
    frame_folders: bool = False
    sample: int | None = None


@dataclass(frozen=True)
class Prepared:
    """`folder` for --data_path. `lines`: of a sample, how many it is of; `videos` of the list, where that is known."""

    folder: str
    lines: int | None
    flags: dict[str, str]
    videos: int | None = None


def prepare(given: str, output: Path, told: Told, said: Given) -> Prepared:
    """Brings LIST to where `umt test` looks for it. Raises AnnotationError, ConfigError, OutputError."""
    usual = separator_of(said.split or told.flags.get("split", " "))
    if is_url(given):
        return Prepared(*folder_of(given, output, Form(usual, said.frame_folders), said.sample), {})
    data_set = said.data_set or told.flags.get("data_set", "")
    source = _file(given, ("test", "val") if data_set == "video_list" else ("test",))
    if source is None:
        return _without_list(Path(given), output, told, said)
    if not source.is_file():
        raise ConfigError(f"LIST ({given}) does not exist. Give the test list, or the folder of test.csv.")
    if said.data_set in catalog.OWN:  # asked for: as it stands
        return Prepared(*folder_of(given, output, Form(usual, said.frame_folders), said.sample), {})
    candidates = [usual] if said.split else [usual, *(s for s in SEPARATORS if s != usual)]
    form = _form(source, told, candidates, said.frame_folders)
    flags = {"split": form.separator}
    try:
        some = [row for _, row in itertools.islice(rows_of(str(source), form), _LOOKED_AT)]
    except AnnotationError:  # which the test words better, for lists of numbers
        some = []
    if not said.prefix and _is_beside(source, some):
        flags["prefix"] = str(source.parent)
    own = told.flags.get("data_set") in catalog.OWN
    if own:
        flags["data_set"] = catalog.sampled_as("sparse")
    if some and (own or told.names is not None) and (own or not all(map(_is_numbered, some))):
        source, flags["split"] = _numbered(source, output, told, form), ","
    plain = Form(flags["split"], said.frame_folders)
    return Prepared(*folder_of(str(source), output, plain, said.sample), flags, count_rows(str(source)))


def _file(given: str, splits: Sequence[str]) -> Path | None:
    """The list; None for a folder that holds none of these."""
    if not os.path.isdir(given):
        return Path(given)
    both = [Path(given, f"{split}{ending}") for split in splits for ending in (".csv", ".parquet")]
    return next((path for path in both if path.is_file()), None)


# ---- lists


def _form(source: Path, told: Told, candidates: Sequence[str], frame_folders: bool) -> Form:
    """How the rows are read: by the separator that leaves most labels that there are, the first of such."""
    forms = [Form(separator, frame_folders, words=True) for separator in candidates]
    if is_parquet(str(source)):
        return forms[0]
    shown = [line for _, line in itertools.islice(lines(read_text(str(source))), _LOOKED_AT + 1)]

    def fits(form: Form) -> tuple[int, int]:
        if told.several and form.separator == BETWEEN:
            return (-1, -1)
        named = header(shown[0], form) if shown else None
        rows = [row for line in shown[named is not None :] if (row := (named or form).row(line)) is not None]
        return sum(_is_label(row, told) for row in rows), len(rows)

    return max(forms, key=fits)


def _is_label(row: Row, told: Told) -> bool:
    words = row.text.split(BETWEEN) if told.several else [row.text]
    known = all(whole_number(word) is not None or word.strip() in (told.names or ()) for word in words if word.strip())
    return known and bool(row.text or told.several) and row.path[-1] not in ",;|"


def _is_numbered(row: Row) -> bool:
    return all(whole_number(word) is not None for word in row.text.split(BETWEEN) if word.strip())


def _is_beside(source: Path, rows: Sequence[Row]) -> bool:
    """Whether the paths are not there from here, but from the list's own folder."""
    here = any(is_url(row.path) or os.path.exists(row.path) for row in rows)
    return not here and any(os.path.exists(join(str(source.parent), row.path)) for row in rows)


def _numbered(source: Path, output: Path, told: Told, form: Form) -> Path:
    """The list with a number for each class, by labels.txt beside it, else by the names that the weights have."""
    beside = source.parent / labels.LABELS_FILE
    names = tuple(labels.read_names(beside)) if beside.is_file() else told.names
    count = len(names) if names is not None else int(told.flags.get("nb_classes", 0))
    classes = ListClasses(names, count, str(beside) if beside.is_file() else "the weights")
    videos = read_named(str(source), classes, form, multi_label=told.several)
    text = io.StringIO()
    for row in range(len(videos)):
        label = BETWEEN.join(map(str, videos.labels_of(row)))
        fields = [videos.path(row), *([str(videos.num_frames[row])] if form.frame_folders else []), label]
        if '"' in fields[0]:
            csv.writer(text, lineterminator="\n").writerow(fields)
        else:
            text.write(",".join(fields) + "\n")
    folder = output / "numbered"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / "test.csv", shared=True) as place:
            place.write_text(text.getvalue(), "utf-8", "surrogateescape")
        if names is None:
            (folder / labels.LABELS_FILE).unlink(missing_ok=True)
        else:
            with whole(folder / labels.LABELS_FILE, shared=True) as place:
                place.write_text(labels.text_of(names), "utf-8", "surrogateescape")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}. Change --output_dir.") from error
    return folder / "test.csv"


# ---- a folder per class


def _without_list(given: Path, output: Path, told: Told, said: Given) -> Prepared:
    """All videos of the class folders, of which a run of one's own would hold a tenth out, or their folder test.

    The folder that the weights were trained on is tested as their run was.
    """
    same = bool(told.data_path) and given.resolve() == Path(told.data_path).resolve()
    data_set = said.data_set or told.flags.get("data_set", "")
    found = sorted(path.name for path in given.iterdir() if path.is_dir() and not path.name.startswith("."))
    if same and said.sample is None and data_set == "video_list":
        return Prepared(str(given), None, {})
    known = data_set == "image_folder" or told.names is not None
    if not found or not known or not data_set or catalog.get(data_set).sampling != "sparse":
        raise ConfigError(f"LIST ({given}) holds no test.csv. Give the test list, or the folder of test.csv.")
    if said.sample is not None:
        raise ConfigError(
            f"--sample takes lines of a csv list, and LIST ({given}) is a folder of classes. Write its list first, "
            "with umt data prepare folder."
        )
    flags = {"data_set": "image_folder"}
    parted = "train" in found and not {"val", "test"}.isdisjoint(found)
    if parted or same:
        return Prepared(str(given), None, flags)  # as the run itself was tested
    names = told.names or tuple(found)
    strange = [name for name in found if name not in names]
    if strange:
        raise ConfigError(
            f"LIST ({given}) has {len(strange)} folders that are no class of the weights, first '{strange[0]}'. Give a "
            "folder for each of their classes, or a list."
        )
    top = output / "classes"
    try:
        for name in names:  # also those that LIST lacks: the weights have them
            (top / "train" / name).mkdir(parents=True, exist_ok=True)
        for path in (top / "train").iterdir():
            if path.name not in names:
                path.rmdir()
        mine = top / f"test.{os.getpid()}"
        mine.unlink(missing_ok=True)
        mine.symlink_to(given.resolve(), target_is_directory=True)
        mine.replace(top / "test")
    except OSError as error:
        raise OutputError(f"{top} cannot be written: {error.strerror or error}. Change --output_dir.") from error
    return Prepared(str(top), None, flags)
