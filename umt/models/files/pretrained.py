"""`load_pretrained`: a source of weights as a model that is ready to be used, and what its user must know of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from umt import imagenet
from umt.data.catalog import CATALOG
from umt.errors import CheckpointError, ConfigError
from umt.models.files.description import Description
from umt.models.files.loading import LoadReport, load_weights
from umt.models.files.weights import Weights, open_weights
from umt.models.files.which_model import which_model
from umt.models.layouts import adapters
from umt.models.registry import create_model
from umt.models.specs import SPECS, Grid


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode on the CPU, its description, and what became of every weight."""

    model: nn.Module
    description: Description
    report: LoadReport


def load_pretrained(
    source: str | os.PathLike[str] | Weights,
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
        source: file, folder, URL, hf://OWNER/REPO[/FILE], or a name of the published zoo (fetch.py); or `Weights`.
        model: name of an entry; "classifier" or "student": that kind, of the source's sizes. None: what the source is.
            A teacher must be named ("clip_b16"), and has only num_frames, input_size and sha256 of what follows.
        num_frames, input_size, tubelet_size: of the model; None: the source's. Positions and patches are resampled.
        num_classes: rows of the head; None: those of the source, 0 for a pretrained one, which has no head.
        sha256: hash that the file must have.
        new_head: the head is new, even if the source has one. head_rows: class j is the source's row head_rows[j].
        model_key: keys under which the weights may lie, separated by "|".
        model_prefix: what stands before every name of the model in the file; other names are not looked at.
        source_grid: (T', H', W') tokens of the source's position table; None: recognised, or an error.
        overrides: further keywords of the model's class, e.g. `heads` for sizes that no entry has.

    Raises `CheckpointError` for what does not load, and where weights of the backbone would stay random.
    """
    weights = source
    if not isinstance(weights, Weights):
        weights = open_weights(weights, sha256=sha256, model_key=model_key, hashed=True)
    keywords: dict[str, Any] = {"num_frames": num_frames, "image_size": input_size, "tubelet_size": tubelet_size}
    keywords |= {"num_classes": num_classes}
    keywords = {name: value for name, value in keywords.items() if value is not None} | overrides
    if model in SPECS and SPECS[str(model)].kind == "teacher":
        others = {
            "new_head": new_head,
            "head_rows": head_rows,
            "model_prefix": model_prefix,
            "source_grid": source_grid,
        }
        return _teacher(weights, str(model), keywords | {name: value for name, value in others.items() if value})
    if model_prefix:
        state, _ = adapters.take_prefix(weights.state, model_prefix)
        if not state:
            raise CheckpointError(f"{weights.source} has no weights that begin with {model_prefix!r} (model_prefix).")
        weights = dataclasses.replace(weights, state=state)
    choice = which_model(weights, model, keywords, source_grid)
    arguments = choice.arguments
    built = create_model(choice.name, **arguments)
    report = load_weights(
        built, weights, new_head=new_head, head_rows=head_rows, source_grid=source_grid or choice.source_grid
    )
    labels, labels_source = weights.labels()
    if head_rows is not None and labels is not None:
        labels = tuple(labels[row] for row in head_rows)
    if new_head or labels is None or len(labels) != arguments.get("num_classes", 0):
        labels, labels_source = None, ""
    description = Description(
        model=choice.name, arguments=arguments, labels=labels, labels_source=labels_source, **_use(weights, arguments)
    )
    return Pretrained(built.eval(), description, report)


def _teacher(weights: Weights, model: str, keywords: dict[str, Any]) -> Pretrained:
    """A CLIP teacher; `num_frames` (8) of its clips are looked at one by one, so their number changes nothing."""
    refused = [name for name in keywords if name not in ("image_size", "num_frames")]
    if refused:
        raise ConfigError(f"{model} is a teacher, which has no {refused[0]}. Leave it out.")
    size = keywords.get("image_size", SPECS[model].image_size)
    teacher = create_model(model, image_size=size)
    report = load_weights(teacher, weights)
    description = Description(
        model, {"image_size": size, **keywords}, short_side_size=size, provenance=_provenance(weights)
    )  # fmt: skip
    return Pretrained(teacher.eval(), description, report)


def _provenance(weights: Weights) -> dict[str, str | int | float]:
    return {"source": weights.source, **({"sha256": weights.sha256} if weights.sha256 else {})}


def _use(weights: Weights, arguments: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Description` other than model, arguments and labels."""
    size = arguments["image_size"]
    short_side = size if isinstance(size, int) else min(size)
    provenance = _provenance(weights)
    if "epoch" in weights.progress:
        provenance["epoch"] = int(weights.progress["epoch"])
    if (known := weights.description) is not None:
        names = ("mean", "std", "sampling", "sampling_rate", "test_clips", "test_crops", "multi_label", "licence")
        use = {name: getattr(known, name) for name in names}
        use["short_side_size"] = known.short_side_size if known.input_size == size else short_side
        return {**use, "provenance": dict(known.provenance or provenance)}
    flags, row, preprocessor = weights.settings, weights.row, weights.preprocessor
    use = {
        "mean": tuple(preprocessor.get("image_mean", imagenet.MEAN)),
        "std": tuple(preprocessor.get("image_std", imagenet.STD)),
        "short_side_size": short_side,
    }
    if weights.licence:
        use["licence"] = {"weights": weights.licence}
    if "data_set" in flags:
        data_set = CATALOG.get(flags["data_set"])
        use["sampling"] = data_set.sampling if data_set else "sparse"
        use["sampling_rate"] = int(flags.get("sampling_rate", 4))
        if flags.get("short_side_size") and flags.get("input_size") == size:
            use["short_side_size"] = int(flags["short_side_size"])
        use["test_clips"] = int(flags.get("test_num_segment") or 4)
        use["test_crops"] = int(flags.get("test_num_crop") or 3)
        use["multi_label"] = bool(flags.get("multi_label", False))
        provenance |= {flag: flags[flag] for flag in ("task", "data_set") if flag in flags}
    elif row is not None:
        use |= {"sampling": row.sampling, "test_clips": row.test_clips or 4, "test_crops": row.test_crops or 3}
    elif arguments.get("tubelet_size", 1) > 1:  # VideoMAE: dense clips, except for Something-Something
        dense = {"sampling": "dense", "test_clips": 5, "test_crops": 3}
        use |= {"sampling": "ssv2", "test_clips": 2, "test_crops": 3} if weights.head() == 174 else dense
    return {**use, "provenance": provenance}
