"""What was seen, for a person (a table, as it comes) and for programs (JSON, CSV)."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor
from tqdm import tqdm

from umt.errors import OutputError
from umt.inference.recognizer import Recognizer
from umt.writing import whole


@dataclass(frozen=True)
class Part:
    """What is seen in a video, or from `start` to `end` (seconds) of it: probabilities (K,)."""

    probabilities: Tensor
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Failure:
    """A video that could not be read."""

    path: str
    cause: str


@dataclass(frozen=True)
class Shown:
    """The classes of a part that are told: (class, name, probability), the likeliest first."""

    start: float | None
    end: float | None
    classes: tuple[tuple[int, str, float], ...]


class Teller:
    """Says what is seen in each video, in the ways that the flags ask for. Made by `telling`."""

    def __init__(self, words: Namespace, model: Recognizer, json_file: TextIO | None, csv_file: TextIO | None) -> None:
        self._words, self._model = words, model
        self._videos: list[dict[str, Any]] = []
        self._table = "-" not in (words.json, words.csv)
        self._json, self._csv = json_file, csv_file
        if self._csv is not None:
            csv.writer(self._csv).writerow(["path", "start", "end", "rank", "class", "label", "probability"])

    def video(self, name: str, parts: Iterable[Part]) -> list[Shown]:
        """Tells of one video, window by window as they come. Errors of `parts` are passed on."""
        all_shown: list[Shown] = []
        for part in parts:
            if self._table and not all_shown:
                _say(name)
            shown = Shown(part.start, part.end, self._chosen(part.probabilities))
            all_shown.append(shown)
            if self._table:
                _say(_window(shown) if shown.start is not None else _whole(shown))
            if self._csv is not None:
                lines = _csv_lines(name, shown)
                if self._csv is sys.stdout:
                    lines = lines.encode(errors="surrogateescape").decode(errors="replace")
                self._csv.write(lines)
        if self._json is not None:
            self._videos.append({"path": name, **_described(all_shown)})
        return all_shown

    def end(self, failures: Sequence[Failure]) -> None:
        """Writes what is written at the end."""
        if self._json is not None:
            made = self._model.description
            content = {
                "checkpoint": str(self._words.checkpoint),
                "model": made.model,
                "labels": self._words.labels or made.labels_source or None,
                "multi_label": made.multi_label,
                "videos": self._videos,
                "failures": [{"path": failure.path, "cause": failure.cause} for failure in failures],
            }
            self._json.write(json.dumps(content, indent=1) + "\n")

    def _chosen(self, probabilities: Tensor) -> tuple[tuple[int, str, float], ...]:
        values, order = probabilities.sort(descending=True, stable=True)
        top = [(int(k), self._model.labels[int(k)], float(p)) for p, k in zip(values, order, strict=True)]
        if self._words.threshold is not None:
            top = [one for one in top if one[2] >= self._words.threshold]
        return tuple(top[: self._words.topk])


@contextlib.contextmanager
def telling(words: Namespace, model: Recognizer) -> Iterator[Teller]:
    """Files of --json and --csv are whole when the block ends well, and else as they were. Raises OutputError."""
    with _opened(words.csv, "--csv") as csv_file, _opened(words.json, "--json") as json_file:
        yield Teller(words, model, json_file, csv_file)


def _say(line: str) -> None:
    """On the standard output, past a progress bar; a name that is no text in UTF-8 with signs in its place."""
    tqdm.write(line.encode(errors="surrogateescape").decode(errors="replace"))
    sys.stdout.flush()


def clock(seconds: float) -> str:
    """12.5 -> "0:12.50", 3725 -> "1:02:05.00"."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}:{minutes:02d}' if hours else minutes}:{rest / 100:05.2f}"


def _whole(shown: Shown) -> str:
    return "\n".join(f"  {100 * p:5.1f} %  {name}" for _, name, p in shown.classes) or "  nothing"


def _window(shown: Shown) -> str:
    assert shown.start is not None
    assert shown.end is not None
    times = f"{clock(shown.start):>10} - {clock(shown.end):<10}"
    return f"  {times}" + ("".join(f" {100 * p:5.1f} % {name:<24}" for _, name, p in shown.classes).rstrip() or " -")


def _described(parts: Sequence[Shown]) -> dict[str, Any]:
    def classes(shown: Shown) -> list[dict[str, Any]]:
        return [{"class": k, "label": name, "probability": round(p, 6)} for k, name, p in shown.classes]

    if len(parts) == 1 and parts[0].start is None:
        return {"predictions": classes(parts[0])}
    return {"windows": [{"start": one.start, "end": one.end, "predictions": classes(one)} for one in parts]}


def _csv_lines(name: str, shown: Shown) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    times = ["" if time is None else time for time in (shown.start, shown.end)]
    for rank, (k, label, p) in enumerate(shown.classes, 1):
        writer.writerow([name, *times, rank, k, label, f"{p:.6f}"])
    return text.getvalue()


@contextlib.contextmanager
def _opened(name: str | None, flag: str) -> Iterator[TextIO | None]:
    """A file that is there when the block ends well; what is no file (a pipe, a device) is written to as it is."""
    if name is None or name == "-":
        yield None if name is None else sys.stdout
        return
    path = Path(name)
    as_it_is = name.startswith("/dev/") or (path.exists() and not path.is_file())
    with contextlib.ExitStack() as stack:
        try:
            place = path if as_it_is else stack.enter_context(whole(path.resolve()))  # a link stays one
            file = stack.enter_context(open(place, "w", encoding="utf-8", errors="surrogateescape", newline=""))
        except OSError as error:
            raise _unwritable(flag, name, error) from None
        yield file
        try:
            stack.close()
        except OSError as error:
            raise _unwritable(flag, name, error) from None


def _unwritable(flag: str, name: str, error: OSError) -> OutputError:
    return OutputError(f"{flag} ({name}) cannot be written: {error.strerror}. Give another place.")
