"""Where the weights of a CLIP come from: the file, its hash, and which activation its tower was trained with."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from umt.errors import CheckpointError, ConfigError
from umt.models.files.checkpoint_file import read_state_dict, weights_files
from umt.models.files.fetch import fetch
from umt.models.files.opened import open_file
from umt.models.files.torchscript_file import read_torchscript
from umt.models.layouts import clip as clip_layouts
from umt.models.layouts.adapters import StateDict, strip_wrappers

log = logging.getLogger(__name__)
T = TypeVar("T")

MODEL_KEY = "model|module|state_dict"  # the last is open_clip's training checkpoints'

_OPENAI = "https://openaipublic.azureedge.net/clip/models"
# OpenAI's own archives. Their code (openai/CLIP, clip/clip.py) has these addresses, and the sha256 is part of each.
PUBLISHED = {
    "clip_b16": ("5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "ViT-B-16.pt"),
    "clip_l14": ("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "ViT-L-14.pt"),
    "clip_l14_336": ("3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02", "ViT-L-14-336px.pt"),
}
# The same weights on timm's place of the hub.
TIMM = {
    "clip_b16": "hf://timm/vit_base_patch16_clip_224.openai",
    "clip_l14": "hf://timm/vit_large_patch14_clip_224.openai",
    "clip_l14_336": "hf://timm/vit_large_patch14_clip_336.openai",
}
# Files of a repository of the hub, in the order in which they are looked for; the configuration lies next to them.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Source:
    """A file, or a folder of shards, and what is known of it apart from its content."""

    name: str  # as the user gave it
    path: Path
    sha256: str  # of several shards: joined by blanks
    checked: str  # what the hash was compared with


def find(name: str, model: str, sha256: str) -> Source:
    """The weights that --from names, on this machine. Raises `CheckpointError`, also for another hash."""
    expected, checked = sha256, "as --sha256 says"
    if name == "timm":
        name = _published(TIMM, name, model)
    elif name == "openai":
        digest, file = _published(PUBLISHED, name, model)
        name = f"{_OPENAI}/{digest}/{file}"
        if not expected:
            expected, checked = digest, "as OpenAI publishes it"
    is_repository = name.startswith("hf://") and name.removeprefix("hf://").count("/") == 1
    path = fetch(name, sha256="" if is_repository else expected)
    if path.is_dir() and (inside := [path / file for file in _WEIGHTS if (path / file).is_file()]):
        path = inside[0]
        if expected:
            fetch(path, sha256=expected)
    files = weights_files(path)
    digests = [open_file(file).sha256() for file in files]
    if not expected:
        known = dict(PUBLISHED.values())
        checked = "nothing to compare it with; --sha256 HEX would check it"
        if digests[0] in known:
            checked = f"OpenAI's published {known[digests[0]]}"
    return Source(name, path, " ".join(digests), checked)


def _published(table: Mapping[str, T], place: str, model: str) -> T:
    if model not in table:
        raise ConfigError(f"--from {place} has no {model}. It has {', '.join(table)}; give a file for others.")
    return table[model]


def read(source: Source) -> tuple[StateDict, tuple[str, ...]]:
    """The state dict of the source, and of a TorchScript archive the names of its classes. Raises `CheckpointError`."""
    if source.path.is_file() and (file := open_file(source.path)).format == "torchscript":
        archive = read_torchscript(source.path)
        file.close()
        return strip_wrappers(archive.state), archive.types
    return strip_wrappers(read_state_dict(source.path, model_key=MODEL_KEY)), ()


def activation_of(source: Source, names: Collection[str], classes: Sequence[str], flag: str) -> tuple[str, str]:
    """("quick_gelu", what says so). Raises `CheckpointError` for another activation, and where nothing says it.

    `names`: those of the state dict. `classes`: those of a TorchScript archive.
    """
    stated = _stated_activation(source, names, classes)
    if stated is None:
        if not flag:
            raise CheckpointError(
                f"{source.path} does not say whether its MLPs have QuickGELU, as OpenAI's and open_clip's -quickgelu "
                "models, or GELU, as most others of open_clip's; names and shapes are the same. "
                "Look where it comes from, and say --activation quick_gelu or gelu."
            )
        stated = flag, "as --activation says"
    activation, because = stated
    if flag and flag != activation:
        raise ConfigError(f"--activation ({flag}) contradicts {source.path}: {activation}, {because}.")
    if activation != "quick_gelu":
        raise CheckpointError(clip_layouts.other_activation(str(source.path), activation, because))
    return activation, because


def _stated_activation(source: Source, names: Collection[str], classes: Sequence[str]) -> tuple[str, str] | None:
    path = source.path
    if any(digest in source.sha256 for digest, _ in PUBLISHED.values()):
        return "quick_gelu", "OpenAI's published file"
    kinds = {name.rsplit(".", 1)[-1] for name in classes}
    for kind, activation in (("QuickGELU", "quick_gelu"), ("GELU", "gelu")):
        if kind in kinds:
            return activation, "the archive has modules of that name"
    stated = clip_layouts.configured_activation(path if path.is_dir() else path.parent)
    if stated is not None:
        return stated, "as the configuration next to it says"
    if source.name.startswith("hf://timm/"):
        stated = clip_layouts.activation_of_timm(source.name.split("/")[3])
    if stated is not None or "quickgelu" in source.name.lower():
        return stated or "quick_gelu", "as its name says"
    if {"input_resolution", "context_length", "vocab_size"} <= set(names):
        return "quick_gelu", "OpenAI's archives have its further entries"
    return None
