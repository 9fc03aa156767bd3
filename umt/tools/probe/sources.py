"""Where features come from: models and videos, of which they are made in one pass, or folders of `umt extract`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from umt import devices
from umt.data.lists.video_list import VideoList
from umt.data.loading.loaders import Workers
from umt.errors import AnnotationError, ConfigError, VideoError
from umt.inference import feature_files, features
from umt.inference.feature_files import Row
from umt.inference.feature_folder import Unread
from umt.inference.recognizer import Recognizer
from umt.models import create_model
from umt.models.files.description import Description
from umt.models.specs import Grid, find_spec
from umt.randomness import key
from umt.tools.probe.features import (
    Frozen,
    Kept,
    Views,
    Want,
    encoder_of,
    extract,
    plain,
    recipe_of,
    token_grid,
    unit,
)
from umt.tools.probe.lists import Lists, find, settled
from umt.tools.recognizer_flags import SAMPLING, given, load_recognizer, workers_for

NONE = "none"
RANDOM = "random weights"


@dataclass
class Source:
    """What there is to probe. `recipes`: name of each model, and what decides its features; `keep(folder)` makes the
    features themselves, below `folder`, and adds to `lists.notes` what a person should know."""

    lists: Lists
    views: dict[str, Views]
    recipes: list[tuple[str, dict[str, Any]]]
    keep: Callable[[Path], list[Kept]]


# ---- models and videos


def from_videos(words: argparse.Namespace) -> Source:
    """Raises UserError."""
    lists = find(
        words.data_path, train=words.train_list, val=words.val_list, test=words.test_list, prefix=words.prefix,
        split=words.split,
    )  # fmt: skip
    models = _models(words)
    views = {"train": Views(words.train_clips), "test": Views(words.test_clips, words.test_crops)}
    if "val" in lists.videos:
        views["val"] = Views()
    want = _want(words, models, lists, views)
    whole = encoder_of(models[0][1]).grid
    if want.tokens is not None and want.tokens != whole:
        lists.notes.append(
            f"Tokens were pooled from {_times(whole)} to {_times(want.tokens)} (--token_grid, --max_gb)."
        )
    recipes = [(name, recipe_of(model, want, views, lists.videos)) for name, model in models]

    def keep(folder: Path) -> list[Kept]:
        rows = {name: len(videos) for name, videos in lists.videos.items()}
        tokens = 0 if want.tokens is None else math.prod(want.tokens)
        kept = [
            Kept(folder, recipe, rows, encoder_of(model).num_features, tokens)
            for (_, model), (_, recipe) in zip(models, recipes, strict=True)
        ]
        sources = [(Frozen(model, want), store) for (_, model), store in zip(models, kept, strict=True)]
        for split in lists.videos:
            _pass(words, sources, split, lists, views[split])
        return kept

    return Source(lists, views, recipes, keep)


def _pass(
    words: argparse.Namespace, sources: list[tuple[Frozen, Kept]], split: str, lists: Lists, views: Views
) -> None:
    """The features of one list. Raises VideoError for a test video that cannot be read, unless it counts as wrong."""
    videos = lists.videos[split]

    def refuse(failure: Unread) -> None:
        if split != "train" and not words.count_unreadable_as_wrong:
            raise VideoError(
                f"{failure.cause} It is row {failure.row} of {videos.source}, counted from 0. "
                "Mend it, take it off the list, or give --count_unreadable_as_wrong."
            )

    on_gpu = sources[0][0].recognizer.device.type == "cuda"
    workers = Workers(workers_for(words, len(videos), on_gpu), timeout=words.decode_timeout)
    failures = extract(sources, split, videos, views, workers=workers, on_failure=refuse)
    if failures:
        fate = "left out of the training" if split == "train" else "counted as wrong"
        first = failures[0].cause
        lists.notes.append(f"{len(failures)} {split} videos cannot be read and are {fate}, first: {first}")


def _models(words: argparse.Namespace) -> list[tuple[str, Recognizer]]:
    """Name and model for each --checkpoint, those without weights of the architecture of the first that has some."""
    loaded = {
        source: load_recognizer(words, words.device, source=source) for source in words.checkpoint if source != NONE
    }
    like = next(iter(loaded.values()), None)
    models = [_random(words, like) if source == NONE else loaded[source] for source in words.checkpoint]
    first = models[0]
    for source, model in zip(words.checkpoint, models, strict=True):
        for what, value in _taken(model).items():
            other = _taken(first)[what]
            if value != other:
                raise ConfigError(
                    f"{source} takes other clips than {words.checkpoint[0]}: {what} {value}, not {other}. Give all of "
                    "them the same --num_frames, --input_size and --sampling, or probe them one by one."
                )
    return list(zip(_names(words.checkpoint), models, strict=True))


def _taken(model: Recognizer) -> dict[str, Any]:
    """What of its clips decides whether another model can share them."""
    views = model.views
    return {
        "num_frames": views.num_frames,
        "input_size": views.input_size,
        "short_side_size": views.short_side_size,
        "sampling": views.sampling,
        "sampling_rate": views.sampling_rate if views.sampling == "dense" else None,
        "tokens": _times(encoder_of(model).grid),
    }


def _names(sources: Sequence[str]) -> list[str]:
    """Short names that differ: of paths as many last parts as that takes."""
    length = 1
    while length < 8:
        names = [RANDOM if s == NONE else "/".join(str(s).rstrip("/").split("/")[-length:]) for s in sources]
        if len(set(names)) == len(names):
            break
        length += 1
    return names


def _random(words: argparse.Namespace, like: Recognizer | None) -> Recognizer:
    if like is not None:
        about = like.description
        arguments = dict(about.arguments)
    elif words.model:
        spec = find_spec(words.model)
        frames, size = words.num_frames or spec.num_frames or 8, words.input_size or spec.image_size
        arguments = {"image_size": size, "num_frames": frames}
        arguments |= {"tubelet_size": words.tubelet_size} if words.tubelet_size else {}
        about = Description(words.model, arguments, **{"short_side_size": size, **given(words, *SAMPLING)})
    else:
        raise ConfigError("--checkpoint none needs --model NAME, or a checkpoint next to it for its architecture.")
    torch.manual_seed(key(words.seed, "weights"))
    built = create_model(about.model, **{k: v for k, v in arguments.items() if k != "num_classes"})
    device = devices.choose_device(words.device)
    precision = devices.choose_precision(words.precision, device)
    return Recognizer(
        built, about, device=device, precision=precision, batch_size=words.batch_size, decoder=words.decoder
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


def _times(grid: Sequence[int]) -> str:
    return "x".join(map(str, grid))


# ---- folders of umt extract


def from_features(words: argparse.Namespace) -> Source:
    """--features DIR: what `umt extract` wrote into DIR/train, DIR/test and, if there is one, DIR/val.

    Raises ConfigError for features of different recipes, and FeaturesError for those that are missing or damaged.
    """
    folders = {name: words.features / name for name in ("train", "val", "test") if (words.features / name).is_dir()}
    for name in ("train", "test"):
        if name not in folders:
            raise ConfigError(
                f"--features ({words.features}) has no folder {name}. Run umt extract {name}.csv --output "
                f"{words.features / name}, for train, test and, if there is one, val."
            )
    recipes = {name: features.recipe(folder) for name, folder in folders.items()}
    first = recipes["train"]
    for name, recipe in recipes.items():
        for part in ("weights_digest", "layers", "pool"):
            if recipe.get(part) != first.get(part):
                raise ConfigError(
                    f"{folders[name]} is of another {part.replace('_digest', '')} than {folders['train']}. "
                    "Extract all of them from one checkpoint with the same --layer and --pool."
                )
        if recipe["frames"]["clips"] is None:
            raise ConfigError(f"{folders[name]} has sliding windows, of which no two videos have as many. Use --clips.")
    if first["pool"] not in ("none", "spatial") and "attentive" in words.probes:
        raise ConfigError(
            f"--features ({words.features}) has one feature per clip, and an attentive probe needs tokens. Give "
            "--probes knn linear, or extract with --pool none."
        )
    notes: list[str] = []
    videos, places = {}, {}
    for name, folder in folders.items():
        videos[name], places[name] = _listed(name, folder, recipes[name], notes)
    views = {name: Views(recipe["frames"]["clips"], recipe["frames"]["crops"]) for name, recipe in recipes.items()}
    about = {"views": plain(views), "weights": first["weights_digest"], "extract": recipes}

    def keep(folder: Path) -> list[Kept]:
        return [_copied(folder, folders, about, places)]

    return Source(settled(videos, None, notes), views, [(Path(str(first["checkpoint"])).name, about)], keep)


def _listed(name: str, folder: Path, recipe: dict[str, Any], notes: list[str]) -> tuple[VideoList, dict[int, int]]:
    """The list that the features are of, and row of that list -> place among those that have features."""
    rows = [(row.row, row.path, row.label) for row in feature_files.rows(folder, recipe["format"], [])]
    missing = recipe["rows"]["count"] - len(rows)
    if missing and name != "train":
        raise AnnotationError(
            f"{folder} lacks {missing} of {recipe['rows']['count']} videos. Mend them (failures.jsonl names those that "
            "cannot be read), and run the same umt extract again."
        )
    if missing:
        notes.append(f"{missing} training videos have no features and are left out.")
    labels = [label for _, _, label in rows]
    if min(labels, default=-1) < 0:
        raise AnnotationError(f"{folder}: some videos have no label, and a probe needs all of them.")
    if recipe["list"].get("multi_label"):
        raise AnnotationError(f"{folder} has several labels per video, and a probe knows one class per video.")
    videos = VideoList(str(folder), [path for _, path, _ in rows], labels, class_names=recipe["list"].get("classes"))
    return videos, {row: place for place, (row, _, _) in enumerate(rows)}


def _copied(folder: Path, folders: dict[str, Path], about: dict[str, Any], places: dict[str, dict[int, int]]) -> Kept:
    """The features in half precision, tokens and pooled ones of unit variance."""
    layer = about["extract"]["train"]["layers"][-1]
    _, _, example = next(features.read(folders["train"]))
    tokens = example.shape[1] if example.ndim == 3 else 0
    kept = Kept(folder, about, {name: len(rows) for name, rows in places.items()}, example.shape[-1], tokens)

    def rows(name: str) -> Iterator[Row]:
        for row in feature_files.rows(folders[name], about["extract"][name]["format"], [layer]):
            values = row.layers[layer].float()
            layers = {"pooled": unit(values.mean(1)), "tokens": unit(values)} if tokens else {"pooled": values}
            layers = {kind: part.half() for kind, part in layers.items()}
            yield Row(places[name][row.row], row.path, row.label, row.frames, layers)

    for name in folders:
        if any(group.missing() for group in kept.groups(name)):
            kept.write(name, rows(name))
    return kept
