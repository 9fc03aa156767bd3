"""What decides the features, to the bit: written beside them, and held against them when the work goes on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from umt import __version__
from umt.data.lists.video_list import VideoList
from umt.data.video.reader import choose
from umt.engine.checkpoints import replacing
from umt.engine.evaluator import weights_digest
from umt.errors import ConfigError, OutputError
from umt.inference.extraction import Extractor
from umt.inference.features import FORMAT, RECIPE

# What may differ when the same command goes on: it changes no bit.
_ASIDE = ("checkpoint", "provenance", "versions", "command", "list")
RULES = {
    "sparse": "of each of num_frames equal segments the frame (c + 1) / (clips + 1) of the way through it",
    "dense": "every sampling_rate-th frame; clips begin evenly from the first place to the last",
    "ssv2": "frame int(L / num_frames * (x + c / clips)) of L, for x in 0..num_frames - 1",
    "sliding": "a clip begins every clip_stride frames and takes every sampling_rate-th; those that would run out of "
    "the video are left out, but for the first, which repeats the last frame",
}


def make(
    words: Namespace, extractor: Extractor, videos: VideoList, *, clips: int, crops: int, threads: int
) -> dict[str, Any]:
    """The recipe of a run with the flags `words`."""
    model, views = extractor.recognizer, extractor.recognizer.views
    sliding = words.clip_stride is not None
    rule = "sliding" if sliding else views.sampling
    import av

    return {
        **FORMAT.stamp(),
        "layers": list(extractor.layers),
        "pool": extractor.pool,
        "dtype": words.dtype,
        "format": words.format,
        "shard_size": words.shard_size,
        "frames": {
            "rule": rule,
            "meaning": RULES[rule],
            "num_frames": views.num_frames,
            "clips": None if sliding else clips,
            "crops": crops,
            "sampling_rate": views.sampling_rate,
            "clip_stride": words.clip_stride,
            "short_side_size": views.short_side_size,
            "input_size": views.input_size,
            "decoder": choose(words.decoder),
        },
        "grid": list(extractor.grid),
        "checkpoint": str(words.checkpoint),
        "weights_digest": weights_digest(model.model),
        "provenance": model.description.provenance,
        "description": {**model.description.to_json(), "labels": None, "provenance": None},
        "rows": {"count": len(videos), "sha256": _digest(videos)},
        "list": {"source": os.path.abspath(videos.source) if os.path.exists(videos.source) else videos.source,
                 "prefix": videos.prefix, "classes": videos.class_names, "multi_label": videos.multi_label},
        "computed": {"device": model.device.type, "precision": model.precision, "batch_size": model.batch_size,
                     "threads": threads},
        "versions": {"umt": __version__, "torch": torch.__version__, "numpy": np.__version__, "av": av.__version__,
                     "python": sys.version.split()[0]},
        "command": ["umt", "extract", *words.argv],
    }  # fmt: skip


def settle(folder: Path, made: Mapping[str, Any]) -> None:
    """Writes the recipe, or finds the same one there. Raises ConfigError for another, and says what differs."""
    path = folder / RECIPE
    if path.exists():
        there = load(folder) or {}
        for name in made:
            if name not in _ASIDE and _plain(there.get(name)) != _plain(made[name]):
                raise ConfigError(_differs(folder, name, there.get(name), made[name]))
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--output ({folder}) is not empty and holds no {RECIPE}. Give a folder of its own.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write((json.dumps(made, indent=1) + "\n").encode())
    except OSError as error:
        raise OutputError(f"--output ({folder}) cannot be written: {error.strerror}. Give another place.") from None


def load(folder: Path) -> dict[str, Any] | None:
    """The recipe that is there, or None. Raises ConfigError or FeaturesError for one that cannot be read."""
    try:
        content: dict[str, Any] = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / RECIPE} cannot be read ({error}). Give another --output.") from None
    FORMAT.check(content, folder / RECIPE)
    return content


def _differs(folder: Path, name: str, there: Any, here: Any) -> str:
    if isinstance(there, dict) and isinstance(here, dict):
        part = next(k for k in {**there, **here} if _plain(there.get(k)) != _plain(here.get(k)))
        name, there, here = f"{name}.{part}", there.get(part), here.get(part)
    return (
        f"--output ({folder}) holds features of another recipe: {name} is {_short(there)} there and {_short(here)} "
        "here. Give the flags of that run, or another folder."
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _digest(videos: VideoList) -> str:
    digest = hashlib.sha256()
    for row in range(len(videos)):
        digest.update(videos.path(row).encode("utf-8", "surrogateescape") + b"\0")
    digest.update(videos.labels.tobytes())
    return digest.hexdigest()
