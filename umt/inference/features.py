"""A folder of features: files (feature_files.py), and the recipe that decides them to the bit.

`for row, path, array in features.read("features/"): ...` reads what `umt extract` has written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.errors import ConfigError
from umt.inference import feature_files
from umt.inference.feature_files import FeaturesError, Row
from umt.writing import output_errors, whole

RECIPE = "recipe.json"
FORMAT = 1  # the key `umt_features` of a recipe
# What may differ when the same command goes on: it changes no bit.
_ASIDE = ("checkpoint", "provenance", "versions", "command", "list")


def recipe(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What the features of `folder` are: weights, layers, pooling, frames, list; see docs/extract.md. FeaturesError."""
    path = Path(folder) / RECIPE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FeaturesError(f"{folder} holds no {RECIPE}: it is no folder that umt extract has written.") from None
    except (OSError, ValueError) as error:
        raise FeaturesError(f"{path} cannot be read ({error}). Run umt extract again, into another folder.") from None
    if content.get("umt_features") != FORMAT:
        raise FeaturesError(f"{path} is of another version of umt ({content.get('umt_features')}). Extract again.")
    return content


def settle(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as the recipe of features to come, or checks that the folder has the same one.

    Raises ConfigError for a folder of another recipe or of something else, FeaturesError for a recipe that cannot be
    read, OutputError for a folder that cannot be written.
    """
    if (folder / RECIPE).exists():
        present = recipe(folder)
        for name in content:
            if name not in _ASIDE and _plain(present.get(name)) != _plain(content[name]):
                raise ConfigError(_differs(folder, name, present.get(name), content[name]))
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--output ({folder}) is not empty and holds no {RECIPE}. Give a folder of its own.")
    with output_errors(f"--output ({folder})", "Give another place."), whole(folder / RECIPE) as place:
        place.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _differs(folder: Path, name: str, present: Any, asked: Any) -> str:
    if isinstance(present, dict) and isinstance(asked, dict):
        part = next(k for k in {**present, **asked} if _plain(present.get(k)) != _plain(asked.get(k)))
        name, present, asked = f"{name}.{part}", present.get(part), asked.get(part)
    return (
        f"--output ({folder}) holds features of another recipe: {name} is {_short(present)} there and {_short(asked)} "
        "here. Give the flags of that run, or another folder."
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


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
    for entry in rows(folder, [name]):
        tensor = entry.layers[name]
        yield entry.row, entry.path, (tensor.float() if content["dtype"] == "bf16" else tensor).numpy()


def labels(folder: str | os.PathLike[str]) -> dict[int, int]:
    """Row -> label, of all rows that have features; -1 where the list has no label. Raises FeaturesError."""
    return {entry.row: entry.label for entry in rows(folder, [])}


def rows(folder: str | os.PathLike[str], layers: list[str]) -> Iterator[Row]:
    """The rows of `folder` with these layers, ascending. Raises FeaturesError."""
    for path in feature_files.files(Path(folder), recipe(folder)["format"]):
        yield from feature_files.read(path, layers)
