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
from umt.evaluation.ensemble import TINY, Member
from umt.evaluation.scores import ViewScores

_KEYS = ("scores", "logits", "probabilities")
_FIELDS = {"labels": "label", "paths": "path", "rows": "row"}  # in npz and json, and the same in csv
_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"}
_MAGIC = {".npz": b"PK", ".npy": b"\x93NUMPY"}
_LINE = re.compile(r"^(?P<id>.*) \[(?P<logits>[^\[\]]*)\] (?P<label>-?\d+) (?P<clip>\d+) (?P<crop>\d+)\s*$")


@dataclass(frozen=True, eq=False)
class Listed:
    """A list of videos, for files that name none: row i of the file is row i of the list."""

    source: str
    paths: tuple[str, ...]
    labels: NDArray[np.int64]


def read_scores(path: str | Path, listed: Listed | None = None) -> Member:
    """Reads any score file, or the folder of a test. Raises ScoresError for what is no such file, and says why."""
    file = Path(path)
    if file.is_dir():
        return _folder(file)
    if not file.is_file():
        raise ScoresError(f"{file} does not exist; give a scores file, or the folder of a test.")
    kind = file.suffix.lower()
    if kind in _PICKLES:
        raise ScoresError(
            f"{file} is a pickle, which runs whatever it holds when it is opened, so it is not opened here. Where it "
            "was made, save the same as npz: numpy.savez('scores.npz', scores=array, labels=labels, paths=paths)."
        )
    if problem := _instead(file, kind):
        raise ScoresError(f"{file} {problem}")
    if kind == ".txt":
        return _original(file, [file])
    if kind not in _READERS:
        raise ScoresError(f"{file}: '{kind}' is no form of scores that is known here. Give {', '.join(_READERS)}.")
    try:
        return _READERS[kind](file, listed)
    except ScoresError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        cut = "its end is missing" if "not a zip file" in str(error) else str(error)
        raise ScoresError(f"{file} is not whole: {cut}. Copy it again, or save it again.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScoresError(f"{file} cannot be read as scores: {error}. Save it again.") from error


def _instead(file: Path, kind: str) -> str:
    """What people have in place of scores, told by the first bytes, as the end of a sentence; "" if it may be some."""
    try:
        with file.open("rb") as opened:
            start = opened.read(512)
    except OSError as error:
        return f"cannot be read: {error.strerror}. Check its permissions."
    if not start and kind in _READERS:
        return "is empty (0 bytes). Copy it again, or save it again."
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the scores themselves. Run: git lfs pull"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not scores: the download failed. Fetch it again from its link."
    if kind in _MAGIC and not start.startswith(_MAGIC[kind]):
        return f"cannot be read as scores: it is no {kind[1:]} file, whatever its name. Save it with numpy again."
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
            f"{folder} lacks {gap}.txt but has {ranks[-1].name}: a part of that test is not there. Copy all of its "
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
    if scores.multi_label:
        raise ScoresError(f"{file} is of a multi-label list; umt ensemble fuses tests with one class a video.")
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
        raise ScoresError(f"{file} must hold an object with scores, labels and paths, or path -> scores.")
    if not set(content) & set(_KEYS):  # path -> scores
        content = {"paths": list(content), "scores": list(content.values())}
    return _from_mapping(file, content, listed)


def _csv(file: Path, listed: Listed | None) -> Member:
    with file.open(newline="", encoding="utf-8-sig") as text:
        lines = [line for line in csv.reader(text) if line]
    if len(lines) < 2:
        raise ScoresError(f"{file} holds no scores; it needs a header, e.g. path,label,0,1,2, and a line a video.")
    header, body = lines[0], lines[1:]
    bad = next((i for i, line in enumerate(body, 2) if len(line) != len(header)), None)
    if bad is not None:
        raise ScoresError(f"{file}: record {bad} has {len(body[bad - 2])} fields, the header has {len(header)}.")
    own = {many: header.index(one) for many, one in _FIELDS.items() if one in header}
    classes = [i for i in range(len(header)) if i not in own.values()]
    names = [header[i] for i in classes]
    content: dict[str, Any] = {many: [line[i] for line in body] for many, i in own.items()}
    content["scores"] = [[float(line[i]) for i in classes] for line in body]
    if names != [str(i) for i in range(len(names))]:
        content["class_names"] = names
    return _from_mapping(file, content, listed)


_READERS = {".npz": _npz, ".npy": _npy, ".csv": _csv, ".json": _json}


def _from_mapping(file: Path, content: Mapping[str, Any], listed: Listed | None) -> Member:
    key = next((key for key in _KEYS if key in content), None)
    if key is None:
        raise ScoresError(f"{file} holds {', '.join(sorted(content)) or 'nothing'}; the scores are to be 'scores'.")
    scores = np.asarray(content[key])
    scores = scores.astype(np.float64) if scores.dtype.kind in "fiub" else np.asarray(scores, np.float64)
    if scores.ndim not in (2, 3) or 0 in scores.shape:
        raise ScoresError(
            f"{file}: {key} have the shape {scores.shape}, not (videos, classes) or (videos, views, classes)."
        )
    scores = scores[:, None] if scores.ndim == 2 else scores
    size = len(scores)
    paths = _texts(content.get("paths"))
    labels = None if content.get("labels") is None else np.asarray(content["labels"]).astype(np.int64)
    rows = None if content.get("rows") is None else np.asarray(content["rows"]).astype(np.int64)
    if paths is None:
        if listed is None:
            raise ScoresError(
                f"{file} does not name its videos, and by position alone nothing is matched. Add an array 'paths', or "
                "say with --list whose rows these are."
            )
        if len(listed.paths) != size:
            raise ScoresError(f"{file} has {size} videos, --list ({listed.source}) has {len(listed.paths)}.")
        paths, rows = list(listed.paths), np.arange(size)
        if labels is not None and (labels != listed.labels).any():
            at = int(np.flatnonzero(labels != listed.labels)[0])
            raise ScoresError(
                f"{file}: row {at} has label {labels[at]}, in --list ({listed.source}) {listed.labels[at]}."
            )
        labels = listed.labels
    names = _texts(content.get("class_names")) or []
    if names and len(names) != scores.shape[2]:
        raise ScoresError(f"{file}: {len(names)} class_names for scores of the shape {scores.shape}.")
    for what, found in (("labels", labels), ("paths", paths), ("rows", rows)):
        if found is not None and len(found) != size:
            raise ScoresError(f"{file}: {len(found)} {what} for scores of the shape {scores.shape}.")
    unsound = np.flatnonzero(~np.isfinite(scores).all(axis=(1, 2)))
    if unsound.size:
        raise ScoresError(f"{file}: the scores of {paths[unsound[0]]} are not finite ({unsound.size} such videos).")
    return Member(
        name=str(file),
        logits=_logits(file, key, scores),
        labels=np.full(size, -1) if labels is None else labels,
        paths=tuple(paths),
        unread=np.zeros(size, bool),
        rows=rows,
        class_names=tuple(names),
    )


def _logits(file: Path, key: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of what are probabilities: by name, or for `scores` where each is 0 to 1 and they sum to 1."""
    sums = scores.sum(axis=-1)
    probable = bool((scores >= -1e-6).all() and (np.abs(sums - 1) < 1e-2).all())
    if key == "probabilities" and not probable:
        raise ScoresError(f"{file}: probabilities must be 0 to 1 and sum to 1; save them as 'logits' if they are such.")
    return np.log(np.maximum(scores, TINY)) if key == "probabilities" or (key == "scores" and probable) else scores


def _texts(value: Any) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        return [text.decode("utf-8", "surrogateescape") for text in value.tolist()]
    if isinstance(value, np.ndarray) and value.dtype.kind != "U":
        raise ScoresError(f"an array of names has the type {value.dtype}, not text; save it with dtype=str.")
    return [str(text) for text in value]


# ---- the original's result files


def _original(name: Path, files: Sequence[Path]) -> Member:
    """`id [logits] label clip crop` a line, after a first line that is of the last batch only.

    A view that stands twice counts once, the first: samplers pad. Scores that differ are of two videos with one id.
    """
    views: dict[str, dict[tuple[int, int], NDArray[np.float32]]] = {}
    labels: dict[str, int] = {}
    for file in files:
        with file.open(encoding="utf-8", errors="surrogateescape") as text:
            for number, line in enumerate(text, 1):
                found = _LINE.match(line)
                if found is None:
                    if number == 1 or not line.strip():
                        continue
                    raise ScoresError(
                        f"{file}:{number}: not a line of the original's results, id [scores] label clip crop."
                        " Is the file whole?"
                    )
                _take(file, number, found, views, labels)
    if not views:
        raise ScoresError(f"{name} holds no scores of the original's test.")
    expected = set().union(*views.values())
    for video, own in views.items():
        if set(own) != expected:
            clip, crop = min(expected - set(own))
            raise ScoresError(
                f"{name}: {video} has {len(own)} of {len(expected)} views, clip {clip}, crop {crop} is missing. Copy "
                "all result files of that test."
            )
    order = sorted(expected)
    width = len(views[next(iter(views))][order[0]])
    return Member(
        name=str(name),
        logits=np.array([[own[view] for view in order] for own in views.values()]).reshape(len(views), -1, width),
        labels=np.array([labels[video] for video in views], np.int64),
        paths=tuple(views),
        unread=np.zeros(len(views), bool),
        stems=True,
    )


def _take(
    file: Path,
    number: int,
    found: re.Match[str],
    views: dict[str, dict[tuple[int, int], NDArray[np.float32]]],
    labels: dict[str, int],
) -> None:
    video, label, view = found["id"], int(found["label"]), (int(found["clip"]), int(found["crop"]))
    try:
        logits = np.array(found["logits"].replace(",", " ").split(), np.float32)
    except ValueError:
        raise ScoresError(f"{file}:{number}: the scores of {video} are not numbers.") from None
    width = len(next(iter(next(iter(views.values())).values()))) if views else len(logits)
    if len(logits) != width or not np.isfinite(logits).all():
        raise ScoresError(f"{file}:{number}: {video} has {len(logits)} finite scores, the first video {width}.")
    seen = views.setdefault(video, {}).setdefault(view, logits)
    twice = seen is not logits and not np.allclose(seen, logits, rtol=0.05, atol=0.05)
    if twice or labels.setdefault(video, label) != label:
        raise ScoresError(
            f"{file}:{number}: there are two videos '{video}', which the original's files do not tell apart: they hold "
            "names without folders. Test again with umt test."
        )
