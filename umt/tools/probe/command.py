"""`umt probe` from its parsed words: what features there are, experiments on them, results."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import umt
from umt import devices
from umt.tools.probe import report
from umt.tools.probe.experiment import Experiment, Outcome, Plan
from umt.tools.probe.features import Kept, digest_of, plain
from umt.tools.probe.linear import grid
from umt.tools.probe.sources import from_features, from_videos


def run(words: argparse.Namespace, command: Sequence[str]) -> str:
    """Probes; returns the text for the console. Raises UserError."""
    started = time.perf_counter()
    plan = _plan(words)
    source = from_features(words) if words.features else from_videos(words)
    lists = source.lists
    labels = {name: videos.labels.tobytes() for name, videos in lists.videos.items()}
    about = {
        "plan": dataclasses.asdict(plan),
        "features": [digest_of(recipe) for _, recipe in source.recipes],
        "labels": {name: hashlib.sha256(text).hexdigest() for name, text in labels.items()},
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    done = _finished(words.output, digest)
    if done is not None:
        return f"{report.table(done)}\n{words.output / report.RESULTS} is of these very features and settings."
    kept = source.keep(words.output / "features")
    device = devices.choose_device(words.device)
    outcomes: list[list[Outcome]] = []
    for features in kept:
        experiment = Experiment(features, lists, source.views, plan, device)
        outcomes.append([experiment.run(probe) for probe in plan.probes])
    names = [name for name, _ in source.recipes]
    notes = [
        f"{name}: {note}"
        for name, of_model in zip(names, outcomes, strict=True)
        for outcome in of_model
        for note in outcome.notes
    ]
    results = {
        "umt": umt.__version__,
        "digest": digest,
        "command": list(command),
        "videos": {name: len(videos) for name, videos in lists.videos.items()},
        "views": plain(source.views),
        "classes": lists.classes,
        "choice": lists.choice,
        "seed": words.seed,
        "seconds": round(time.perf_counter() - started, 1),
        "models": [_of_model(*model) for model in zip(names, kept, outcomes, strict=True)],
        "notes": [*lists.notes, *notes],
    }
    report.write(words.output, results, outcomes)
    return f"{report.table(results)}\nResults: {words.output / report.RESULTS}, curves: {words.output / report.CURVES}"


def _of_model(name: str, kept: Kept, outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "name": name,
        "features": kept.digest,
        "recipe": kept.recipe,
        "probes": [outcome.to_json() for outcome in outcomes],
    }


def _finished(folder: Path, digest: str) -> dict[str, Any] | None:
    """The results in `folder`, if they are of the same features and settings."""
    try:
        content = json.loads((folder / report.RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("digest") == digest else None


def _plan(words: argparse.Namespace) -> Plan:
    plan = Plan()
    settings = {}
    for kind, usual in (("linear", plan.linear_settings), ("attentive", plan.attentive_settings)):
        lrs = getattr(words, f"{kind}_lr") or list(dict.fromkeys(setting.lr for setting in usual))
        decays = getattr(words, f"{kind}_weight_decay")
        decays = decays or list(dict.fromkeys(setting.weight_decay for setting in usual))
        settings[kind] = tuple(grid(lrs, decays))
    return Plan(
        tuple(dict.fromkeys(words.probes)),
        tuple(words.knn_k or plan.neighbours),
        tuple(words.knn_temperature or plan.temperatures),
        settings["linear"],
        words.linear_epochs,
        settings["attentive"],
        words.attentive_epochs,
        words.seed,
    )
