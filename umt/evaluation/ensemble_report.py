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

from umt.errors import ScoresError
from umt.evaluation.ensemble import Aligned, Mode, Outcome, Values, fuse, gain_interval, normal, outcome
from umt.evaluation.metrics import bootstrap_interval
from umt.evaluation.summary import Accuracy

# Members -> the weights (m,) of these members for each part of the videos, as (places, weights).
Weigh = Callable[[list[int]], list[tuple[NDArray[np.int64], Values]]]


@dataclass(frozen=True)
class MemberLine:
    """One member: alone, and what the ensemble is without it (None: nothing is left)."""

    name: str
    weight: float
    temperature: float
    alone: Accuracy
    cross_entropy: float
    without: float | None  # top-1 of the others
    adds: float | None  # top-1 of the ensemble less that


@dataclass(frozen=True)
class Report:
    """Numbers over `videos` videos, in percent and points."""

    videos: int
    mode: str
    merged: Accuracy
    interval: tuple[float, float]  # 95 % bootstrap interval of the top-1
    cross_entropy: float
    best: str  # the member with the highest top-1 alone
    gain: float  # top-1 over it
    gain_interval: tuple[float, float]  # 95 %, paired over videos
    members: list[MemberLine]
    weights: str  # where they come from
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """Aligned text for a console."""
        width = max(len(m.name) for m in self.members) + 2
        warm = any(m.temperature != 1 for m in self.members)
        lines = [
            f"{'':<{width}}{'weight':>8}{'T' if warm else '':>{6 if warm else 0}}{'top-1':>8}{'top-5':>8}{'adds':>8}"
        ]
        for m in self.members:
            adds = "" if m.adds is None else f"{m.adds:+.2f}"
            shown = f"{m.temperature:>6.2f}" if warm else ""
            lines.append(f"{m.name:<{width}}{m.weight:>8.3f}{shown}{m.alone.top1:>8.2f}{m.alone.top5:>8.2f}{adds:>8}")
        gap = " " * (6 if warm else 0)
        low, high = self.interval
        lines.append(
            f"{'ensemble':<{width}}{'':>8}{gap}{self.merged.top1:>8.2f}{self.merged.top5:>8.2f}{'':>8}"
            f"   95 % interval {low:.2f} to {high:.2f}"
        )
        low, high = self.gain_interval
        lines.append(
            f"gain over the best member ({self.best}): {self.gain:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
        )
        lines.append(f"{self.videos} videos; {self.mode}; weights: {self.weights}")
        return "\n".join([*lines, *self.notes])


def given(weights: Sequence[float] | None, members: int, videos: int) -> Weigh:
    """Fixed weights, for all videos."""
    whole = normal(weights, members)
    return lambda chosen: [(np.arange(videos), whole[chosen])]


def fused(
    parts: Sequence[Values], read: NDArray[np.bool_], mode: Mode, weigh: Weigh, members: list[int]
) -> tuple[Values, NDArray[np.bool_]]:
    """Probabilities (R, K) of these members, and (R,) whether any had a vote."""
    probability, voted = np.empty_like(parts[0]), np.zeros(len(parts[0]), bool)
    for rows, weights in weigh(members):
        chosen = [parts[m][rows] for m in members]
        probability[rows], voted[rows] = fuse(chosen, weights, mode, read[members][:, rows])
    return probability, voted


def report(
    aligned: Aligned,
    parts: Sequence[Values],
    *,
    mode: Mode,
    weigh: Weigh,
    shown: Values,
    said: str,
    temperatures: Sequence[float] | None = None,
) -> tuple[Report, Values, NDArray[np.bool_]]:
    """The report, and what it was made from: probabilities (R, K), (R,) whether any member had a vote.

    `shown` (M,): the weights to print; `said`: where they come from. Raises ScoresError for a video without a label.
    """
    bare = np.flatnonzero(aligned.labels < 0)
    if bare.size:
        raise ScoresError(
            f"{aligned.members[0].paths[bare[0]]} has no label ({bare.size} such videos), so there is no accuracy."
        )
    everyone = list(range(len(parts)))
    probability, voted = fused(parts, aligned.read, mode, weigh, everyone)
    whole = outcome(probability, voted, aligned.labels)
    alone = [_alone(aligned, parts[m], mode, m) for m in everyone]
    best = max(everyone, key=lambda m: (alone[m].accuracy.top1, -alone[m].cross_entropy, -m))
    right, its = whole.rank == 0, alone[best].rank == 0
    lines = []
    for m, member in enumerate(aligned.members):
        others = [o for o in everyone if o != m]
        without = None
        if others and any(w.sum() > 0 for _, w in weigh(others)):
            without = outcome(*fused(parts, aligned.read, mode, weigh, others), aligned.labels).accuracy.top1
        adds = None if without is None else whole.accuracy.top1 - without
        temperature = 1.0 if temperatures is None else float(temperatures[m])
        lines.append(
            MemberLine(
                member.name, float(shown[m]), temperature, alone[m].accuracy, alone[m].cross_entropy, without, adds
            )
        )
    made = Report(
        videos=len(aligned),
        mode={"mean": "mean of probabilities", "logits": "mean of logits", "geometric": "geometric mean"}[mode],
        merged=whole.accuracy,
        interval=bootstrap_interval(right),
        cross_entropy=whole.cross_entropy,
        best=aligned.members[best].name,
        gain=whole.accuracy.top1 - alone[best].accuracy.top1,
        gain_interval=gain_interval(right, its),
        members=lines,
        weights=said,
        notes=list(aligned.notes),
    )
    return made, probability, voted


def _alone(aligned: Aligned, part: Values, mode: Mode, member: int) -> Outcome:
    return outcome(*fuse([part], None, mode, aligned.read[[member]]), aligned.labels)
