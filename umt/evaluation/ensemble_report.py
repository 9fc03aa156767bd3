"""What an ensemble is worth: its accuracy, its gain over the best member, and what each member adds to it.

Shapes: M members, R videos, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.evaluation.ensemble import Aligned
from umt.evaluation.fusing import Mode, Outcome, Values, normal
from umt.evaluation.multi_label import MultiLabelScores
from umt.evaluation.paired_bootstrap import Interval
from umt.evaluation.summary import Accuracy

# Members -> the weights (m,) of these members for each part of the videos, as (places, weights).
Weigh = Callable[[list[int]], list[tuple[NDArray[np.int64], Values]]]
_MODES: dict[Mode, str] = {"mean": "mean of probabilities", "logits": "mean of logits", "geometric": "geometric mean"}


@dataclass(frozen=True)
class MemberLine:
    """One member: alone, and what the ensemble is without it (None: nothing is left)."""

    name: str
    weight: float
    temperature: float
    alone: Accuracy | MultiLabelScores
    cross_entropy: float
    without: float | None  # top-1 of the others, or mAP
    adds: float | None  # top-1 of the ensemble less that


@dataclass(frozen=True)
class Report:
    """Numbers over `videos` videos, in percent and points; of a multi-label list mAP stands for top-1."""

    videos: int
    mode: str
    merged: Accuracy | MultiLabelScores
    interval: Interval  # 95 % bootstrap interval of the top-1
    cross_entropy: float
    best: str  # the member with the highest top-1 alone
    gain: float  # top-1 over it
    gain_interval: Interval  # 95 %, paired over videos
    members: list[MemberLine]
    weights: str  # where they come from
    notes: list[str]
    columns: tuple[tuple[str, str], ...]  # of the table: heading, and field of `merged` and `MemberLine.alone`

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "columns"}

    def table(self) -> str:
        """Aligned text for a console."""
        width = max(len(m.name) for m in self.members) + 2
        warm = any(m.temperature != 1 for m in self.members)

        def line(name: str, weight: str, temperature: str, numbers: list[str], last: str) -> str:
            cells = [f"{cell:>{max(8, len(head) + 2)}}" for cell, (head, _) in zip(numbers, self.columns, strict=True)]
            return "".join([f"{name:<{width}}{weight:>8}", f"{temperature:>6}" * warm, *cells, last])

        def numbers(accuracy: Accuracy | MultiLabelScores) -> list[str]:
            return [f"{getattr(accuracy, field):.2f}" for _, field in self.columns]

        lines = [line("", "weight", "T", [heading for heading, _ in self.columns], f"{'adds':>8}")]
        for m in self.members:
            adds = "" if m.adds is None else f"{m.adds:+.2f}"
            lines.append(line(m.name, f"{m.weight:.3f}", f"{m.temperature:.2f}", numbers(m.alone), f"{adds:>8}"))
        (low, high), (gain_low, gain_high) = self.interval, self.gain_interval
        interval = f"{'':>8}   95 % interval {low:.2f} to {high:.2f}"
        lines += [
            line("ensemble", "", "", numbers(self.merged), interval),
            f"gain over the best member ({self.best}): {self.gain:+.2f} points, "
            f"95 % interval {gain_low:+.2f} to {gain_high:+.2f}",
            f"{self.videos} videos; {self.mode}; weights: {self.weights}",
        ]
        return "\n".join([*lines, *self.notes])


def fixed(weights: Sequence[float] | None, members: int, videos: int) -> Weigh:
    """The same weights for all videos; None: equal ones."""
    shares = normal(weights, members)
    return lambda chosen: [(np.arange(videos), shares[chosen])]


def fused(
    aligned: Aligned, parts: Sequence[Values], mode: Mode, weigh: Weigh, members: Sequence[int] | None = None
) -> tuple[Values, NDArray[np.bool_]]:
    """Probabilities (R, K) of these members, by default of all, and (R,) whether any had a vote."""
    chosen = list(range(len(parts)) if members is None else members)
    probability, voted = np.empty_like(parts[0]), np.zeros(len(aligned), bool)
    for rows, weights in weigh(chosen):
        votes = aligned.read[chosen][:, rows]
        probability[rows], voted[rows] = aligned.fusing.fuse([parts[m][rows] for m in chosen], weights, mode, votes)
    return probability, voted


def report(
    aligned: Aligned,
    parts: Sequence[Values],
    *,
    mode: Mode,
    weigh: Weigh,
    shown: Values,
    source: str,
    temperatures: Sequence[float] | None = None,
) -> tuple[Report, Values, NDArray[np.bool_]]:
    """The report, and what it was computed from: probabilities (R, K), (R,) whether any member had a vote.

    `shown` (M,): the weights to print; `source`: where they come from. Raises ScoresError for a video without a label.
    """
    aligned.require_labels("so there is no accuracy")
    kind, labels, everyone = aligned.fusing, aligned.labels, range(len(parts))

    def outcome(weigh: Weigh, members: Sequence[int]) -> Outcome:
        return kind.outcome(*fused(aligned, parts, mode, weigh, members), labels)

    probability, voted = fused(aligned, parts, mode, weigh)
    ensemble = kind.outcome(probability, voted, labels)
    equal = fixed(None, len(parts), len(aligned))
    alone = [outcome(equal, [m]) for m in everyone]
    best = max(everyone, key=lambda m: (kind.headline(alone[m]), -alone[m].cross_entropy, -m))
    lines = []
    for m, member in enumerate(aligned.members):
        others = [other for other in everyone if other != m]
        without = None
        if others and any(weights.sum() > 0 for _, weights in weigh(others)):
            without = kind.headline(outcome(weigh, others))
        lines.append(
            MemberLine(
                member.name,
                weight=float(shown[m]),
                temperature=1.0 if temperatures is None else float(temperatures[m]),
                alone=alone[m].accuracy,
                cross_entropy=alone[m].cross_entropy,
                without=without,
                adds=None if without is None else kind.headline(ensemble) - without,
            )
        )
    interval, gain_interval = kind.intervals(ensemble, alone[best], labels)
    summary = Report(
        videos=len(aligned),
        mode=_MODES[mode],
        merged=ensemble.accuracy,
        interval=interval,
        cross_entropy=ensemble.cross_entropy,
        best=aligned.members[best].name,
        gain=kind.headline(ensemble) - kind.headline(alone[best]),
        gain_interval=gain_interval,
        members=lines,
        weights=source,
        notes=list(aligned.notes),
        columns=kind.columns,
    )
    return summary, probability, voted
