"""Kinetics-400, -600 and -700 from their official annotation files, and Kinetics-710 merged from the three.

The files are CSV (`label,youtube_id,time_start,time_end,split`, in the ActivityNet form with `is_cc`, a test list
perhaps without `label`) or as JSON keyed by YouTube id. Kinetics-710 as in https://arxiv.org/abs/2211.09552: a video of
several sets counts once, and is left out of training if any set validates or tests with it.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from umt.data import labels
from umt.errors import AnnotationError
from umt.tools.data.prepare import sources
from umt.tools.data.prepare.clips import SPLITS, Clip, Official

SETS = ("k400", "k600", "k700")
_COLUMNS = ("youtube_id", "time_start", "time_end")
_SPLIT = {"train": "train", "training": "train", "val": "val", "validate": "val", "validation": "val"}
_SPLIT |= {"test": "test", "testing": "test"}
_SPLIT_WORD = re.compile(r"(train|val|test)")
_SET_NUMBER = re.compile(r"(?<!\d)([467])00(?!\d)")
_LOOKED_FOR = (
    "train.csv and val.csv or validate.csv, kinetics-{n}_train.csv and kinetics-{n}_val.csv (columns label, "
    "youtube_id, time_start, time_end), or the same as .json"
)


def read(name: str, annotations: Sequence[Path], videos: Sequence[Path], label_order: str) -> Official:
    """The annotation of k400, k600, k700 or k710. Raises AnnotationError naming what was looked for, or file:line."""
    candidates = sources.files(annotations, videos, (".csv", ".json"))
    if name == "k710":
        return _merge({part: _read_set(part, candidates, annotations, videos, "umt", "k710") for part in SETS})
    return _read_set(name, candidates, annotations, videos, label_order, name)


# ---- one set


def _read_set(
    name: str,
    candidates: list[Path],
    annotations: Sequence[Path],
    videos: Sequence[Path],
    label_order: str,
    dataset: str,
) -> Official:
    order = {"umt": "k400_umt", "alphabetical": "k400"}[label_order] if name == "k400" else name
    splits: dict[str, list[Clip]] = {}
    origin: dict[str, Path] = {}
    used: list[Path] = []
    digests: set[str] = set()
    for file in _preferred([f for f in candidates if _is_of(f, name, strictly=dataset == "k710")]):
        rows = list(_rows(file, name, labels.numbers(order)))
        digest = hashlib.sha256(file.read_bytes()).hexdigest() if rows else ""
        if not rows or digest in digests:
            continue
        digests.add(digest)
        used.append(file)
        for split, clip in rows:
            first = origin.setdefault(split, file)
            if first != file and split != "test":  # Kinetics-600 has two test lists
                raise AnnotationError(
                    f"{dataset}: both {first} and {file} are lists of {split} videos of {name}. "
                    "Name the folder of the right one with --annotations."
                )
            splits.setdefault(split, []).append(clip)
    if not splits.get("train") and not splits.get("val"):
        number = name[1:]
        what = _LOOKED_FOR.format(n=number)
        if dataset == "k710":
            what = f"files of {name}, with {number} in their name or their folder's, e.g. {name}/train.csv"
        raise sources.none_found(dataset, what, annotations, videos)
    return Official(list(labels.names_of(order)), splits, used, same_name_is_same_clip=True)


def _is_of(file: Path, name: str, *, strictly: bool) -> bool:
    """By the number in the file's name, else in the name of the nearest folder that has one."""
    for part in reversed(file.parts[-4:]):
        numbers = set(_SET_NUMBER.findall(part))
        if numbers:
            return numbers == {name[1]}
    return not strictly


def _preferred(files: list[Path]) -> list[Path]:
    """Without files of differences between two editions, and without a JSON that has the same name as a CSV."""
    files = [file for file in files if "delta" not in file.stem.lower()]
    return [f for f in files if f.suffix.lower() == ".csv" or f.with_suffix(".csv") not in files]


def _rows(file: Path, name: str, numbers: dict[str, int]) -> Iterator[tuple[str, Clip]]:
    """(split, clip) of every annotated clip; nothing from a file that is not such an annotation."""
    by_name = _SPLIT_WORD.findall(file.stem.lower())
    of_file = by_name[-1] if len(set(by_name)) == 1 else None
    for line, label, video, start, end, word in _csv(file) if file.suffix.lower() == ".csv" else _json(file):
        split = _SPLIT.get(word.strip().lower()) or of_file
        if split is None:
            raise AnnotationError(f"{file}{line}: '{word}' is not one of train, val, test, nor is the file's name.")
        number = -1
        if label:
            try:
                number = numbers[labels.plain(label)]
            except KeyError:
                raise AnnotationError(
                    f"{file}{line}: '{label}' is not a class of Kinetics-{name[1:]}. Is it the list of another set?"
                ) from None
        yield split, _clip(video, start, end, number, label, name)


