"""`load_pretrained`: a source of weights as a model that is ready to be used, and what its user must know of it.

Reading order: `load_pretrained`; `_build`, which settles the architecture: what the caller says, else what the source
says of itself, else what the shapes of its weights tell.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from umt.data.catalog import CATALOG
from umt.errors import CheckpointError
from umt.models import adapters
from umt.models.description import IMAGENET_MEAN, IMAGENET_STD, Description
from umt.models.files.fetch import sha256_of
from umt.models.files.weights import Weights, open_weights
from umt.models.layouts import huggingface
from umt.models.layouts.architecture import Architecture, architecture_of
from umt.models.loading import LoadReport, load_state
from umt.models.registry import create_model
from umt.models.specs import SPECS, Grid, default_position_grid, find_spec
from umt.models.vit import VisionTransformer

_SIZES = ("width", "depth", "heads", "patch_size")  # what a model of one name has in common


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode on the CPU, its description, and what became of every weight."""

    model: nn.Module
    description: Description
    report: LoadReport


def load_pretrained(
    source: str | os.PathLike[str],
    *,
    model: str | None = None,
    num_frames: int | None = None,
    input_size: int | None = None,
    tubelet_size: int | None = None,
    num_classes: int | None = None,
    sha256: str = "",
    new_head: bool = False,
    head_rows: Sequence[int] | None = None,
    model_key: str = "model|module",
    model_prefix: str = "",
    source_grid: Grid | None = None,
    **overrides: Any,
) -> Pretrained:
    """Weights of any kind that this library knows, as a model.

    Args:
        source: file, folder, URL, hf://OWNER/REPO[/FILE], or a name of the published zoo (fetch.py).
        model: name of an entry; "classifier" or "student": that kind, of the source's sizes. None: what the source is.
        num_frames, input_size, tubelet_size: of the model; None: the source's. Positions and patches are resampled.
        num_classes: rows of the head; None: those of the source, 0 for a pretrained one, which has no head.
        sha256: hash that the file must have.
        new_head: the head is new, whatever the source has. head_rows: class j is the source's row head_rows[j].
        model_key: keys under which the weights may lie, separated by "|".
        model_prefix: what stands before every name of the model in the file; other names are not looked at.
        source_grid: (T', H', W') tokens of the source's position table; None: recognised, or an error.
        overrides: further keywords of the model's class, e.g. `heads` for sizes that no entry has.

    Raises `CheckpointError` for what does not load, and where weights of the backbone would stay random.
    """
    weights = open_weights(source, sha256=sha256, model_key=model_key)
    if model_prefix:
        weights.state, _ = adapters.take_prefix(weights.state, model_prefix)
        if not weights.state:
            raise CheckpointError(f"{weights.source} has no weights that begin with {model_prefix!r} (model_prefix).")
    asked = {"num_frames": num_frames, "image_size": input_size, "tubelet_size": tubelet_size}
    asked |= {"num_classes": num_classes}
    given = {**{name: value for name, value in asked.items() if value is not None}, **overrides}
    entry, arguments, own_grid = _build(weights, model, given, source_grid)
    built = create_model(entry, **arguments)
    report = load_state(
        built, weights, new_head=new_head, head_rows=head_rows, source_grid=source_grid or own_grid,
    )  # fmt: skip
    labels, told = weights.labels()
    head = arguments.get("num_classes", 0)
    if head_rows is not None and labels is not None:
        labels = tuple(labels[row] for row in head_rows)
    if new_head or labels is None or len(labels) != head:
        labels, told = None, ""
    description = Description(
        model=entry, arguments=arguments, labels=labels, labels_source=told, **_usage(weights, arguments)
    )
    return Pretrained(built.eval(), description, report)


# ---- the architecture


def _build(
    weights: Weights, model: str | None, given: dict[str, Any], source_grid: Grid | None = None
) -> tuple[str, dict[str, Any], Grid | None]:
    """(entry, its arguments, grid of the source's position table where that is known)."""
    if weights.description is not None:
        told = weights.description
        entry = told.model if model in (None, SPECS[find_name(told.model)].kind) else _entry_of(weights, model, given)
        arguments = told.arguments if entry == told.model else _of_other_kind(told.arguments, entry)
        return entry, {**arguments, **given}, None
    state = weights.state
    if huggingface.is_huggingface(state):
        return _of_huggingface(weights, model, given)
    seen = architecture_of(state, weights.source)
    settings = _settings(weights, seen, source_grid)
    image_size = given.get("image_size", settings["image_size"])
    kind = _kind(model, seen)
    if kind == "student" and not seen.is_student:
        raise CheckpointError(
            f"{weights.source} has no decoders of a student (clip_decoder.*), so it is none. Leave out model={model!r}."
        )
    entry = model if model not in (None, "classifier", "student") else _named(weights, kind, settings, image_size)
    entry = entry or seen.entry(kind, image_size)
    if not entry:
        raise CheckpointError(
            f"{weights.source} has sizes of no model of this library ({seen}). Name a model, and its width, depth and "
            'heads as keywords, e.g. model="vit_base_patch16_224", width=..., depth=..., heads=....'
        )
    arguments = {"image_size": image_size, "num_frames": settings["num_frames"], **seen.arguments(kind)}
    if settings.get("use_learnable_pos_emb"):
        arguments["use_learnable_pos_emb"] = True
    grid = settings.get("position_grid")
    if grid is not None and grid != SPECS[entry].position_grid:
        arguments["position_grid"] = grid
    if kind == "student":
        arguments |= {k: settings[k] for k in ("return_interval", "norm_type") if k in settings}
    return entry, {**arguments, **given}, settings.get("source_grid")


