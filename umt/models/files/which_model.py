"""Which video transformer a source of weights is, and with which arguments.

What the caller says counts first, then what the source says of itself, then what the shapes of its weights tell.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from umt.errors import CheckpointError
from umt.models.files.description import Description
from umt.models.files.weights import Weights
from umt.models.layouts import adapters, huggingface
from umt.models.layouts.architecture import Architecture, architecture_of
from umt.models.registry import class_of
from umt.models.specs import SPECS, Grid, default_position_grid, find_spec

KINDS = ("classifier", "student")
_SIZES = ("width", "depth", "heads", "patch_size")  # what models of one name have in common


class Choice(NamedTuple):
    """`create_model(name, **arguments)` builds it. `source_grid`: that of the source's position table, where known."""

    name: str
    arguments: dict[str, Any]
    source_grid: Grid | None = None


def which_model(
    weights: Weights, model: str | None, keywords: dict[str, Any], source_grid: Grid | None = None
) -> Choice:
    """The model of `weights`.

    Args:
        model: a name of `SPECS`, one of `KINDS`, or None for what the source is.
        keywords: of the model's class; they win over everything.
        source_grid: that of the source's position table, as the caller knows it.

    Raises `CheckpointError` where nothing tells it, and for a model that the weights cannot be.
    """
    if weights.description is not None:
        choice = _described(weights, weights.description, model)
    elif huggingface.is_huggingface(weights.state):
        choice = _of_huggingface(weights, model, keywords)
    else:
        choice = _of_shapes(weights, model, keywords, source_grid)
    return choice._replace(arguments={**choice.arguments, **keywords})


def _described(weights: Weights, description: Description, model: str | None) -> Choice:
    """Of an exported folder; also its encoder as another kind of model."""
    name, arguments = description.model, description.arguments
    if model in (None, find_spec(name).kind, name):
        return Choice(name, arguments)
    if model in KINDS:
        seen = architecture_of(weights.state, weights.source)
        other = seen.name(str(model))
        if not other:
            raise CheckpointError(f"{weights.source} has sizes of which this library has no {model} ({seen}).")
    else:
        other = str(model)
    kind = find_spec(other).kind
    shared = ("image_size", "num_frames", "tubelet_size", "position_grid", "use_learnable_pos_emb", "init_values")
    kept = {keyword: value for keyword, value in arguments.items() if keyword in shared}
    return Choice(other, kept if kind == "student" else {**kept, "num_classes": arguments.get("num_classes", 0)})


# ---- VideoMAE of Hugging Face


def _of_huggingface(weights: Weights, model: str | None, keywords: dict[str, Any]) -> Choice:
    if not weights.config:
        raise CheckpointError(
            f"{weights.source} is a VideoMAE of Hugging Face without its config.json. Name the folder that has both."
        )
    settings = huggingface.settings_of(weights.config, weights.source)
    state = huggingface.from_huggingface(weights.state, weights.source)
    if model == "student":
        raise CheckpointError(f"{weights.source} is a VideoMAE, which has no decoders of a student.")
    seen = architecture_of(state, weights.source)
    known_as = [
        name for name in seen.names("classifier", settings["image_size"]) if SPECS[name].heads == settings["heads"]
    ]
    if model in (None, "classifier"):
        name = known_as[0] if known_as else "vit_base_patch16_224"
    else:
        name = str(model)
        _refuse_other_sizes(weights.source, name, {**settings, "hidden": seen.hidden}, keywords, known_as)
    values = {**settings, "num_classes": seen.num_classes}
    if not seen.num_classes and seen.pretrained:
        values["use_mean_pooling"] = True
    defaults = {keyword: p.default for keyword, p in inspect.signature(class_of("classifier")).parameters.items()}
    defaults |= find_spec(name).arguments()
    always = ["image_size", "num_frames", "tubelet_size", "num_classes"]
    always += [] if known_as else [*_SIZES, "mlp_ratio"]
    arguments = {keyword: value for keyword, value in values.items() if defaults[keyword] != value}
    return Choice(name, arguments | {keyword: values[keyword] for keyword in always})


def _refuse_other_sizes(
    source: str, name: str, settings: dict[str, Any], keywords: dict[str, Any], known_as: Sequence[str]
) -> None:
    """Raises `CheckpointError` where the model `name`, with the caller's keywords, has other sizes than the source."""
    spec = find_spec(name)
    if spec.kind != "classifier":
        raise CheckpointError(f"{source} is a VideoMAE, and {name} is a {spec.kind}. Leave out the model's name.")
    sizes = {size: keywords.get(size, getattr(spec, size)) for size in _SIZES}
    sizes["hidden"] = int(sizes["width"] * keywords.get("mlp_ratio", spec.mlp_ratio))
    differing = [size for size in sizes if sizes[size] != settings[size]]
    if differing:
        here, there = ([f"{size} {values[size]}" for size in differing] for values in (settings, sizes))
        remedy = f"Name {known_as[0]}, or no model." if known_as else "Leave out the model's name."
        raise CheckpointError(
            f"{source} is of another architecture than {name}: it has {', '.join(here)}, and the model "
            f"{', '.join(there)}. {remedy}"
        )


