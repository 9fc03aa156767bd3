"""What `umt verify` reports about a test: its number, and what its scores show beyond that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umt.tools.verify.verdict import Verdict
from umt.tools.verify.zoo import Row


@dataclass(frozen=True)
class Report:
    """A finished verification, as verify.json holds it."""

    row: Row
    metric: str  # top-1, or mAP of a multi-label list
    measured: float
    interval: tuple[float, float] | None  # 95 %; None of mAP
    videos: int
    unreadable: int
    clips: int
    crops: int
    provenance: dict[str, Any]
    verdict: Verdict
    compared: str = ""  # with the scores of another run, video by video
    hint: str = ""

    def table(self) -> str:
        row, verdict = self.row, self.verdict
        interval = "" if self.interval is None else "   95 % interval {:.2f} to {:.2f}".format(*self.interval)
        frames = f"{row.flags['num_frames']} frames, " if "num_frames" in row.flags else ""
        allowance = ""
        if verdict.allowance:
            missing = (row.videos or 0) - self.videos
            allowance = (
                f" = {verdict.tolerance - verdict.allowance:g} + {verdict.allowance:.2f} for {missing} missing videos"
            )
        lines = [
            f"{row.name}, {frames}{self.clips} clips x {self.crops} crops, {self.metric}",
            f"{'measured':<12}{self.measured:>7.2f}{interval}",
            f"{'expected':<12}{row.top1:>7.2f}   {row.source}",
            f"{'difference':<12}{verdict.difference:>+7.2f}   tolerance {verdict.tolerance:.2f}{allowance}",
            f"{'videos':<12}{self.videos:>7}" + (f"   of {row.videos}" if row.videos else ""),
        ]
        if self.unreadable:
            lines.append(f"{'unreadable':<12}{self.unreadable:>7}   count as wrong")
        lines += [f"{'answers':<12}{self.compared}"] if self.compared else []
        lines += [f"note: {row.decided}"] if row.decided else []
        return "\n".join([*lines, f"verdict: {verdict.word}", *filter(None, (verdict.why, self.hint))])


def headline(tested: Mapping[str, Any]) -> tuple[str, float]:
    """What the number of a test.json is called, and the number in percent: merged top-1, or mAP."""
    from umt.evaluation.fusing import fusing

    heading, field = fusing(multi_label=tested.get("multi_label", False)).columns[0]
    return heading, float(tested["merged"][field])


def compared(output: Path, test: Path) -> str:
    """How many videos were answered differently in the run of this test.json, if its scores are of the same videos."""
    from umt.evaluation.ensemble import align
    from umt.evaluation.score_files import read_scores
    from umt.evaluation.scores import ScoresError

    other = test.parent / "scores.npz"
    if not other.is_file() or other.resolve() == (output / "scores.npz").resolve():
        return ""
    try:
        both = align([read_scores(other), read_scores(output / "scores.npz")], common=True)
    except ScoresError:  # of other videos or labels: the numbers of videos and the verdict show it
        return ""
    kind = both.fusing
    before, now = (kind.outcome(p, read, both.labels) for p, read in zip(both.values("mean"), both.read, strict=True))
    answers = (kind.answer(outcome.probability) for outcome in (before, now))
    changed = np.not_equal(*answers).any(axis=1)
    gained, lost = (int((changed & outcome.right).sum()) for outcome in (now, before))
    here, there = f"{gained} right only here", f"{lost} only there"
    return f"{int(changed.sum()):>7}   of {len(both)} differ from that run's: {here}, {there}"


def renumbered(output: Path, expected: float, measured: float) -> str:
    """A hint for a number that is too low because the list numbers its classes differently than the weights."""
    from umt.evaluation.multiview import merge
    from umt.evaluation.scores import ViewScores

    scores = ViewScores.load(output / "scores.npz")
    if measured >= expected or scores.multi_label or len(scores) < 2 * scores.classes:  # a short list fits any order
        return ""
    counts = np.zeros((scores.classes, scores.classes), np.int64)
    np.add.at(counts, (merge(scores.logits).argmax(axis=1), scores.labels), 1)
    best = 100 * float(counts.max(axis=1).sum()) / len(scores)
    if best < measured + 0.5 * (expected - measured):
        return ""
    moved = int((counts.argmax(axis=1) != np.arange(scores.classes))[counts.sum(axis=1) > 0].sum())
    return (
        f"With the classes of the list renumbered it would be {best:.1f}: the list gives {moved} classes another "
        "number than the weights do. Are its labels in the order of the weights (docs/data.md)?"
    )