def find_name(name: str) -> str:
    """`name`, if it is an entry; `ConfigError` with the nearest otherwise."""
    find_spec(name)
    return name


def _kind(model: str | None, seen: Architecture) -> str:
    if model in ("classifier", "student"):
        return str(model)
    if model is not None:
        return find_spec(model).kind
    return "student" if seen.is_student else "classifier"


def _named(weights: Weights, kind: str, settings: dict[str, Any], image_size: Any) -> str:
    """The entry that the source itself names, if it is one of this kind."""
    name = settings.get("model") or (weights.row.model if weights.row else "")
    return name if name in SPECS and SPECS[name].kind == kind else ""


def _entry_of(weights: Weights, model: str | None, given: dict[str, Any]) -> str:
    if model not in ("classifier", "student"):
        return find_name(str(model))
    seen = architecture_of(weights.state, weights.source)
    entry = seen.entry(model)
    if not entry:
        raise CheckpointError(f"{weights.source} has sizes of which this library has no {model} ({seen}).")
    return entry


def _of_other_kind(arguments: dict[str, Any], entry: str) -> dict[str, Any]:
    shared = ("image_size", "num_frames", "tubelet_size", "position_grid", "use_learnable_pos_emb", "init_values")
    kept = {name: value for name, value in arguments.items() if name in shared}
    return kept if SPECS[entry].kind == "student" else {**kept, "num_classes": arguments.get("num_classes", 0)}


def _of_huggingface(
    weights: Weights, model: str | None, given: dict[str, Any]
) -> tuple[str, dict[str, Any], Grid | None]:
    if not weights.config:
        raise CheckpointError(
            f"{weights.source} is a VideoMAE of Hugging Face without its config.json. Name the folder that has both."
        )
    settings = huggingface.settings_of(weights.config, weights.source)
    weights.state = huggingface.from_huggingface(weights.state, weights.source)
    if model == "student":
        raise CheckpointError(f"{weights.source} is a VideoMAE, which has no decoders of a student.")
    seen = architecture_of(weights.state, weights.source)
    size = settings["image_size"]
    named = model not in (None, "classifier")
    known_as = _same_heads(seen.entries("classifier", size), settings["heads"])
    entry = find_name(str(model)) if named else known_as[0] if known_as else "vit_base_patch16_224"
    if named:
        _refuse_other_sizes(weights.source, entry, {**settings, "hidden": seen.hidden}, given, known_as)
    own = {**settings, "num_classes": seen.num_classes}
    if not seen.num_classes and seen.pretrained:
        own["use_mean_pooling"] = True
    known = {k: v.default for k, v in inspect.signature(VisionTransformer).parameters.items()}
    known |= find_spec(entry).arguments()
    arguments = {name: value for name, value in own.items() if known[name] != value}
    told = ("image_size", "num_frames", "tubelet_size", "num_classes")
    arguments |= {name: own[name] for name in (told if known_as else (*told, *_SIZES, "mlp_ratio"))}
    return entry, {**arguments, **given}, None


def _same_heads(entries: Sequence[str], heads: int) -> list[str]:
    return [name for name in entries if SPECS[name].heads == heads]


def _refuse_other_sizes(
    where: str, entry: str, settings: dict[str, Any], given: dict[str, Any], known_as: Sequence[str]
) -> None:
    """Raises `CheckpointError` where `entry`, with what the caller gives, has other sizes than the source's."""
    spec = find_spec(entry)
    if spec.kind != "classifier":
        raise CheckpointError(f"{where} is a VideoMAE, and {entry} is a {spec.kind}. Leave out the model's name.")
    own = {name: given.get(name, getattr(spec, name)) for name in _SIZES}
    own["hidden"] = int(own["width"] * given.get("mlp_ratio", spec.mlp_ratio))
    other = [name for name in (*_SIZES, "hidden") if own[name] != settings[name]]
    if other:
        here, there = ([f"{name} {sizes[name]}" for name in other] for sizes in (settings, own))
        remedy = f"Name {known_as[0]}, or no model." if known_as else "Leave out the model's name."
        raise CheckpointError(
            f"{where} is of another architecture than {entry}: it has {', '.join(here)}, and the model "
            f"{', '.join(there)}. {remedy}"
        )


