"""`umt probe` from its parsed words: models, lists, features, experiments, results."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import umt
from umt import devices
from umt.applications.probe import report
from umt.applications.probe.experiment import Experiment, Outcome, Plan
from umt.applications.probe.features import (
    Frozen,
    Store,
    Views,
    Want,
    digest_of,
    encoder_of,
    extract,
    processes,
    recipe,
    token_grid,
)
from umt.applications.probe.linear import grid
from umt.applications.probe.lists import Lists, find
from umt.errors import ConfigError
from umt.inference.recognizer import Recognizer
from umt.models import create_model
from umt.models.description import Description
from umt.models.specs import Grid, find_spec
from umt.randomness import key

NONE = "none"
RANDOM = "random weights"


def run(words: argparse.Namespace, command: Sequence[str]) -> str:
    """Probes; returns what the console says. Raises UserError."""
    started = time.perf_counter()
    lists = find(
        words.data_path, train=words.train_list, val=words.val_list, test=words.test_list, prefix=words.prefix,
        split=words.split,
    )  # fmt: skip
    models = _models(words)
    plan = _plan(words)
    views = {"train": Views(words.train_clips), "test": Views(words.test_clips, words.test_crops)}
    if "val" in lists.videos:
        views["val"] = Views()
    want = _want(words, models, lists, views)
    notes = list(lists.notes)
    grid_ = encoder_of(models[0][1]).grid
    if want.tokens is not None and want.tokens != grid_:
        notes.append(f"Tokens were pooled from {_times(grid_)} to {_times(want.tokens)} (--token_grid, --max_gb).")
    recipes = [recipe(model, want, views, lists.videos) for _, model in models]
    labels = {name: videos.labels.tobytes() for name, videos in lists.videos.items()}
    about = {
        "plan": dataclasses.asdict(plan),
        "features": [digest_of(one) for one in recipes],
        "labels": {name: hashlib.sha256(text).hexdigest() for name, text in labels.items()},
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    done = _finished(words.output, digest)
    if done is not None:
        return f"{report.table(done)}\n{words.output / report.RESULTS} is of these very features and settings."
    kept = words.features or words.output / "features"
    sources = [
        (Frozen(model, want), _store(kept, model, want, one, lists))
        for (_, model), one in zip(models, recipes, strict=True)
    ]
    for split, videos in lists.videos.items():
        strict = split != "train" and not words.count_unreadable_as_wrong
        causes = extract(
            sources, split, videos, views[split], workers=processes(words.num_workers), batch_size=words.batch_size,
            strict=strict,
        )  # fmt: skip
        if causes:
            fate = "left out of the training" if split == "train" else "counted as wrong"
            notes.append(f"{len(causes)} {split} videos cannot be read and are {fate}, first: {causes[0]}")
    outcomes: list[list[Outcome]] = []
    device = devices.choose_device(words.device)
    for _, store in sources:
        experiment = Experiment(store, lists, views, plan, device)
        outcomes.append([experiment.run(probe) for probe in plan.probes])
    notes += [f"{m[0]}: {note}" for m, one in zip(models, outcomes, strict=True) for made in one for note in made.notes]
    results = {
        "umt": umt.__version__,
        "digest": digest,
        "command": list(command),
        "videos": {name: len(videos) for name, videos in lists.videos.items()},
        "views": {name: [one.clips, one.crops] for name, one in views.items()},
        "classes": lists.classes,
        "choice": lists.choice,
        "layer": words.layer,
        "seed": words.seed,
        "seconds": round(time.perf_counter() - started, 1),
        "models": [_of_model(*one) for one in zip(models, sources, outcomes, strict=True)],
        "notes": notes,
    }
    report.write(words.output, results, outcomes)
    return f"{report.table(results)}\nResults: {words.output / report.RESULTS}, curves: {words.output / report.CURVES}"


def _of_model(named: tuple[str, Recognizer], source: tuple[Frozen, Store], outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "name": named[0],
        "model": named[1].description.model,
        "features": source[1].digest,
        "weights": source[1].recipe["weights"],
        "probes": [made.to_json() for made in outcomes],
    }


def _finished(folder: Path, digest: str) -> dict[str, Any] | None:
    """The results in `folder`, if they are of the same features and settings."""
    try:
        content = json.loads((folder / report.RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("digest") == digest else None


def _models(words: argparse.Namespace) -> list[tuple[str, Recognizer]]:
    """Name and model for each --checkpoint, those without weights of the architecture of the first that has some."""
    asked = {"model": words.model, "num_frames": words.num_frames, "input_size": words.input_size,
             "tubelet_size": words.tubelet_size}  # fmt: skip
    asked = {name: value for name, value in asked.items() if value is not None}
    found: dict[int, Recognizer] = {}
    for place, source in enumerate(words.checkpoint):
        if source != NONE:
            one = umt.load(source, device=words.device, precision=words.precision, **asked)
            found[place] = _sampled(one, words.sampling)
    like = next(iter(found.values()), None)
    for place, source in enumerate(words.checkpoint):
        if source == NONE:
            found[place] = _random(words, asked, like)
    models = [found[place] for place in range(len(words.checkpoint))]
    first = models[0]
    for source, one in zip(words.checkpoint, models, strict=True):
        if one.views != first.views or encoder_of(one).grid != encoder_of(first).grid:
            raise ConfigError(
                f"{source} takes other clips or tokens than {words.checkpoint[0]} ({one.views} and {first.views}). "
                "Give all of them the same --num_frames, --input_size and --sampling, or probe them one by one."
            )
    return list(zip(_names(words.checkpoint), models, strict=True))


def _names(sources: Sequence[str]) -> list[str]:
    """Short names that differ: of paths as many last parts as that takes."""
    length = 1
    while length < 8:
        names = [RANDOM if s == NONE else "/".join(str(s).rstrip("/").split("/")[-length:]) for s in sources]
        if len(set(names)) == len(names):
            break
        length += 1
    return names


def _random(words: argparse.Namespace, asked: dict[str, Any], like: Recognizer | None) -> Recognizer:
    if like is not None:
        about = like.description
        arguments = dict(about.arguments)
    elif words.model:
        spec = find_spec(words.model)
        frames, size = words.num_frames or spec.num_frames or 8, words.input_size or spec.image_size
        arguments = {"image_size": size, "num_frames": frames}
        arguments |= {"tubelet_size": words.tubelet_size} if words.tubelet_size else {}
        about = Description(words.model, arguments, short_side_size=size)
    else:
        raise ConfigError("--checkpoint none wants --model NAME, or a checkpoint beside it for its architecture.")
    torch.manual_seed(key(words.seed, "weights"))
    built = create_model(about.model, **{k: v for k, v in arguments.items() if k != "num_classes"})
    device = devices.choose_device(words.device)
    precision = devices.choose_precision(words.precision, device)
    return _sampled(Recognizer(built, about, device=device, precision=precision), words.sampling)


def _sampled(model: Recognizer, sampling: str | None) -> Recognizer:
    if sampling is not None:
        model.views = dataclasses.replace(model.views, sampling=sampling)
        model.description = dataclasses.replace(model.description, sampling=sampling)  # type: ignore[arg-type]
    return model


def _plan(words: argparse.Namespace) -> Plan:
    plan = Plan()
    settings = {}
    for kind, usual in (("linear", plan.linear_settings), ("attentive", plan.attentive_settings)):
        lrs = getattr(words, f"{kind}_lr") or list(dict.fromkeys(one.lr for one in usual))
        decays = getattr(words, f"{kind}_weight_decay") or list(dict.fromkeys(one.weight_decay for one in usual))
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


def _want(
    words: argparse.Namespace, models: list[tuple[str, Recognizer]], lists: Lists, views: dict[str, Views]
) -> Want:
    model = encoder_of(models[0][1])
    if not -model.num_layers <= words.layer < model.num_layers:
        raise ConfigError(f"--layer ({words.layer}): the model has blocks 0..{model.num_layers - 1}.")
    if "attentive" not in words.probes:
        return Want(words.layer)
    grid_: Grid = model.grid
    if words.token_grid:
        asked = tuple(words.token_grid)
        if any(a > g for a, g in zip(asked, grid_, strict=True)):
            raise ConfigError(f"--token_grid ({_times(asked)}) is finer than the model's {_times(grid_)}.")
        return Want(words.layer, (asked[0], asked[1], asked[2]))
    clips = sum(len(videos) * views[name].count for name, videos in lists.videos.items()) * len(models)
    return Want(words.layer, token_grid(grid_, clips, model.num_features, words.max_gb * 1e9))


def _store(folder: Path, model: Recognizer, want: Want, about: dict[str, Any], lists: Lists) -> Store:
    rows = {name: len(videos) for name, videos in lists.videos.items()}
    tokens = 0 if want.tokens is None else want.tokens[0] * want.tokens[1] * want.tokens[2]
    return Store(folder, about, rows, encoder_of(model).num_features, tokens)


def _times(grid: Sequence[int]) -> str:
    return "x".join(map(str, grid))
