"""What a source of weights has to say of itself beside the weights: the model, its sizes, its classes, its training.

A source is a file, a folder, a URL, a name of the hub or of the published zoo (fetch.py). It may be a checkpoint of a
run of this library, an exported folder, a file of the original's or of VideoMAE's code, or a folder of Hugging Face's
VideoMAE.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from umt.errors import CheckpointError
from umt.formats import CHECKPOINT
from umt.models import adapters
from umt.models.description import Description
from umt.models.files import published
from umt.models.files.checkpoint_file import read_content, state_of
from umt.models.files.fetch import fetch
from umt.models.layouts import huggingface

CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
_PATCHES = ("patch_embed.proj.weight", "patch_embeddings.projection.weight")


@dataclass
class Weights:
    """A source that was opened.

    Attributes:
        source: as it was named; `path`: where it lies on this machine.
        state: its state dict, with wrappers' prefixes removed, under the names of the file.
        settings: flags of the run or fields of the configuration that it holds, as far as it holds any.
        description: of an exported folder.
        config: of a Hugging Face folder, and its `preprocessor`.
        licence: of a folder of the hub, as its card names it.
        row: of the published zoo, if the file has a name of one, and its head the size.
    """

    source: str
    path: Path
    state: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    description: Description | None = None
    config: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    row: published.Published | None = None

    def head(self) -> int:
        """Rows of the head; 0 without one."""
        heads = [k for k in self.state if k.endswith(("head.weight", "classifier.weight")) and "decoder" not in k]
        heads = [k for k in heads if k.split(".")[-2] in ("head", "classifier") and self.state[k].ndim == 2]
        return int(self.state[min(heads, key=len)].shape[0]) if heads else 0

    def tubelet_size(self) -> int:
        """Frames that one token covers; 0 where no patch embedding of a video is found."""
        kernels = [value for name, value in self.state.items() if name.endswith(_PATCHES) and value.ndim == 5]
        return int(kernels[0].shape[2]) if kernels else 0

    def labels(self) -> tuple[tuple[str, ...] | None, str]:
        """(names of the head's classes, None where nothing says them; what says them)."""
        rows = self.head()
        named = self.settings.get("class_names")
        if isinstance(named, list | tuple) and len(named) == rows:
            return tuple(map(str, named)), self.source
        if self.description is not None and self.description.labels and len(self.description.labels) == rows:
            return self.description.labels, self.description.labels_source or self.source
        if names := huggingface.labels_of(self.config, rows):
            return names, f"id2label of {self.source}"
        if self.row is not None and self.row.labels and rows == self.row.num_classes:
            return published.names_of(self.row.labels), f"the published {self.row.name}"
        return None, ""


def open_weights(
    source: str | os.PathLike[str], *, sha256: str = "", model_key: str = "model|module", lazily: bool = False
) -> Weights:
    """Fetches and reads `source`. `lazily`: tensors are not read before they are used. Raises `CheckpointError`."""
    path = fetch(source, sha256=sha256)
    content = read_content(path, lazily=lazily)
    if isinstance(content, dict) and isinstance(content.get("conditions"), Mapping):  # only this library's has them
        CHECKPOINT.check(content, source)
    state = adapters.strip_wrappers(state_of(content, str(path), model_key))
    if all(name.startswith("model.") for name in state):  # VideoMAE V2 on the hub
        state, _ = adapters.take_prefix(state, "model.")
    opened = Weights(str(source).partition("#sha256=")[0], path, state)
    if isinstance(content, dict):
        opened.settings = _settings(content)
        progress = content.get("progress")
        if isinstance(progress, Mapping):
            opened.progress = dict(progress)
        elif isinstance(content.get("epoch"), int):
            opened.progress = {"epoch": content["epoch"]}
    _read_beside(opened)
    row = published.find(Path(opened.source).name)
    if row is not None and row.num_classes == opened.head():
        opened.row = row
    return opened


class Head(NamedTuple):
    """Classes of a head, 0 without one; their names where something says them; whether it may be one of the original's.

    The original's tokens cover one frame. Of those that cover two, VideoMAE's, nobody here knows the order of classes.
    """

    rows: int
    names: list[str] | None
    may_be_published: bool


def read_head(source: str | os.PathLike[str], *, model_key: str = "model|module") -> Head:
    """The head of `source`. Tensors of files in torch's present form are not read. Raises `CheckpointError`."""
    weights = open_weights(source, model_key=model_key, lazily=True)
    names, _ = weights.labels()
    return Head(weights.head(), None if names is None else list(names), weights.tubelet_size() <= 1)


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Flags: `config` of a checkpoint of this library, or the `args` that the original pickles."""
    config, args = content.get("config"), content.get("args")
    if isinstance(config, Mapping):
        return dict(config)
    return dict(vars(args)) if isinstance(args, argparse.Namespace) else {}


def _read_beside(opened: Weights) -> None:
    """config.json and preprocessor_config.json of an exported or a Hugging Face folder."""
    folder = opened.path if opened.path.is_dir() else opened.path.parent
    named = opened.path.name.startswith(("model", "pytorch_model", "tf_model"))
    if not opened.path.is_dir() and not named:
        return
    config = _json(folder / CONFIG)
    opened.licence = _licence(folder / "README.md")
    if "umt_model" in config:
        opened.description = Description.from_json(config, str(folder / CONFIG))
    elif huggingface.is_huggingface(opened.state):
        opened.config, opened.preprocessor = config, _json(folder / _PREPROCESSOR)
    elif (
        isinstance(own := config.get("model_config"), dict) and "img_size" in own
    ):  # VideoMAE V2's, whose code is apart
        opened.settings = {"num_frames": own.get("num_frames", 16), "input_size": own["img_size"]}
        opened.preprocessor = _json(folder / _PREPROCESSOR)
    elif str(config.get("model_type")).startswith("clip"):
        return  # a teacher's: clip_layouts.py
    elif config.get("model_type") and not any(name.endswith("patch_embed.proj.weight") for name in opened.state):
        raise CheckpointError(
            f"{opened.source} is a {config['model_type']} of Hugging Face, which is another architecture. "
            "Of theirs, VideoMAE loads."
        )


def _licence(card: Path) -> str:
    """`license:` in the head of a model card, which stands between two lines of dashes; "" without one."""
    if not card.is_file():
        return ""
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    head = itertools.takewhile(lambda line: line.strip() != "---", lines[1:])
    named = [line.partition(":")[2] for line in head if line.startswith("license:")]
    return named[0].strip().strip("'\"") if named else ""


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}. Copy or download it again.") from None
    return content if isinstance(content, dict) else {}
