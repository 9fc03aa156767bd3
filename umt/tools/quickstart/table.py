"""The quickstart's closing table: chance, frozen and finetuned, from random weights and pretrained."""

from __future__ import annotations

from typing import Any

from umt.evaluation.paired_bootstrap import accuracy_gain
from umt.tools.quickstart.finished import TESTED, Finished

_PROBES = {"knn": "kNN", "linear": "linear", "attentive": "attentive"}


def table_rows(finished: Finished) -> list[dict[str, Any]]:
    """Name, percents (top-1, top-5) per view and merged, and the 95 % interval of the merged top-1."""
    count = len(finished.classes)
    chance = (100 / count, min(500 / count, 100))
    rows: list[dict[str, Any]] = [{"name": "chance", "per_view": chance, "merged": chance, "interval": None}]
    for run, weights in (("scratch", "random"), ("finetune", "student")):
        rows += _probe_rows(finished, weights)
        test = finished.tests[run].summary
        rows.append(
            {
                "name": TESTED[run],
                "per_view": (test.per_view.top1, test.per_view.top5),
                "merged": (test.merged.top1, test.merged.top5),
                "interval": test.interval,
            }
        )
    return rows


def _probe_rows(finished: Finished, weights: str) -> list[dict[str, Any]]:
    """The probes of frozen weights, "random" or "student"."""
    models = finished.probes["models"]
    model = next(m for m in models if (m["name"] == "random weights") == (weights == "random"))
    return [
        {
            "name": f"{weights}, {_PROBES[probe['probe']]}",
            "per_view": tuple(probe["per_view"]),
            "merged": (probe["top1"], probe["top5"]),
            "interval": tuple(probe["interval"]),
        }
        for probe in model["probes"]
    ]


def margin(finished: Finished) -> tuple[float, float, float]:
    """Points of merged top-1 that pretraining adds, and their 95 % bootstrap interval over the same videos."""
    pretrained, scratch = (finished.tests[run] for run in TESTED)
    points = pretrained.summary.merged.top1 - scratch.summary.merged.top1
    return points, *accuracy_gain(pretrained.correct, scratch.correct)


def table(finished: Finished) -> str:
    """The table as text."""
    test = finished.tests["finetune"].summary
    views = f"merged, {test.clips} clips x {test.crops} crops"
    lines = [
        f"{'':<20}{'per view':^16}{views:^36}".rstrip(),
        f"{'':<20}{'top-1':>8}{'top-5':>8}{'top-1':>10}{'95 % interval':>16}{'top-5':>8}",
    ]
    for row in table_rows(finished):
        interval = f"{row['interval'][0]:.1f} to {row['interval'][1]:.1f}" if row["interval"] else ""
        (view1, view5), (top1, top5) = row["per_view"], row["merged"]
        lines.append(f"{row['name']:<20}{view1:>8.2f}{view5:>8.2f}{top1:>10.2f}{interval:>16}{top5:>8.2f}")
    lines.append("kNN, linear, attentive: probes of frozen features, of random weights and of the pretrained student.")
    points, low, high = margin(finished)
    lines.append(
        f"With finetuning, pretraining adds {points:+.1f} points of merged top-1 (95 % interval {low:+.1f} to "
        f"{high:+.1f})."
    )
    if finished.seconds:
        lines.append("Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in finished.seconds.items()) + ".")
    return "\n".join(lines)
