"""Answers as they come, for a person (a table) and for programs (JSON, CSV)."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from umt.tasks.base.predictor import Failure, Part, Predictor
from umt.writing import output_errors, whole


class Output:
    """Writes the answers for each video in the forms that the flags ask for. Opened by `opened`."""

    def __init__(
        self, words: Namespace, predictor: Predictor, json_file: TextIO | None, csv_file: TextIO | None
    ) -> None:
        self._predictor = predictor
        self._videos: list[dict[str, Any]] = []
        self._table = "-" not in (words.json, words.csv)
        self._json, self._csv = json_file, csv_file
        if self._csv is not None:
            csv.writer(self._csv).writerow(["path", "start", "end", *predictor.columns])

    def video(self, name: str, parts: Iterable[Part]) -> list[Part]:
        """Writes about one video, window by window as they come. Errors of `parts` are passed on."""
        done: list[Part] = []
        for part in parts:
            if self._table and not done:
                _print(name)
            done.append(part)
            if self._table:
                _print(self._table_lines(part))
            if self._csv is not None:
                lines = self._csv_lines(name, part)
                self._csv.write(_printable(lines) if self._csv is sys.stdout else lines)
        if self._json is not None:
            self._videos.append({"path": name, **self._described(done)})
        return done

    def end(self, failures: Sequence[Failure], **facts: object) -> None:
        """Writes what is written at the end; `facts` stand at the head of the JSON."""
        if self._json is not None:
            content = {
                **facts,
                **self._predictor.facts(),
                "videos": self._videos,
                "failures": [{"path": failure.path, "cause": failure.cause} for failure in failures],
            }
            self._json.write(json.dumps(content, indent=1) + "\n")

    def _table_lines(self, part: Part) -> str:
        if part.start is None or part.end is None:
            return "\n".join(f"  {line}" for line in self._predictor.lines(part.answer))
        return f"  {clock(part.start):>10} - {clock(part.end):<10}{self._predictor.line(part.answer)}"

    def _described(self, parts: Sequence[Part]) -> dict[str, Any]:
        if len(parts) == 1 and parts[0].start is None:
            return {"predictions": self._predictor.described(parts[0].answer)}
        return {
            "windows": [
                {"start": part.start, "end": part.end, "predictions": self._predictor.described(part.answer)}
                for part in parts
            ]
        }

    def _csv_lines(self, name: str, part: Part) -> str:
        text = io.StringIO()
        times = ["" if time is None else time for time in (part.start, part.end)]
        csv.writer(text).writerows([name, *times, *row] for row in self._predictor.rows(part.answer))
        return text.getvalue()


@contextlib.contextmanager
def opened(words: Namespace, predictor: Predictor) -> Iterator[Output]:
    """Files of --json and --csv are whole when the block ends well, and else as they were. Raises OutputError."""
    with _file(words.csv, "--csv") as csv_file, _file(words.json, "--json") as json_file:
        yield Output(words, predictor, json_file, csv_file)


def _print(lines: str) -> None:
    """On the standard output, past a progress bar."""
    tqdm.write(_printable(lines))
    sys.stdout.flush()


def _printable(text: str) -> str:
    """A file name that is not UTF-8 with signs in place of the bytes."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def clock(seconds: float) -> str:
    """12.5 -> "0:12.50", 3725 -> "1:02:05.00"."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}:{minutes:02d}' if hours else minutes}:{rest / 100:05.2f}"


@contextlib.contextmanager
def _file(name: str | None, flag: str) -> Iterator[TextIO | None]:
    """A file that is there when the block ends well; what is no file (a pipe, a device) is written to as it is."""
    if name is None or name == "-":
        yield None if name is None else sys.stdout
        return
    path = Path(name)
    as_it_is = name.startswith("/dev/") or (path.exists() and not path.is_file())
    with contextlib.ExitStack() as stack:
        with output_errors(f"{flag} ({name})", "Give another place."):
            place = path if as_it_is else stack.enter_context(whole(path.resolve()))  # a link stays one
            file = stack.enter_context(open(place, "w", encoding="utf-8", errors="surrogateescape", newline=""))
        yield file
        with output_errors(f"{flag} ({name})", "Give another place."):
            stack.close()
