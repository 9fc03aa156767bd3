"""Scores of other codebases, read into `Member`s: npz, npy, csv, json, and the text files of the original.

Nothing is unpickled. Shapes: R videos, V views, K classes.
"""

from __future__ import annotations

import csv
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.errors import ScoresError
from umt.evaluation.ensemble import Member
from umt.evaluation.fusing import Fusing, fusing
from umt.evaluation.scores import ViewScores

_KEYS = ("scores", "logits", "probabilities")
_FIELDS = {"labels": "label", "paths": "path", "rows": "row"}  # in npz and json, and the same in csv
_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"}
_MAGIC = {".npz": b"PK", ".npy": b"\x93NUMPY"}
_LINE = re.compile(r"^(?P<id>.*) \[(?P<logits>[^\[\]]*)\] (?P<label>-?\d+) (?P<clip>\d+) (?P<crop>\d+)\s*$")


@dataclass(frozen=True, eq=False)
class Listed:
    """A list of videos, for files that do not name theirs: row i of the file is row i of the list."""

    source: str
    paths: tuple[str, ...]
    labels: NDArray[np.int64]


def read_scores(path: str | Path, listed: Listed | None = None) -> Member:
    """Reads any score file, or the folder of a test. Raises ScoresError, with the reason, for anything else."""
    file = Path(path)
    if file.is_dir():
        return _folder(file)
    if not file.is_file():
        raise ScoresError(f"{file} does not exist; give a scores file, or the folder of a test.")
    ending = file.suffix.lower()
    if ending in _PICKLES:
        raise ScoresError(
            f"{file} is a pickle: opening it would run whatever it holds, so it is not opened. Save its content as npz "
            "instead: numpy.savez('scores.npz', scores=array, labels=labels, paths=paths)."
        )
    if problem := _problem(file, ending):
        raise ScoresError(f"{file} {problem}")
    if ending == ".txt":
        return _original(file, [file])
    if ending not in _READERS:
        raise ScoresError(f"{file}: scores cannot be read from '{ending}'. Give {', '.join(_READERS)}.")
    try:
        return _READERS[ending](file, listed)
    except ScoresError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        cut = "its end is missing" if "not a zip file" in str(error) else str(error)
        raise ScoresError(f"{file} is not whole: {cut}. Copy it again, or save it again.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScoresError(f"{file} cannot be read as scores: {error}. Save it again.") from error


def _problem(file: Path, ending: str) -> str:
    """What the first bytes show a file to be instead of scores, as the end of a sentence; "" if it may be scores."""
    try:
        with file.open("rb") as opened:
            start = opened.read(512)
    except OSError as error:
        return f"cannot be read: {error.strerror}. Check its permissions."
    if not start and ending in _READERS:
        return "is empty (0 bytes). Copy it again, or save it again."
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the scores themselves. Run: git lfs pull"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not scores: the download failed. Fetch it again from its link."
    if ending in _MAGIC and not start.startswith(_MAGIC[ending]):
        return f"cannot be read as scores: its content is not that of an {ending[1:]} file. Save it with numpy again."
    return ""


def _folder(folder: Path) -> Member:
    if (folder / "scores.npz").is_file():
        return _npz(folder / "scores.npz", None)
    ranks = sorted((f for f in folder.glob("*.txt") if f.stem.isdecimal()), key=lambda f: int(f.stem))
    if not ranks:
        raise ScoresError(f"{folder} holds no scores.npz, and no 0.txt of the original's test. Give a scores file.")
    gap = next((i for i, file in enumerate(ranks) if int(file.stem) != i), None)
    if gap is not None:
        raise ScoresError(
            f"{folder} has {ranks[-1].name} but no {gap}.txt, so a part of that test is missing. Copy all of its "
            "result files."
        )
    return _original(folder, ranks)


# ---- forms


def _npz(file: Path, listed: Listed | None) -> Member:
    with np.load(file, allow_pickle=False) as arrays:
        names = set(arrays.files)
        if "meta" not in names:
            return _from_mapping(file, {name: arrays[name] for name in names}, listed)
    scores = ViewScores.load(file)
    scores.require_complete()
    return Member(
        name=str(file),
        logits=scores.logits.reshape(len(scores), -1, scores.classes),
        labels=scores.labels,
        paths=tuple(scores.paths),
        unread=np.isin(scores.rows, list(scores.unreadable)),
        rows=scores.rows,
        class_names=tuple(scores.class_names),
    )


def _npy(file: Path, listed: Listed | None) -> Member:
    return _from_mapping(file, {"scores": np.load(file, allow_pickle=False)}, listed)


def _json(file: Path, listed: Listed | None) -> Member:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ScoresError(f"{file} must hold an object with scores, labels and paths, or of path: scores.")
    if not set(content) & set(_KEYS):  # paths to scores
        content = {"paths": list(content), "scores": list(content.values())}
    return _from_mapping(file, content, listed)


def _csv(file: Path, listed: Listed | None) -> Member:
    with file.open(newline="", encoding="utf-8-sig") as text:
        lines = [line for line in csv.reader(text) if line]
    if len(lines) < 2:
        raise ScoresError(f"{file} holds no scores; it needs a header, e.g. path,label,0,1,2, and a line per video.")
    header, body = lines[0], lines[1:]
    bad = next((i for i, line in enumerate(body, 2) if len(line) != len(header)), None)
    if bad is not None:
        raise ScoresError(f"{file}: record {bad} has {len(body[bad - 2])} fields, the header has {len(header)}.")
    places = {field: header.index(column) for field, column in _FIELDS.items() if column in header}
    classes = [i for i in range(len(header)) if i not in places.values()]
    names = [header[i] for i in classes]
    content: dict[str, Any] = {field: [line[i] for line in body] for field, i in places.items()}
    content["scores"] = [[float(line[i]) for i in classes] for line in body]
    if names != [str(i) for i in range(len(names))]:
        content["class_names"] = names
    return _from_mapping(file, content, listed)


_READERS = {".npz": _npz, ".npy": _npy, ".csv": _csv, ".json": _json}


def _from_mapping(file: Path, content: Mapping[str, Any], listed: Listed | None) -> Member:
    key = next((key for key in _KEYS if key in content), None)
    if key is None:
        raise ScoresError(f"{file} holds {', '.join(sorted(content)) or 'nothing'}, and no 'scores'. Name them so.")
    scores = np.asarray(content[key])
    scores = scores.astype(np.float64) if scores.dtype.kind in "fiub" else np.asarray(scores, np.float64)
    if scores.ndim not in (2, 3) or 0 in scores.shape:
        raise ScoresError(
            f"{file}: {key} have the shape {scores.shape}, not (videos, classes) or (videos, views, classes)."
        )
    scores = scores[:, None] if scores.ndim == 2 else scores
    size = len(scores)
    paths = _texts(content.get("paths"))
    labels, rows = (
        None if content.get(name) is None else np.asarray(content[name]).astype(np.int64) for name in ("labels", "rows")
    )
    if paths is None:
        paths, rows, labels = _by_list(file, size, labels, listed)
    names = _texts(content.get("class_names")) or []
    if names and len(names) != scores.shape[2]:
        raise ScoresError(f"{file}: {len(names)} class_names for scores of the shape {scores.shape}.")
    for name, values in (("labels", labels), ("paths", paths), ("rows", rows)):
        if values is not None and len(values) != size:
            raise ScoresError(f"{file}: {len(values)} {name} for scores of the shape {scores.shape}.")
    labels = np.full(size, -1) if labels is None else labels
    if labels.shape not in ((size,), (size, scores.shape[2])):
        raise ScoresError(f"{file}: labels of the shape {labels.shape} for scores of the shape {scores.shape}.")
    unsound = np.flatnonzero(~np.isfinite(scores).all(axis=(1, 2)))
    if unsound.size:
        raise ScoresError(f"{file}: the scores of {paths[unsound[0]]} are not finite ({unsound.size} such videos).")
    return Member(
        name=str(file),
        logits=_logits(file, key, scores, fusing(multi_label=labels.ndim == 2)),
        labels=labels,
        paths=tuple(paths),
        unread=np.zeros(size, bool),
        rows=rows,
        class_names=tuple(names),
    )


def _by_list(
    file: Path, size: int, labels: NDArray[np.int64] | None, listed: Listed | None
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Paths, rows and labels of a file that does not name its videos."""
    if listed is None:
        raise ScoresError(
            f"{file} does not name its videos, and they are never matched by position alone. Add an array 'paths', or "
            "give --list with the list whose rows these are."
        )
    if len(listed.paths) != size:
        raise ScoresError(f"{file} has {size} videos, --list ({listed.source}) has {len(listed.paths)}.")
    if labels is not None and labels.shape == listed.labels.shape and (labels != listed.labels).any():
        row = int(np.flatnonzero(labels != listed.labels)[0])
        raise ScoresError(
            f"{file}: row {row} has label {labels[row]}, in --list ({listed.source}) {listed.labels[row]}."
        )
    return list(listed.paths), np.arange(size), listed.labels if labels is None else labels


def _logits(file: Path, key: str, scores: NDArray[np.float64], kind: Fusing) -> NDArray[np.float64]:
    """Those of probabilities: where they are called so, and of `scores` if each could be a probability."""
    probable = kind.are_probabilities(scores)
    if key == "probabilities" and not probable:
        raise ScoresError(f"{file}: probabilities must be {kind.probabilities}; save logits as 'logits'.")
    return kind.logits(scores) if key == "probabilities" or (key == "scores" and probable) else scores


def _texts(value: Any) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        return [text.decode("utf-8", "surrogateescape") for text in value.tolist()]
    if isinstance(value, np.ndarray) and value.dtype.kind != "U":
        raise ScoresError(f"an array of names has the type {value.dtype} and not text; save it with dtype=str.")
    return [str(text) for text in value]


# ---- the original's result files


Views = dict[str, dict[tuple[int, int], NDArray[np.float32]]]  # video -> (clip, crop) -> scores


def _original(name: Path, files: Sequence[Path]) -> Member:
    """Lines `id [logits] label clip crop`, after a first line that is about the last batch only.

    A view that occurs twice counts once, the first: samplers pad. Where its scores differ, two videos share an id.
    """
    views: Views = {}
    labels: dict[str, int] = {}
    for file in files:
        with file.open(encoding="utf-8", errors="surrogateescape") as text:
            for number, line in enumerate(text, 1):
                match = _LINE.match(line)
                if match is not None:
                    _add_view(f"{file}:{number}", match, views, labels)
                elif number > 1 and line.strip():
                    raise ScoresError(
                        f"{file}:{number}: this is not a line of the original's results, `id [scores] label clip crop`."
                        " Is the file complete?"
                    )
    if not views:
        raise ScoresError(f"{name} holds no scores of the original's test.")
    expected = set().union(*views.values())
    for video, scores in views.items():
        if set(scores) != expected:
            clip, crop = min(expected - set(scores))
            raise ScoresError(
                f"{name}: {video} has {len(scores)} of {len(expected)} views, clip {clip}, crop {crop} is missing. "
                "Copy all result files of that test."
            )
    order = sorted(expected)
    return Member(
        name=str(name),
        logits=np.array([[scores[view] for view in order] for scores in views.values()]),
        labels=np.array([labels[video] for video in views], np.int64),
        paths=tuple(views),
        unread=np.zeros(len(views), bool),
        stems=True,
    )


def _add_view(place: str, match: re.Match[str], views: Views, labels: dict[str, int]) -> None:
    video, label, view = match["id"], int(match["label"]), (int(match["clip"]), int(match["crop"]))
    try:
        logits = np.array(match["logits"].replace(",", " ").split(), np.float32)
    except ValueError:
        raise ScoresError(f"{place}: the scores of {video} are not numbers.") from None
    width = len(next(iter(next(iter(views.values())).values()))) if views else len(logits)
    if len(logits) != width or not np.isfinite(logits).all():
        raise ScoresError(f"{place}: {video} has {len(logits)} finite scores, the first video {width}.")
    first = views.setdefault(video, {}).setdefault(view, logits)
    differs = first is not logits and not np.allclose(first, logits, rtol=0.05, atol=0.05)
    if differs or labels.setdefault(video, label) != label:
        raise ScoresError(
            f"{place}: there are two videos '{video}', which the original's files do not tell apart: they hold names "
            "without folders. Test again with umt test."
        )
