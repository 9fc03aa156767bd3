"""How long lists take to read: python scripts/bench_lists.py [--rows 650000]

A list of Kinetics-710's size as plain csv, as csv with Windows line ends (which is read line by line), and as parquet;
rows counted, as a dry run does; and `umt data check --lines_only`. CPU seconds, the least of several turns.
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
from umt.data.lists.annotations import count_rows, read_list
from umt.data.lists.lines import Row
from umt.tools.data.check import main as check

CLASSES = 710


def write(folder: Path, rows: int) -> dict[str, Path]:
    """The list in its three forms."""
    draw = random.Random(0)
    made = []
    for number in range(rows):
        start = number % 500
        name = f"{draw.getrandbits(64):011x}_{start:06d}_{start + 10:06d}.mp4"
        made.append(Row(f"k700/train/class_name_{number % CLASSES}/{name}", -1, number % CLASSES))
    text = "".join(f"{row.path},{row.label}\n" for row in made)
    names = {"csv": "plain.csv", "csv, Windows line ends": "windows.csv", "parquet": "list.parquet"}
    files = {form: folder / name for form, name in names.items()}
    files["csv"].write_text(text, newline="")
    files["csv, Windows line ends"].write_text(text.replace("\n", "\r\n"), newline="")
    parquet_list.write(os.fspath(files["parquet"]), made)
    return files


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
            "count csv": lambda: count_rows(files["csv"]),
            "count parquet": lambda: count_rows(files["parquet"]),
            "umt data check --lines_only": checked,
        }  # fmt: skip
        best = dict.fromkeys(what, float("inf"))
        for _ in range(given.turns):
            for name, work in what.items():
                start = time.process_time()
                work()
                best[name] = min(best[name], time.process_time() - start)
    print(f"{given.rows} rows; Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}")
    for name, seconds in best.items():
        print(f"  {name:<28} {seconds:6.2f} s")


if __name__ == "__main__":
    main()
