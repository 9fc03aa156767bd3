"""How long lists take to read: python scripts/bench_lists.py [--rows 650000]

A list of Kinetics-710's size as plain csv, with Windows line ends, with quotes (which is read line by line), with names
of classes, and as parquet; rows counted, as a dry run does; and `umt data check --lines_only`. CPU seconds, least of
several turns. Before each the files get another time, so that none is taken for one that was read before.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from umt.data.lists import parquet as parquet_list
from umt.data.lists.lines import Row
from umt.data.lists.reading import classes_of, count_rows, read_list, read_named, words_form
from umt.data.lists.video_list import VideoList
from umt.tools.data.check import main as check

CLASSES = 710


def write(folder: Path, rows: int) -> dict[str, Path]:
    """The list in its three forms."""
    draw = random.Random(0)
    listed = []
    for number in range(rows):
        start = number % 500
        name = f"{draw.getrandbits(64):011x}_{start:06d}_{start + 10:06d}.mp4"
        listed.append(Row(f"k700/train/class_name_{number % CLASSES}/{name}", -1, number % CLASSES))
    text = "".join(f"{row.path},{row.label}\n" for row in listed)
    texts = {
        "csv": text,
        "csv, Windows line ends": text.replace("\n", "\r\n"),
        "csv, quotes": "".join(f'"{row.path}",{row.label}\n' for row in listed),
        "csv, names of classes": "".join(f"{row.path},class_name_{row.label}\n" for row in listed),
    }
    files = {form: folder / f"{number}.csv" for number, form in enumerate(texts)}
    for form, file in files.items():
        file.write_text(texts[form], newline="")
    files["parquet"] = folder / "list.parquet"
    parquet_list.write(os.fspath(files["parquet"]), listed)
    return files


def read_names(file: Path) -> VideoList:
    """Reads a list with names of classes, as a run does."""
    form = words_form(",")
    return read_named(file, classes_of(os.fspath(file), form), form)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    words.add_argument("--rows", type=int, default=650_000)
    words.add_argument("--turns", type=int, default=5)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder), given.rows)

        def checked() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                check([os.fspath(files["csv"]), "--lines_only", "--nb_classes", str(CLASSES)])

        what: dict[str, Callable[[], object]] = {
            **{f"read {form}": lambda file=file: read_list(file, separator=",", num_classes=CLASSES)  # type: ignore[misc]
               for form, file in files.items()},
            "read csv, names of classes": lambda: read_names(files["csv, names of classes"]),
            "count csv": lambda: count_rows(files["csv"]),
            "count parquet": lambda: count_rows(files["parquet"]),
            "umt data check --lines_only": checked,
        }  # fmt: skip
        best = dict.fromkeys(what, float("inf"))
        for turn in range(given.turns):
            for number, (name, work) in enumerate(what.items()):
                for file in files.values():
                    os.utime(file, (0, 100 * turn + number))
                start = time.process_time()
                work()
                best[name] = min(best[name], time.process_time() - start)
    print(f"{given.rows} rows; Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}")
    for name, seconds in best.items():
        print(f"  {name:<28} {seconds:6.2f} s")


if __name__ == "__main__":
    main()