def _clip(video: str, start: int, end: int, number: int, label: str, name: str) -> Clip:
    usual = f"{video}_{start:06d}_{end:06d}"
    stems = (usual, f"{video}_{start}_{end}", f"{video}-{start}-{end}", video)
    return Clip(video, f"{label}/{usual}.mp4" if label else f"{usual}.mp4", stems, number, label, name)


_Row = tuple[str, str, str, int, int, str]  # where (":12"), label, YouTube id, start and end in seconds, split


def _csv(file: Path) -> Iterator[_Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened)
            header = [column.strip().lower() for column in next(reader, [])]
            if not set(_COLUMNS) <= set(header):
                return
            at = {column: header.index(column) for column in header}
            for row in reader:
                if not row:
                    continue
                where = f":{reader.line_num}"
                if len(row) < len(header):
                    raise AnnotationError(f"{file}{where}: {len(row)} columns where the header has {len(header)}.")
                video, start, end = (row[at[column]].strip() for column in _COLUMNS)
                label, split = (row[at[column]] if column in at else "" for column in ("label", "split"))
                yield _checked(file, where, label, video, start, end, split)
    except (UnicodeDecodeError, csv.Error) as error:
        if not _SPLIT_WORD.search(file.stem.lower()):
            return
        raise AnnotationError(f"{file} cannot be read as CSV in UTF-8: {error}. Fetch it again.") from None
    except OSError as error:
        raise AnnotationError(f"{file} cannot be read: {error.strerror}. Check its permissions.") from None


def _json(file: Path) -> Iterator[_Row]:
    try:
        content: Any = sources.json_of(file)
    except AnnotationError:
        if _SPLIT_WORD.search(file.stem.lower()):
            raise
        return
    content = content.get("database", content) if isinstance(content, dict) else {}
    for video, entry in content.items():
        if not isinstance(entry, dict) or not {"subset", "annotations"} & set(entry):
            return
        # A test list may have no annotations.
        where, annotation = f" ({video})", entry.get("annotations") or {"segment": [0, 0]}
        segment = annotation.get("segment") if isinstance(annotation, dict) else None
        if not isinstance(segment, list) or len(segment) != 2:
            raise AnnotationError(f"{file}{where}: no segment of two times in seconds. Is it the official file?")
        label, split, (start, end) = str(annotation.get("label", "")), str(entry.get("subset", "")), map(str, segment)
        yield _checked(file, where, label, video, start, end, split)


def _checked(file: Path, where: str, label: str, video: str, start: str, end: str, split: str) -> _Row:
    try:
        seconds = int(float(start)), int(float(end))
    except (ValueError, OverflowError):
        raise AnnotationError(f"{file}{where}: '{start}' and '{end}' are not two times in seconds.") from None
    if not video:
        raise AnnotationError(f"{file}{where}: no YouTube id.")
    return where, label.strip().strip('"').strip(), video, *seconds, split


# ---- Kinetics-710


def _merge(sets: dict[str, Official]) -> Official:
    """The three sets merged. `Clip.source` keeps them apart: the disk decides whose clip of a video counts."""
    untested = [name for name, part in sets.items() if not part.splits.get("test") or not part.splits.get("val")]
    if untested:
        raise AnnotationError(
            f"k710: the validation or test list of {', '.join(untested)} is missing, so its videos could not be kept "
            "out of the training list. Put train, val and test of all three sets below --annotations."
        )
    index = labels.k710_index()
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for name, part in sets.items():
        rows = index["k400_umt" if name == "k400" else name]
        for split, clips in part.splits.items():
            splits[split] += [
                Clip(c.video, c.shown, c.stems, rows[c.label] if c.label >= 0 else -1, c.folder, name) for c in clips
            ]
    held_out = {clip.video for split in ("val", "test") for clip in splits[split]}
    trained = [clip for clip in splits["train"] if clip.video not in held_out]
    validated = {clip.video for clip in splits["val"]}
    notes = {
        "training clips left out, validated or tested with in some set": len(splits["train"]) - len(trained),
        "training videos in several sets": _shared(trained),
        "of which with different labels": _contradicting(trained),
    }
    splits["train"] = trained
    splits["test"] = [clip for clip in splits["test"] if clip.video not in validated]
    files = [file for part in sets.values() for file in part.files]
    return Official(list(labels.names_of("k710")), splits, files, same_name_is_same_clip=True, notes=notes)


def _by_video(clips: list[Clip]) -> dict[str, list[Clip]]:
    grouped: dict[str, list[Clip]] = {}
    for clip in clips:
        grouped.setdefault(clip.video, []).append(clip)
    return grouped


def _shared(clips: list[Clip]) -> int:
    return sum(len({clip.source for clip in group}) > 1 for group in _by_video(clips).values())


def _contradicting(clips: list[Clip]) -> int:
    return sum(
        len({clip.source for clip in group}) > 1 and len({clip.label for clip in group}) > 1
        for group in _by_video(clips).values()
    )
