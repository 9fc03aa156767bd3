"""What a checkpoint states about its test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from umt.data import catalog
from umt.errors import CheckpointError, ConfigError
from umt.tools.verify.zoo import Row

# Flags of a training that decide how its checkpoint is tested.
_FLAGS = ("model", "num_frames", "tubelet_size", "input_size", "short_side_size", "use_mean_pooling",
          "use_learnable_pos_emb", "data_set", "nb_classes", "multi_label", "sampling_rate", "test_num_segment",
          "test_num_crop", "split")  # fmt: skip


@dataclass(frozen=True)
class Stated:
    """Flags of the test, names of the classes in the order of the labels, and the data of the training."""

    flags: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    data_path: str = ""

    @property
    def multi_label(self) -> bool:
        return self.flags.get("multi_label") == "True"


def stated_by(model: str, *, fetching: bool) -> Stated:
    """By the record of its training, or by an exported folder's description; nothing by other files.

    `fetching`: also by a name or URL, which is downloaded. Raises CheckpointError.
    """
    path = Path(model)
    if not path.exists() and not fetching:  # a name or URL: the row states it
        return Stated()
    from umt.models.files.fetch import fetch

    path = fetch(model)
    if (path / "config.json").is_file() and (stated := _by_description(path / "config.json")):
        return stated
    from umt.models.files.checkpoint_file import read_header  # torch

    content = read_header(path)
    config = content.get("config") if isinstance(content, Mapping) else None
    if not isinstance(config, Mapping):
        return Stated()
    first = {flag: value[0] if isinstance(value, (list, tuple)) and value else value for flag, value in config.items()}
    flags = {flag: str(first[flag]) for flag in _FLAGS if first.get(flag) is not None}
    return Stated(flags, tuple(config.get("class_names") or ()) or None, str(first.get("data_path") or ""))


def _by_description(file: Path) -> Stated | None:
    from umt.models.files.description import Description

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}.") from None
    if "umt_model" not in content:
        return None
    description = Description.from_json(content, str(file))
    flags = {
        "model": description.model,
        "num_frames": description.num_frames,
        "tubelet_size": description.arguments.get("tubelet_size", 1),
        "input_size": description.input_size,
        "short_side_size": description.short_side_size,
        "data_set": catalog.sampled_as(description.sampling),
        "nb_classes": description.arguments.get("num_classes"),
        "test_num_segment": description.test_clips,
        "test_num_crop": description.test_crops,
    }
    return Stated({flag: str(value) for flag, value in flags.items() if value is not None}, description.labels)


def refuse_another_head(model: str, row: Row) -> None:
    """ConfigError for weights of other classes than the row, before the run complains with flags of a training.

    A head of 710 classes serves all Kinetics sets.
    """
    from umt.models.files.peek import peek

    classes, head = row.flags.get("nb_classes", ""), peek(model).head
    if classes and head not in (0, 710, int(classes)):
        raise ConfigError(
            f"{model} has a head of {head} classes, but the row {row.name} has {classes}: they are of different data "
            "sets. Name its row with --row, or give a number with --expect."
        )
