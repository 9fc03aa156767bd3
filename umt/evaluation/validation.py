"""A validation from one view of each video as `Results`: a loss, and what the accuracies need, of each row.

Shapes: B clips, K classes, N rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from umt.errors import ScoresError
from umt.evaluation.answers import answers
from umt.evaluation.metrics import top_k
from umt.evaluation.multi_label import MultiLabelScores
from umt.evaluation.results import Results

_NAN = float("nan")


@dataclass(frozen=True)
class Validation:
    """Mean loss and accuracies (percent) over `videos` videos, each of which counted once.

    `unreadable` of them could not be read: they are wrong, and have no part in the loss. `many`: of a multi-label list,
    which has no accuracies (nan); unreadable videos have no part in it either.
    """

    loss: float
    acc1: float
    acc5: float
    videos: int
    unreadable: int = 0
    many: MultiLabelScores | None = None

    def metrics(self) -> dict[str, float]:
        """The numbers by name, as a log has them."""
        if self.many is None:
            numbers = {"loss": self.loss, "acc1": self.acc1, "acc5": self.acc5}
        else:
            many = self.many
            numbers = {"loss": self.loss, "map": many.map, "f1_micro": many.f1_micro, "f1_macro": many.f1_macro}
        return {**numbers, **({"unreadable": self.unreadable} if self.unreadable else {})}

    def table(self) -> str:
        """The numbers as a line of text."""
        return f"{self.videos} videos: " + ", ".join(f"{name} {value:.4g}" for name, value in self.metrics().items())

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and dicts."""
        return dataclasses.asdict(self)


class ValidationScores(Results):
    """What one view of each of `videos` videos gives. Only the main process's, after gathering, is complete.

    Of a list with one class per video a row has (loss, rank of its class); of a multi-label list it has (loss,
    probabilities (K,), labels (K,)).
    """

    def __init__(self, videos: int, *, multi_label: bool = False) -> None:
        self.videos = videos
        self.multi_label = multi_label
        self.best_metric = answers(multi_label).best_metric
        self.unreadable: dict[int, str] = {}
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._waiting: list[tuple[Tensor, Tensor]] = []  # rows, and what is still on the device

    def __len__(self) -> int:
        return self.videos

    def take(self, batch: Any, output: Any) -> Sequence[int]:
        """`batch`: clips, by their `row` (B,), with `label` (B,) or (B, K); `output`: their logits (B, K).

        Nothing waits for the device here. Raises ScoresError for a row without a label.
        """
        logits, label = output.float(), batch.label.to(output.device)
        if self.multi_label:
            loss = F.binary_cross_entropy_with_logits(logits, label, reduction="none").mean(1)
            values = torch.cat([loss[:, None], logits.sigmoid(), label], 1)
        else:
            _refuse_unlabelled(batch, logits.shape[-1])
            loss = F.cross_entropy(logits, label, reduction="none")
            values = torch.stack([loss, _ranks(logits, label).float()], 1)
        self._waiting.append((batch.row, values))
        return batch.row.tolist()

    def count_as_wrong(self, row: int, cause: str) -> None:
        """See `Results`."""
        self.unreadable[row] = cause

    def finished(self) -> list[int]:
        """See `Results`."""
        return list(self._table())

    def missing(self) -> list[int]:
        """How many rows are missing is known, which ones is not: the list is not here."""
        return list(range(self.videos - len({*self._table(), *self.unreadable})))

    def dump(self, row: int) -> bytes:
        """The numbers of a row, as little-endian float32."""
        return self._table()[row].astype("<f4").tobytes()

    def load(self, row: int, data: bytes) -> None:
        """See `Results`."""
        self._table().setdefault(row, np.frombuffer(data, "<f4"))

    def fingerprint(self) -> str:
        """Nothing of a validation is kept, so nothing is told apart."""
        return ""

    def summarise(self) -> Validation:
        """See `Results`; the numbers do not depend on which process had which row."""
        rows = dict(sorted(self._table().items()))
        lost = len(self.unreadable.keys() - rows.keys())
        total = len(rows) + lost
        if total != self.videos:
            raise ScoresError(
                f"validation has results for {total} of {self.videos} videos: no accuracy over a part of the list."
            )
        if not rows:
            raise ScoresError("validation read no video; check the list that --data_path gives for validation.")
        values = np.stack(list(rows.values()))
        loss = float(values[:, 0].mean(dtype=np.float64))
        if self.multi_label:
            probability, truth = np.split(values[:, 1:], 2, axis=1)
            return Validation(loss, _NAN, _NAN, total, lost, MultiLabelScores.of(probability, truth > 0))
        acc1, acc5 = (top_k(values[:, 1].astype(np.int64), k) * len(rows) / total for k in (1, 5))
        return Validation(loss, acc1, acc5, total, lost)

    def _table(self) -> dict[int, NDArray[np.float32]]:
        """Row -> its numbers. A row that a sampler repeats has those of its first turn."""
        if self._waiting:
            rows = torch.cat([row for row, _ in self._waiting]).tolist()
            values = torch.cat([part for _, part in self._waiting]).float().cpu().numpy()
            self._waiting = []
            for row, numbers in zip(rows, values, strict=True):
                self._rows.setdefault(row, numbers)
        return self._rows


def _ranks(logits: Tensor, label: Tensor) -> Tensor:
    """`metrics.label_rank` on the device: logits (B, K), label (B,) -> (B,)."""
    true = logits.gather(1, label[:, None])
    lower = torch.arange(logits.shape[1], device=logits.device) < label[:, None]
    rank = ((logits > true) | ((logits == true) & lower)).sum(1)
    return torch.where(logits.isnan().any(1), logits.shape[1], rank)


def _refuse_unlabelled(batch: Any, classes: int) -> None:
    bad = ((batch.label < 0) | (batch.label >= classes)).nonzero()
    if len(bad):
        i = int(bad[0])
        raise ScoresError(
            f"{batch.paths[i] if batch.paths else f'row {int(batch.row[i])}'}: label {int(batch.label[i])} is outside "
            f"0..{classes - 1}; validation needs a label for every video."
        )