# ---- checkpoints of this library, of the original and of VideoMAE's code


def _of_shapes(weights: Weights, model: str | None, keywords: dict[str, Any], source_grid: Grid | None) -> Choice:
    seen = architecture_of(weights.state, weights.source)
    clip = _clip_of(weights, seen, source_grid)
    image_size = keywords.get("image_size", clip["image_size"])
    if model in KINDS:
        kind = str(model)
    elif model is not None:
        kind = find_spec(model).kind
    else:
        kind = "student" if seen.is_student else "classifier"
    if kind == "student" and not seen.is_student:
        raise CheckpointError(
            f"{weights.source} has no decoders of a student (clip_decoder.*), so it is none. Leave out model={model!r}."
        )
    name = str(model) if model not in (None, *KINDS) else _named(weights, clip, kind) or seen.name(kind, image_size)
    if not name:
        raise CheckpointError(
            f"{weights.source} has sizes of no model of this library ({seen}). Name a model, and its width, depth and "
            'heads as keywords, e.g. model="vit_base_patch16_224", width=..., depth=..., heads=....'
        )
    arguments = {"image_size": image_size, "num_frames": clip["num_frames"], **seen.arguments(kind)}
    if clip.get("use_learnable_pos_emb"):
        arguments["use_learnable_pos_emb"] = True
    grid = clip.get("position_grid")
    if grid is not None and grid != SPECS[name].position_grid:
        arguments["position_grid"] = grid
    if kind == "student":
        arguments |= {keyword: clip[keyword] for keyword in ("return_interval", "norm_type") if keyword in clip}
    return Choice(name, arguments, clip.get("source_grid"))


def _named(weights: Weights, clip: dict[str, Any], kind: str) -> str:
    """The model that the source itself names, if it is one of this kind; else ""."""
    name = clip.get("model") or (weights.row.model if weights.row else "")
    return name if name in SPECS and SPECS[name].kind == kind else ""


def _clip_of(weights: Weights, seen: Architecture, source_grid: Grid | None) -> dict[str, Any]:
    """Frames, image size and what else shapes do not tell: by flags, else the zoo's row, else the position table."""
    flags = weights.settings
    if "num_frames" in flags and "input_size" in flags:
        clip = {"image_size": flags["input_size"], "num_frames": flags["num_frames"]}
        clip |= {flag: flags[flag] for flag in ("model", "use_learnable_pos_emb") if flag in flags}
        renamed = {"return_interval": "clip_student_return_interval", "norm_type": "clip_norm_type"}
        clip |= {keyword: flags[flag] for keyword, flag in renamed.items() if flag in flags}
    elif weights.row is not None:
        clip = {"image_size": weights.row.input_size, "num_frames": weights.row.num_frames}
    else:
        clip = _clip_of_table(weights, seen, source_grid)
    if seen.tubelet_size > 1 and seen.table is None and "class_names" not in flags and "task" not in flags:
        # VideoMAE defines its sinusoid on the very tokens of the clip, and does not save it.
        side = int(clip["image_size"]) // seen.patch_size
        clip["position_grid"] = (int(clip["num_frames"]) // seen.tubelet_size, side, side)
    return clip


def _clip_of_table(weights: Weights, seen: Architecture, source_grid: Grid | None) -> dict[str, Any]:
    """The size of a clip by the position table; without one, what files without one have: 8 frames, VideoMAE's 16."""
    usual = {"image_size": 224, "num_frames": 16 if seen.tubelet_size == 2 else 8 * seen.tubelet_size}
    name = seen.name("student" if seen.is_student else "classifier")
    if name:
        usual["image_size"] = SPECS[name].image_size
    if seen.table is None:
        return usual
    tokens, defined_on = seen.table.shape[1], default_position_grid(seen.patch_size)
    if name:
        defined_on = SPECS[name].position_grid or defined_on
    grids = [source_grid] if source_grid else adapters.square_grids(tokens)
    fixed = adapters.sinusoid_grid(seen.table, [grid for grid in grids if math.prod(grid) == tokens], defined_on)
    side = usual["image_size"] // seen.patch_size
    likely = [grid for grid in grids if grid[1] == side] or [grid for grid in grids if grid[0] == defined_on[0]]
    grid = fixed or source_grid or (likely[0] if likely else None)
    if grid is None or math.prod(grid) != tokens:
        instead = f", not {' x '.join(map(str, grid))}" if grid else ""
        raise CheckpointError(
            f"{weights.source} has a position table of {tokens} rows{instead}, and nothing says on which grid of "
            "frames x rows x columns. Say so with source_grid=(T', H', W')."
        )
    clip: dict[str, Any] = {"image_size": grid[1] * seen.patch_size, "num_frames": grid[0] * seen.tubelet_size}
    if fixed is None:
        clip |= {"use_learnable_pos_emb": True, "source_grid": grid}
    return clip
