"""What a user of a model must know, apart from its weights: `config.json` of an exported folder. No torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from umt import imagenet
from umt.errors import CheckpointError
from umt.formats import Format
from umt.models.specs import FAMILIES, SPECS, image_shape

FORMAT = Format("an exported model", CheckpointError, key="umt_model")

Sampling = Literal["sparse", "dense", "ssv2"]


@dataclass(frozen=True)
class Description:
    """How to build a model, to feed it, and to read what it gives.

    Args:
        model, arguments: `create_model(model, **arguments)` builds it.
        mean, std: per channel, red green blue, in units of the full range.
        sampling, sampling_rate: how frames are taken from a video (the rate counts for "dense" only).
        short_side_size: pixels to which a frame's short side is brought before crops of it are taken.
        test_clips, test_crops: views of a video over which results are merged.
        labels: class names in the order of the head; None where they are not known. `labels_source`: where from.
        multi_label: classes do not exclude each other: one sigmoid per class instead of a softmax.
        provenance: where the weights come from: source, sha256, epoch, ...
        licence: of "code", "weights", "teacher" and "data", as far as known.
    """

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = imagenet.MEAN
    std: tuple[float, ...] = imagenet.STD
    sampling: Sampling = "sparse"
    sampling_rate: int = 4
    short_side_size: int = 224
    test_clips: int = 4
    test_crops: int = 3
    labels: tuple[str, ...] | None = None
    labels_source: str = ""
    multi_label: bool = False
    provenance: dict[str, str | int | float] = field(default_factory=dict)
    licence: dict[str, str] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        return int(self.arguments.get("num_frames", 8))

    @property
    def input_size(self) -> int | tuple[int, int]:
        """Pixels of a frame that the model takes: one number for a square, else (height, width)."""
        height, width = image_shape(self.arguments["image_size"])
        return height if height == width else (height, width)

    @property
    def architecture(self) -> str:
        """The entry's name if the model has its sizes; else the sizes, in words."""
        spec = SPECS.get(self.model)
        if spec is None:
            return self.model
        names = ("width", "depth", "heads", "patch_size")
        width, depth, heads, patch = sizes = tuple(self.arguments.get(name, getattr(spec, name)) for name in names)
        hidden = int(width * self.arguments.get("mlp_ratio", spec.mlp_ratio))
        if sizes == tuple(getattr(spec, name) for name in names) and hidden == int(spec.width * spec.mlp_ratio):
            return self.model
        noun = FAMILIES[spec.kind].noun
        return f"{noun} of width {width}, hidden width {hidden}, {depth} blocks, {heads} heads and patch {patch}"

    def to_json(self) -> dict[str, Any]:
        """Plain values under the names of the fields, and `umt_model`, the number of this layout."""
        return {**FORMAT.stamp(), **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str = "config.json") -> Description:
        """From what `to_json` gives; keys of others (those of the hub) are passed over. Raises `CheckpointError`."""
        if FORMAT.key not in content:
            raise CheckpointError(
                f"{where} is not the description of a model of this library, which has {FORMAT.key}. "
                "Export the model again."
            )
        FORMAT.check(content, where)
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in content.items() if name in known}
        try:
            values["arguments"] = {name: _tuple(value) for name, value in values.get("arguments", {}).items()}
            for name in ("mean", "std", "labels"):
                if name in values:
                    values[name] = _tuple(values[name])
            description = cls(**values)
            image_shape(description.arguments.get("image_size", 224))
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise CheckpointError(f"{where} does not describe a model completely: {error}. Export it again.") from None
        return description


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
