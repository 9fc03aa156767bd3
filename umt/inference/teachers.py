"""A CLIP teacher as a model whose features can be taken: it looks at every frame of a clip by itself."""

from __future__ import annotations

import os
from typing import Any

from umt.errors import ConfigError
from umt.models.files.description import Description
from umt.models.files.fetch import fetch
from umt.models.files.loading import load_weights
from umt.models.files.opened import sha256_of
from umt.models.files.pretrained import Pretrained
from umt.models.registry import create_model
from umt.models.specs import SPECS


def is_teacher(name: object) -> bool:
    """Whether `name` is an entry of a teacher."""
    return name in SPECS and SPECS[str(name)].kind == "teacher"


def load_teacher(
    source: str | os.PathLike[str],
    *,
    model: str,
    num_frames: int | None = None,
    input_size: int | None = None,
    sha256: str = "",
    **others: Any,
) -> Pretrained:
    """The teacher `model` with the weights of `source`; `num_frames` (8) are looked at together, which changes nothing.

    Raises CheckpointError, and ConfigError for keywords that a teacher has not.
    """
    if others:
        raise ConfigError(f"{model} is a teacher, which has no {next(iter(others))}. Leave it out.")
    size = input_size or SPECS[model].image_size
    built = create_model(model, image_size=size)
    path = fetch(source, sha256=sha256)
    report = load_weights(built, path)
    arguments = {"image_size": size}
    provenance: dict[str, str | int | float] = {"source": str(source)}
    if path.is_file():
        provenance["sha256"] = sha256_of(path)
    frames = {} if num_frames is None else {"num_frames": num_frames}
    described = Description(model, {**arguments, **frames}, short_side_size=size, provenance=provenance)
    return Pretrained(built.eval(), described, report)
