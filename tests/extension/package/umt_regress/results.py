"""What a test collects: as many numbers per row as its video has clips."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umt.errors import ScoresError
from umt.evaluation.results import Results
from umt.writing import replacing


@dataclass(frozen=True)
class Errors:
    """The root of the mean squared error over `videos` videos, each the mean of its clips."""

    videos: int
    clips: int
    rmse: float
    unreadable: int

    def metrics(self) -> dict[str, float]:
        """`closeness` is greater for better models, as `best_metric` must be."""
        return {"rmse": self.rmse, "closeness": -self.rmse}

    def table(self) -> str:
        """One line."""
        return f"{self.videos} videos, {self.clips} clips: RMSE {self.rmse:.4f}"

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


class Numbers(Results):
    """Predictions of every clip of every row, against `targets`."""

    best_metric = "closeness"

    def __init__(self, targets: Sequence[float], provenance: Mapping[str, object]) -> None:
        self.targets, self.provenance = list(targets), dict(provenance)
        self.clips: dict[int, list[float]] = {}
        self.unreadable: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, batch: Any, output: Any) -> list[int]:
        """A batch holds all clips of one or more videos."""
        known = set(self.clips)
        for row, value in zip(batch.rows, output.tolist(), strict=True):
            if row not in known:
                self.clips.setdefault(row, []).append(value)
        return [row for row in dict.fromkeys(batch.rows) if row not in known]

    def count_as_wrong(self, row: int, cause: str) -> None:
        """Unreadable videos are reported and leave the mean."""
        self.unreadable[row] = cause

    def finished(self) -> list[int]:
        return list(self.clips)

    def missing(self) -> list[int]:
        return [row for row in range(len(self)) if row not in self.clips and row not in self.unreadable]

    def dump(self, row: int) -> bytes:
        return np.asarray(self.clips[row], "<f8").tobytes()

    def load(self, row: int, data: bytes) -> None:
        self.clips.setdefault(row, np.frombuffer(data, "<f8").tolist())

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([self.targets, self.provenance], sort_keys=True).encode()).hexdigest()

    def summarise(self) -> Errors:
        if self.missing():
            raise ScoresError(f"{len(self.missing())} of {len(self)} videos have no prediction. Run the test again.")
        rows = sorted(self.clips)
        squares = [(float(np.mean(self.clips[row])) - self.targets[row]) ** 2 for row in rows]
        rmse = math.sqrt(sum(squares) / max(len(squares), 1))
        return Errors(len(rows), sum(len(self.clips[row]) for row in rows), rmse, len(self.unreadable))

    def save(self, folder: Path) -> Path:
        """predictions.json: a list of numbers for every row."""
        file = folder / "predictions.json"
        with replacing(file) as stream:
            stream.write(json.dumps({str(row): self.clips[row] for row in sorted(self.clips)}).encode())
        return file
