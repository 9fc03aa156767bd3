"""What a source of weights says of itself: the model, its sizes, its classes, its training.

A source is a file, a folder, a URL, a name of the hub or of the published zoo (fetch.py). It may be a checkpoint of a
run of this library, an exported folder, a file of the original's or of VideoMAE's code, or a folder of Hugging Face's
VideoMAE.
"""

from __future__ import annotations

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
from umt.models.files import published
from umt.models.files.checkpoint_file import read_content, read_header, state_of
from umt.models.files.description import Description
from umt.models.files.fetch import fetch
from umt.models.files.opened import open_file
from umt.models.files.pickles import flags_in
from umt.models.layouts import adapters, huggingface

CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
_PATCHES = ("patch_embed.proj.weight", "patch_embeddings.projection.weight")


@dataclass
class Weights:
    """A source that was opened.

    Attributes:
        source: as it was named; `path`: where it lies on this machine; `sha256`: its hash, if asked for.
        state: its state dict, with wrappers' prefixes removed, under the names of the file.
        settings: flags of the run or fields of the configuration that it holds, as far as it holds any.
        description: of an exported folder.
        config, preprocessor: of a Hugging Face folder.
        licence: of a folder of the hub, as its card names it.
        row: of the published zoo, if the file has its name, and its head the size.
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
    sha256: str = ""
    row: published.Published | None = None

    def head(self) -> int:
        """Rows of the head; 0 without one."""
        heads = [k for k in self.state if k.endswith(("head.weight", "classifier.weight")) and "decoder" not in k]
        heads = [k for k in heads if k.split(".")[-2] in ("head", "classifier") and self.state[k].ndim == 2]
        return int(self.state[min(heads, key=len)].shape[0]) if heads else 0

    def tubelet_size(self) -> int:
        """Frames that one token covers; 0 without the patch embedding of a video model."""
        kernels = [value for name, value in self.state.items() if name.endswith(_PATCHES) and value.ndim == 5]
        return int(kernels[0].shape[2]) if kernels else 0

    def labels(self) -> tuple[tuple[str, ...] | None, str]:
        """(names of the head's classes, None where they are not known; where they come from)."""
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
    source: str | os.PathLike[str],
    *,
    sha256: str = "",
    model_key: str = "model|module",
    header: bool = False,
    hashed: bool = False,
) -> Weights:
    """Fetches and reads `source`. Raises `CheckpointError`.

    Args:
        sha256: the hash that its file must have. `hashed`: its hash is computed, if it is one file.
        model_key: keys under which the weights may lie, separated by "|"; the first that the file has counts.
        header: `state` has shapes instead of tensors, which are not read.
    """
    path = fetch(source, sha256=sha256)
    digits = open_file(path).sha256() if hashed and path.is_file() else ""
    content = read_header(path) if header else read_content(path)
    if isinstance(content, dict) and isinstance(content.get("conditions"), Mapping):  # only this library's has them
        CHECKPOINT.check(content, source)
    state = adapters.strip_wrappers(state_of(content, str(path), model_key))
    if all(name.startswith("model.") for name in state):  # VideoMAE V2 on the hub
        state, _ = adapters.take_prefix(state, "model.")
    weights = Weights(str(source).partition("#sha256=")[0], path, state, sha256=digits)
    if isinstance(content, dict):
        weights.settings = _settings(content)
        progress = content.get("progress")
        if isinstance(progress, Mapping):
            weights.progress = dict(progress)
        elif isinstance(content.get("epoch"), int):
            weights.progress = {"epoch": content["epoch"]}
    _read_neighbours(weights)
    row = published.find(Path(weights.source).name)
    if row is not None and row.num_classes == weights.head():
        weights.row = row
    return weights


class Head(NamedTuple):
    """Classes of a head, 0 without one; their names where known; whether it may be one of the original's.

    The original's tokens cover one frame. Where they cover two, as VideoMAE's do, the order of classes is not known.
    """

    rows: int
    names: list[str] | None
    may_be_published: bool


def read_head(source: str | os.PathLike[str], *, model_key: str = "model|module") -> Head:
    """The head of `source`, by its header. Raises `CheckpointError`."""
    weights = open_weights(source, model_key=model_key, header=True)
    names, _ = weights.labels()
    return Head(weights.head(), None if names is None else list(names), weights.tubelet_size() <= 1)


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Flags: `config` of a checkpoint of this library, or the `args` that the original pickles."""
    config = content.get("config")
    return dict(config) if isinstance(config, Mapping) else flags_in(content.get("args"))


def _read_neighbours(weights: Weights) -> None:
    """config.json and preprocessor_config.json of an exported or a Hugging Face folder."""
    path = weights.path
    if not path.is_dir() and not path.name.startswith(("model", "pytorch_model", "tf_model")):
        return
    folder = path if path.is_dir() else path.parent
    config = _json(folder / CONFIG)
    videomae_v2 = config.get("model_config")  # its code lies next to it on the hub
    weights.licence = _licence(folder / "README.md")
    if "umt_model" in config:
        weights.description = Description.from_json(config, str(folder / CONFIG))
    elif huggingface.is_huggingface(weights.state):
        weights.config, weights.preprocessor = config, _json(folder / _PREPROCESSOR)
    elif isinstance(videomae_v2, dict) and "img_size" in videomae_v2:
        weights.settings = {"num_frames": videomae_v2.get("num_frames", 16), "input_size": videomae_v2["img_size"]}
        weights.preprocessor = _json(folder / _PREPROCESSOR)
    elif str(config.get("model_type")).startswith("clip"):
        return  # a teacher's: layouts/clip.py
    elif config.get("model_type") and not any(name.endswith("patch_embed.proj.weight") for name in weights.state):
        raise CheckpointError(
            f"{weights.source} is a {config['model_type']} of Hugging Face, which is another architecture. "
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
