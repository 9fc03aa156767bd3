"""The results of a probe: a table for the console, results.json, scores for `umt ensemble`, and curves.png."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from umt.tools.probe.experiment import Outcome
from umt.writing import output_errors, whole

RESULTS, CURVES = "results.json", "curves.png"
_COLOURS = ("#2b8fd6", "#e0862f", "#9a6dd7", "#2f9e5b", "#d9534a", "#80868f")


def table(results: Mapping[str, Any]) -> str:
    """The content of results.json as aligned text."""
    rows = [
        (model["name"], probe["probe"], f"{probe['top1']:.2f}", "{:.1f} to {:.1f}".format(*probe["interval"]),
         f"{probe['top5']:.2f}", setting(probe["chosen"]), f"{probe['chosen']['top1']:.1f}")
        for model in results["models"] for probe in model["probes"]
    ]  # fmt: skip
    head = ("weights", "probe", "top-1", "95 % interval", "top-5", "chosen setting", "val top-1")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    left = (0, 1, 5)

    def line(row: Sequence[str]) -> str:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(cells).rstrip()

    views = results["views"]["test"]
    lines = [line(head), *map(line, rows)]
    lines.append(
        f"{results['videos']['test']} test videos, {views[0]} clip{'s' * (views[0] > 1)} x {views[1]} "
        f"crop{'s' * (views[1] > 1)}; trained on {results['videos']['train']}; settings chosen on {results['choice']}."
    )
    lines += results["notes"]
    return "\n".join(lines)


def setting(tried: Mapping[str, Any]) -> str:
    """A setting in words, without its results."""
    if "k" in tried:
        return f"k {tried['k']}, temperature {tried['temperature']:g}"
    return f"lr {tried['lr']:g}, weight decay {tried['weight_decay']:g}"


def write(folder: Path, results: Mapping[str, Any], outcomes: Sequence[Sequence[Outcome]]) -> None:
    """Everything into `folder`, results.json last: where it is, the probe has finished. OutputError if that fails."""
    with output_errors(f"--output ({folder})", "Free the disk or choose another."):
        folder.mkdir(parents=True, exist_ok=True)
        for number, of_model in enumerate(outcomes):
            for outcome in of_model:
                outcome.scores.save(folder / f"scores_{number}_{outcome.probe}.npz")
        (folder / CURVES).write_bytes(curves(results))
        with whole(folder / RESULTS) as place:
            place.write_text(json.dumps(results) + "\n", encoding="utf-8")


def curves(results: Mapping[str, Any]) -> bytes:
    """Top-1 on the videos of the choice: by k, by learning rate, and by epoch; a row of three for each model. PNG."""
    from umt import drawing

    models = results["models"]
    kinds = [probe["probe"] for probe in models[0]["probes"]]
    panels = [(kind, "settings") for kind in kinds] + [("attentive", "epochs")] * ("attentive" in kinds)
    figure, axes = drawing.figure(len(models), len(panels), (3.6 * len(panels), 2.9 * len(models)))
    for model, row in zip(models, axes, strict=True):
        probes = {probe["probe"]: probe for probe in model["probes"]}
        for (kind, what), axis in zip(panels, row, strict=True):
            decay = f", weight decay {probes[kind]['chosen']['weight_decay']:g}" if what == "epochs" else ""
            drawing.dress(axis, f"{model['name'][-28:]}: {kind}{decay}", points=7)
            draw = _epochs if what == "epochs" else _settings
            draw(axis, probes[kind])
            axis.legend(frameon=False, labelcolor=drawing.INK, fontsize=7)
    figure.supylabel("top-1 on the videos of the choice, %", color=drawing.INK, fontsize=9)
    return drawing.save(figure)


def _settings(axis: Any, probe: Mapping[str, Any]) -> None:
    x, other = ("k", "temperature") if probe["probe"] == "knn" else ("lr", "weight_decay")
    for colour, value in zip(_COLOURS, sorted({t[other] for t in probe["tried"]}), strict=False):
        line = sorted((t[x], t["top1"]) for t in probe["tried"] if t[other] == value)
        name = f"{other.replace('_', ' ')} {value:g}"
        axis.plot(*zip(*line, strict=True), color=colour, marker="o", markersize=3, label=name)
    ring = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "color": "#d9534a"}
    axis.plot(probe["chosen"][x], probe["chosen"]["top1"], **ring)
    axis.set_xscale("log")
    _label(axis, "neighbours" if x == "k" else "learning rate")


def _epochs(axis: Any, probe: Mapping[str, Any]) -> None:
    decay = probe["chosen"]["weight_decay"]
    shown = [i for i, t in enumerate(probe["tried"]) if t["weight_decay"] == decay]
    top1 = np.array([point["top1"] for point in probe["curve"]])
    epochs = [point["epoch"] for point in probe["curve"]]
    for colour, i in zip(_COLOURS, shown, strict=False):
        axis.plot(epochs, top1[:, i], color=colour, linewidth=1.4, label=f"lr {probe['tried'][i]['lr']:g}")
    _label(axis, "epoch")


def _label(axis: Any, text: str) -> None:
    from umt.drawing import INK

    axis.set_xlabel(text, color=INK, fontsize=8)