def _settings(weights: Weights, seen: Architecture, source_grid: Grid | None) -> dict[str, Any]:
    """Frames, image size and what else the shapes alone do not tell: flags, the zoo's row, the table, the usual."""
    flags = weights.settings
    if "num_frames" in flags and "input_size" in flags:
        found = {"image_size": flags["input_size"], "num_frames": flags["num_frames"]}
        found |= {k: flags[k] for k in ("model", "use_learnable_pos_emb") if k in flags}
        found |= {k: flags[f] for k, f in (("return_interval", "clip_student_return_interval"),
                                           ("norm_type", "clip_norm_type")) if f in flags}  # fmt: skip
    elif weights.row is not None:
        found = {"image_size": weights.row.input_size, "num_frames": weights.row.num_frames}
    else:
        found = _from_table(weights, seen, source_grid)
    if seen.tubelet_size > 1 and seen.table is None and "class_names" not in flags and "task" not in flags:
        # VideoMAE defines its sinusoid on the very tokens of the clip, and does not save it.
        side = int(found["image_size"]) // seen.patch_size
        found["position_grid"] = (int(found["num_frames"]) // seen.tubelet_size, side, side)
    return found


def _from_table(weights: Weights, seen: Architecture, source_grid: Grid | None) -> dict[str, Any]:
    """The size of a clip by the position table; without one, what files without one have: 8 frames, VideoMAE's 16."""
    usual = {"image_size": 224, "num_frames": 16 if seen.tubelet_size == 2 else 8 * seen.tubelet_size}
    entry = seen.entry("student" if seen.is_student else "classifier")
    if entry:
        usual["image_size"] = SPECS[entry].image_size
    if seen.table is None:
        return usual
    tokens, defined_on = seen.table.shape[1], default_position_grid(seen.patch_size)
    if entry:
        defined_on = SPECS[entry].position_grid or defined_on
    grids = [source_grid] if source_grid else adapters.square_grids(tokens)
    fixed = adapters.sinusoid_grid(seen.table, [g for g in grids if math.prod(g) == tokens], defined_on)
    side = usual["image_size"] // seen.patch_size
    likely = [grid for grid in grids if grid[1] == side] or [grid for grid in grids if grid[0] == defined_on[0]]
    grid = fixed or source_grid or (likely[0] if likely else None)
    if grid is None or math.prod(grid) != tokens:
        given = f", not {' x '.join(map(str, grid))}" if grid else ""
        raise CheckpointError(
            f"{weights.source} has a position table of {tokens} rows{given}, and nothing says on which grid of frames "
            "x rows x columns. Say so with source_grid=(T', H', W')."
        )
    found: dict[str, Any] = {"image_size": grid[1] * seen.patch_size, "num_frames": grid[0] * seen.tubelet_size}
    if fixed is None:
        found |= {"use_learnable_pos_emb": True, "source_grid": grid}
    return found


# ---- how it is used


def _usage(weights: Weights, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Description` beside model, arguments and labels."""
    size = arguments["image_size"]
    short = size if isinstance(size, int) else min(size)
    provenance: dict[str, Any] = {"source": weights.source}
    if weights.path.is_file():
        provenance["sha256"] = sha256_of(weights.path)
    if "epoch" in weights.progress:
        provenance["epoch"] = int(weights.progress["epoch"])
    if weights.description is not None:
        told = weights.description
        names = ("mean", "std", "sampling", "sampling_rate", "test_clips", "test_crops", "multi_label", "licence")
        usage = {name: getattr(told, name) for name in names}
        short = told.short_side_size if told.input_size == size else short
        return {**usage, "short_side_size": short, "provenance": dict(told.provenance or provenance)}
    flags, row = weights.settings, weights.row
    usage = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "short_side_size": short}
    if weights.licence:
        usage["licence"] = {"weights": weights.licence}
    if weights.preprocessor:
        usage |= {
            "mean": tuple(weights.preprocessor.get("image_mean", IMAGENET_MEAN)),
            "std": tuple(weights.preprocessor.get("image_std", IMAGENET_STD)),
        }
    if "data_set" in flags:
        known = CATALOG.get(flags["data_set"])
        usage["sampling"] = known.sampling if known else "sparse"
        usage["sampling_rate"] = int(flags.get("sampling_rate", 4))
        if flags.get("short_side_size") and flags.get("input_size") == size:
            usage["short_side_size"] = int(flags["short_side_size"])
        usage["test_clips"] = int(flags.get("test_num_segment") or 4)
        usage["test_crops"] = int(flags.get("test_num_crop") or 3)
        usage["multi_label"] = bool(flags.get("multi_label", False))
        provenance |= {k: flags[k] for k in ("task", "data_set") if k in flags}
    elif row is not None:
        usage |= {"sampling": row.sampling, "test_clips": row.test_clips or 4, "test_crops": row.test_crops or 3}
    elif arguments.get("tubelet_size", 1) > 1:  # VideoMAE: dense clips, but of Something-Something
        dense = {"sampling": "dense", "test_clips": 5, "test_crops": 3}
        usage |= {"sampling": "ssv2", "test_clips": 2, "test_crops": 3} if weights.head() == 174 else dense
    return {**usage, "provenance": provenance}
