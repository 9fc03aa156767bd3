"""A folder of features in the making: its recipe, the files that its rows go to, and which of them are missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from umt.errors import ConfigError
from umt.inference import feature_files
from umt.inference.features import RECIPE, recipe
from umt.writing import output_errors, whole

FAILURES = "failures.jsonl"  # next to the features: rows that could not be read
# What may differ when the same command goes on: it changes no bit.
_ASIDE = ("checkpoint", "provenance", "versions", "command", "list")
_GROUP = 16  # rows of a group where a file is one row, at least; more where a batch holds more


@dataclass(frozen=True)
class Group:
    """Rows whose views share batches, and their files: one, or of npz one for each row."""

    rows: range
    files: tuple[Path, ...]

    def rows_of(self, number: int) -> Sequence[int]:
        """The rows that belong into file `number`."""
        return self.rows if len(self.files) < len(self.rows) else self.rows[number : number + 1]

    def missing(self) -> list[int]:
        """Rows that no file has."""
        missing: list[int] = []
        for number, path in enumerate(self.files):
            rows = self.rows_of(number)
            if not path.exists():
                missing += rows
            elif len(rows) == 1:  # a file that is not empty is whole: it was renamed when it was
                missing += [] if path.stat().st_size else rows
            else:
                missing += sorted(set(rows) - set(feature_files.rows_in(path)))
        return missing


@dataclass(frozen=True)
class Unread:
    """A row that could not be read."""

    row: int
    path: str
    cause: str


def groups(folder: Path, form: str, rows: int, shard_size: int, batch_size: int) -> list[Group]:
    """All groups of a list of `rows` rows."""
    single = form == "npz"
    size = min(max(_GROUP, batch_size), shard_size) if single else shard_size
    cut = []
    for first in range(0, rows, size):
        members = range(first, min(first + size, rows))
        numbers = members if single else [first // shard_size]
        cut.append(Group(members, tuple(feature_files.file_of(folder, form, n, shard_size) for n in numbers)))
    return cut


def failed_rows(folder: Path) -> frozenset[int]:
    """Rows that could not be read when the features of `folder` were last made."""
    ledger = folder / FAILURES
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else []
    return frozenset(int(json.loads(line)["row"]) for line in lines)


def write_failures(folder: Path, failures: Sequence[Unread]) -> None:
    """Writes which rows could not be read; no file if all could. Raises OutputError."""
    with output_errors(f"--output ({folder})", "Free the disk; the same command goes on."):
        if not failures:
            (folder / FAILURES).unlink(missing_ok=True)
            return
        with whole(folder / FAILURES) as place:
            place.write_text("".join(json.dumps(asdict(failure)) + "\n" for failure in failures), encoding="utf-8")


def settle(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as the recipe of features to come, or checks that the folder has the same one.

    Raises ConfigError for a folder of another recipe or of something else, FeaturesError for a recipe that cannot be
    read, OutputError for a folder that cannot be written.
    """
    if (folder / RECIPE).exists():
        present = recipe(folder)
        for name in content:
            if name not in _ASIDE and _plain(present.get(name)) != _plain(content[name]):
                raise ConfigError(_differs(folder, name, present.get(name), content[name]))
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--output ({folder}) is not empty and holds no {RECIPE}. Give a folder of its own.")
    with output_errors(f"--output ({folder})", "Give another place."), whole(folder / RECIPE) as place:
        place.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _differs(folder: Path, name: str, present: Any, asked: Any) -> str:
    if isinstance(present, dict) and isinstance(asked, dict):
        part = next(k for k in {**present, **asked} if _plain(present.get(k)) != _plain(asked.get(k)))
        name, present, asked = f"{name}.{part}", present.get(part), asked.get(part)
    return (
        f"--output ({folder}) holds features of another recipe: {name} is {_short(present)} there and {_short(asked)} "
        "here. Give the flags of that run, or another folder."
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
