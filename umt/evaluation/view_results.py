"""A test from several views as `Results`: the logits of each view, in `ViewScores`, saved as scores.npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from umt.evaluation.answers import answers
from umt.evaluation.results import Results, Summary
from umt.evaluation.scores import ViewScores

SCORES_FILE = "scores.npz"


class ViewResults(Results):
    """Fills `scores`, which is empty and describes the test.

    Its fingerprint decides which partial results belong to this test, so its provenance must tell checkpoints apart
    (`umt.engine.evaluate.weights_digest`). A batch holds views of one or more videos, in any order.
    """

    def __init__(self, scores: ViewScores) -> None:
        self.scores = scores
        self.best_metric = answers(scores.multi_label).best_metric

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, batch: Any, output: Any) -> list[int]:
        """`batch`: views, by their `row`, `clip` and `crop` (B,); `output`: their logits (B, K)."""
        logits = output.float().cpu().numpy()  # the only place that waits for the device
        new: dict[int, bool] = {}
        for row, clip, crop, view in zip(
            batch.row.tolist(), batch.clip.tolist(), batch.crop.tolist(), logits, strict=True
        ):
            new[row] = self.scores.add(row, clip, crop, view) or new.get(row, False)
        return [row for row, is_new in new.items() if is_new and self.scores.seen[self.scores.place(row)].all()]

    def count_as_wrong(self, row: int, cause: str) -> None:
        """See `Results`."""
        self.scores.count_as_wrong(row, cause)

    def finished(self) -> list[int]:
        """Rows of which every view is there."""
        return self.scores.finished()

    def missing(self) -> list[tuple[int, int, int]]:
        """Views (row, clip, crop) that are not there."""
        return self.scores.missing()

    def dump(self, row: int) -> bytes:
        """The logits (S, C, K) of a video, as little-endian float32."""
        return np.ascontiguousarray(self.scores.logits[self.scores.place(row)], "<f4").tobytes()

    def load(self, row: int, data: bytes) -> None:
        """See `Results`."""
        shape = self.scores.logits.shape[1:]
        self.scores.add_video(row, np.frombuffer(data, "<f4").reshape(shape))

    def fingerprint(self) -> str:
        """See `Results`."""
        return self.scores.fingerprint()

    def summarise(self) -> Summary:
        """See `Results`."""
        summary: Summary = answers(self.scores.multi_label).summarise(self.scores)
        return summary

    def save(self, folder: Path) -> Path:
        """Writes scores.npz, from which every number can be computed again."""
        file = folder / SCORES_FILE
        self.scores.save(file)
        return file
