"""Something-Something V2, Moments in Time, UCF101 and HMDB51 from their official annotation files."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from umt.data import labels
from umt.errors import AnnotationError
from umt.tools.data.prepare import sources
from umt.tools.data.prepare.clips import Clip, Official

Reader = Callable[[Sequence[Path], Sequence[Path], int], Official]


def _number(name: str, numbers: dict[str, int], where: str, what: str) -> int:
    try:
        return numbers[labels.plain(name)]
    except KeyError:
        raise AnnotationError(f"{where}: '{name}' is not a class of {what}. Is it the list of another set?") from None


def _single(files: list[Path], dataset: str, what: str) -> Path | None:
    if len(files) > 1:
        raise AnnotationError(
            f"{dataset}: both {files[0]} and {files[1]} are lists of {what} videos. "
            "Name the folder of the right one with --annotations."
        )
    return files[0] if files else None


def _by_part(there: list[Path], names: Mapping[str, Sequence[str]], dataset: str) -> dict[str, Path]:
    """The file of each part of a data set, by its names in lower case; without the parts that have none."""
    files = {}
    for part, of_part in names.items():
        file = _single([file for file in there if file.name.lower() in of_part], dataset, part)
        if file is not None:
            files[part] = file
    return files


# ---- Something-Something V2

_SSV2_FILES = {
    "train": ("train.json", "something-something-v2-train.json"),
    "val": ("validation.json", "something-something-v2-validation.json", "val.json"),
    "labels": ("labels.json", "something-something-v2-labels.json"),
    "test": ("test-answers.csv",),
}


def ssv2(annotations: Sequence[Path], videos: Sequence[Path], split: int) -> Official:
    """Lists of {id, template}; the class is the template without its brackets. Testing needs test-answers.csv."""
    there = sources.files(annotations, videos, (".json", ".csv"))
    files = _by_part(there, _SSV2_FILES, "ssv2")
    if not {"train", "val"} & set(files):
        looked_for = "train.json and validation.json, or something-something-v2-train.json and -validation.json"
        raise sources.none_found("ssv2", looked_for, annotations, videos)
    numbers = labels.numbers("ssv2")
    if "labels" in files:
        _check_ssv2_labels(files["labels"], numbers)
    splits = {
        part: [_ssv2_clip(file, i, entry, numbers) for i, entry in enumerate(_entries(file))]
        for part, file in files.items()
        if part in ("train", "val")
    }
    if (file := files.get("test")) is not None:
        lines = sources.lines(file)
        splits["test"] = [_by_id(*_answer(file, line, text), numbers, f"{file}:{line}") for line, text in lines]
    return Official(list(labels.names_of("ssv2")), splits, list(files.values()), same_name_is_same_clip=True)


def _entries(file: Path) -> list[Any]:
    content = sources.json_of(file)
    if not isinstance(content, list):
        raise AnnotationError(f"{file} is not a list of videos. Is it the official file?")
    return content


def _check_ssv2_labels(file: Path, numbers: dict[str, int]) -> None:
    content = sources.json_of(file)
    if not isinstance(content, dict):
        raise AnnotationError(f"{file} does not map class names to labels. Is it the official file?")
    for name, label in content.items():
        if str(_number(name, numbers, str(file), "Something-Something V2")) != str(label):
            raise AnnotationError(
                f"{file} gives '{name}' the label {label}, the published order {numbers[labels.plain(name)]}. "
                "Remove the file: the lists are written in the published order."
            )


def _ssv2_clip(file: Path, place: int, entry: Any, numbers: dict[str, int]) -> Clip:
    where = f"{file} (entry {place})"
    if not isinstance(entry, dict) or "id" not in entry or "template" not in entry:
        raise AnnotationError(f"{where}: no `id` and `template`. Is it the official file?")
    return _by_id(str(entry["id"]), str(entry["template"]), numbers, where)


def _by_id(name: str, template: str, numbers: dict[str, int], where: str) -> Clip:
    number = _number(re.sub(r"[\[\]]", "", template), numbers, where, "Something-Something V2")
    return Clip(name, f"{name}.webm", (name,), number, "", "ssv2")


def _answer(file: Path, line: int, text: str) -> tuple[str, str]:
    name, separator, template = text.partition(";")
    if not separator:
        raise AnnotationError(f"{file}:{line}: `{text[:60]}` is not `id;class`. Is it the official file?")
    return name.strip(), template.strip()


# ---- Moments in Time


def mitv1(annotations: Sequence[Path], videos: Sequence[Path], split: int) -> Official:
    """trainingSet.csv and validationSet.csv: `class/name.mp4,class,...` without a header."""
    there = sources.files(annotations, videos, (".csv", ".txt"))
    files = _by_part(there, {"train": ("trainingset.csv",), "val": ("validationset.csv",)}, "mitv1")
    if not files:
        raise sources.none_found("mitv1", "trainingSet.csv and validationSet.csv", annotations, videos)
    numbers = labels.numbers("mitv1")
    for file in there:
        if file.name.lower() == "moments_categories.txt":
            _check_mit_categories(file, numbers)
    splits = {part: _mit_clips(file, numbers) for part, file in files.items()}
    return Official(list(labels.names_of("mitv1")), splits, list(files.values()))


def _mit_clips(file: Path, numbers: dict[str, int]) -> list[Clip]:
    clips = []
    for line, text in sources.lines(file):
        try:
            fields = next(csv.reader([text]), [])
        except csv.Error:
            fields = []
        if len(fields) < 2 or not fields[0]:
            raise AnnotationError(f"{file}:{line}: `{text[:60]}` is not `class/name.mp4,class,...`.")
        path, name = fields[0].strip(), fields[1].strip()
        number = _number(name, numbers, f"{file}:{line}", "Moments in Time V1")
        clips.append(Clip(path, path, (os.path.splitext(os.path.basename(path))[0],), number, name, "mitv1"))
    return clips


def _check_mit_categories(file: Path, numbers: dict[str, int]) -> None:
    for line, text in sources.lines(file):
        name, _, label = text.rpartition(",")
        if label.strip() != str(_number(name, numbers, f"{file}:{line}", "Moments in Time V1")):
            raise AnnotationError(
                f"{file}:{line}: '{name}' has the label {label} there, {numbers[labels.plain(name)]} in the published "
                "order. Is it of another edition? The lists are written in the published order."
            )


# ---- UCF101 and HMDB51


def ucf101(annotations: Sequence[Path], videos: Sequence[Path], split: int) -> Official:
    """trainlist0N.txt and testlist0N.txt: `Class/v_Class_g01_c01.avi`, in a train list with the label from 1."""
    there = sources.files(annotations, videos, (".txt",))
    train, test = f"trainlist0{split}.txt", f"testlist0{split}.txt"
    files = _by_part(there, {"train": (train,), "val": (test,)}, "ucf101")
    if len(files) < 2:
        raise sources.none_found("ucf101", f"{train} and {test}", annotations, videos)
    numbers = labels.numbers("ucf101")
    splits = {
        part: [_ucf_clip(file, line, text, numbers) for line, text in sources.lines(file)]
        for part, file in files.items()
    }
    return _tested_once(Official(list(labels.names_of("ucf101")), splits, list(files.values())))


def _ucf_clip(file: Path, line: int, text: str, numbers: dict[str, int]) -> Clip:
    path = re.sub(r"\s+\d+$", "", text)
    folder, _, name = path.rpartition("/")
    if not folder:
        raise AnnotationError(f"{file}:{line}: `{text[:60]}` is not `Class/name.avi`. Is it the official file?")
    number = _number(folder, numbers, f"{file}:{line}", "UCF101")
    return Clip(path, path, (os.path.splitext(name)[0],), number, folder, "ucf101")


def hmdb51(annotations: Sequence[Path], videos: Sequence[Path], split: int) -> Official:
    """<class>_test_splitN.txt: `name.avi 1` is for training, `2` for testing, `0` for neither."""
    there = sources.files(annotations, videos, (".txt",))
    ending = f"_test_split{split}.txt"
    files = [f for f in there if f.name.lower().endswith(ending)]
    if not files:
        raise sources.none_found("hmdb51", f"one file per class, brush_hair{ending} and so on", annotations, videos)
    numbers = labels.numbers("hmdb51")
    splits: dict[str, list[Clip]] = {"train": [], "val": []}
    seen: dict[int, Path] = {}
    for file in files:
        folder = file.name[: -len(ending)]
        number = _number(folder, numbers, str(file), "HMDB51")
        if number in seen:
            _single([seen[number], file], "hmdb51", folder)
        seen[number] = file
        for line, text in sources.lines(file):
            name, _, use = text.rpartition(" ")
            if use not in ("0", "1", "2"):
                raise AnnotationError(
                    f"{file}:{line}: `{text[:60]}` does not end in 0, 1 or 2. Is it the official file?"
                )
            if use != "0":
                name = name.strip()
                shown = f"{folder}/{name}"
                clip = Clip(shown, shown, (os.path.splitext(name)[0],), number, folder, "hmdb51")
                splits["train" if use == "1" else "val"].append(clip)
    missing = [name for name, number in numbers.items() if number not in seen]
    official = Official(list(labels.names_of("hmdb51")), splits, files)
    if missing:
        official.notes["classes without a split file"] = len(missing)
    return _tested_once(official)


def _tested_once(official: Official) -> Official:
    """The official test list is the only one next to training: it serves for validation and test."""
    official.splits["test"] = official.splits["val"]
    return official


READERS: dict[str, Reader] = {"ssv2": ssv2, "mitv1": mitv1, "ucf101": ucf101, "hmdb51": hmdb51}
