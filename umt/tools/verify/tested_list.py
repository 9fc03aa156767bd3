"""Puts the list where `umt test` looks for it: as test.csv in a folder, the whole list or a sample of it."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from umt.data.labels import LABELS_FILE
from umt.data.lists.lines import Form
from umt.data.storage.urls import is_url
from umt.errors import ConfigError
from umt.writing import output_errors, whole


def folder_of(path: str, output: Path, form: Form, sample: int | None = None) -> tuple[str, int | None]:
    """The folder whose test.csv is the list `path`: its own, or one below `output` that holds a copy.

    And, if only a sample of lines is copied, the number of lines of the whole list. Under a launcher every process
    makes the same copy, and none sees half of another's. Raises ConfigError, OutputError.
    """
    if is_url(path) or os.path.isdir(path):
        if sample is None:
            return path, None
        if is_url(path):
            raise ConfigError(f"--sample takes lines of a list on this machine, not of {path}. Copy it here.")
        path = str(Path(path, "test.csv"))
    source = Path(path)
    if not source.is_file():
        raise ConfigError(f"LIST ({path}) does not exist. Give the test list, or the folder of test.csv.")
    if source.name in ("test.csv", "test.parquet") and sample is None:
        return str(source.parent), None
    if sample is not None and source.suffix == ".parquet":
        raise ConfigError(f"--sample takes lines of a csv list, not of {source}.")
    folder = output / "list"
    name = "test.parquet" if source.suffix == ".parquet" else "test.csv"
    copied = {name: source} if sample is None else {}
    if (source.parent / LABELS_FILE).is_file():
        copied[LABELS_FILE] = source.parent / LABELS_FILE
    with output_errors(str(folder), "Change --output_dir."):
        folder.mkdir(parents=True, exist_ok=True)
        for old in {"test.csv", "test.parquet", LABELS_FILE} - {name, *copied}:
            (folder / old).unlink(missing_ok=True)
        for target, file in copied.items():
            with whole(folder / target, shared=True) as place:
                shutil.copyfile(file, place)
        return str(folder), None if sample is None else _sample(source, folder / name, form, sample)


def _sample(source: Path, target: Path, form: Form, sample: int) -> int:
    """Writes `sample` random lines, the same each time; returns the number of all lines."""
    text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")
    lines = [line for line in text.splitlines() if line.strip()]
    head = lines[:1] if lines and form.row(lines[0]) is None else []
    body = lines[len(head) :]
    drawn = sorted(random.Random(0).sample(range(len(body)), min(sample, len(body))))
    chosen = [body[i] for i in drawn]
    with whole(target, shared=True) as place:
        place.write_text("".join(f"{line}\n" for line in (*head, *chosen)), "utf-8", "surrogateescape")
    return len(body)
