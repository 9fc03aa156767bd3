"""Features that `umt extract` has written, read back: `for row, path, array in features.read("features/"): ...`"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.formats import Format
from umt.inference import feature_files
from umt.inference.feature_files import FeaturesError

RECIPE = "recipe.json"
FORMAT = Format("features", FeaturesError, key="umt_features")  # of a recipe, for all files next to it


def recipe(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What the features of `folder` are: weights, layers, pooling, frames, list; see docs/extract.md. FeaturesError."""
    path = Path(folder) / RECIPE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FeaturesError(f"{folder} holds no {RECIPE}: it is no folder that umt extract has written.") from None
    except (OSError, ValueError) as error:
        raise FeaturesError(f"{path} cannot be read ({error}). Run umt extract again, into another folder.") from None
    if not isinstance(content, dict) or FORMAT.key not in content:
        raise FeaturesError(
            f"{path} is no recipe of umt extract, which has {FORMAT.key}. Name a folder of its features."
        )
    FORMAT.check(content, path)
    return content


def read(folder: str | os.PathLike[str], layer: str | None = None) -> Iterator[tuple[int, str, NDArray[np.floating]]]:
    """The features of `folder`, video by video: (row of the list from 0, path as the list has it, array).

    The array is (V, ...) with V = clips * crops views, clip by clip: (V, D) for pooled features, (V, T', D) for
    `--pool spatial`, (V, L, D) for tokens. It has the type that was written; bf16, which numpy has not, comes as
    float32. Rows ascend; those that could not be read are missing. One file is in memory at a time.

    `layer`: one of `recipe(folder)["layers"]`; None: the only one, or the last. Raises FeaturesError.
    """
    content = recipe(folder)
    name = content["layers"][-1] if layer is None else str(layer)
    if name not in content["layers"]:
        raise FeaturesError(f"{folder} has no layer {name}. It has {', '.join(content['layers'])}.")
    for entry in feature_files.rows(Path(folder), content["format"], [name]):
        tensor = entry.layers[name]
        yield entry.row, entry.path, (tensor.float() if content["dtype"] == "bf16" else tensor).numpy()


def labels(folder: str | os.PathLike[str]) -> dict[int, int]:
    """Row -> label, of all rows that have features; -1 where the list has no label. Raises FeaturesError."""
    return {entry.row: entry.label for entry in feature_files.rows(Path(folder), recipe(folder)["format"], [])}
