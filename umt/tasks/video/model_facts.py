"""What is known of a model of videos before torch is imported: sizes, tokens, and the lines of a dry run."""

from __future__ import annotations

import logging
from pathlib import Path

from umt.data.storage.urls import is_url
from umt.errors import ConfigError
from umt.models.files.fetch import is_remote
from umt.models.specs import SPECS, ModelSpec
from umt.spelling import nearest
from umt.tasks.video.flags import DataConfig, ModelConfig
from umt.tasks.video.sources import sources

log = logging.getLogger("umt")


def spec(flag: str, name: str, kind: str) -> ModelSpec:
    """Sizes of the model `name` that `flag` asks for; ConfigError unless it exists and is of that kind."""
    names = [n for n, s in SPECS.items() if s.kind == kind]
    if name in names:
        return SPECS[name]
    near = nearest(name, names, cutoff=0.4) or names
    what = f"is a {SPECS[name].kind}, not a {kind}" if name in SPECS else "is not a model of this library"
    raise ConfigError(f"--{flag} ({name}) {what}. Try --{flag} {' or '.join(near)}.")


def token_grid(model: ModelConfig, num_frames: int, patch: int) -> tuple[int, int, int]:
    """(T', H', W') tokens of a clip; ConfigError where frames or pixels do not divide into tokens of `patch` pixels."""
    check_divides("input_size", model.input_size, patch, f"the patch of {model.model}")
    if num_frames % model.tubelet_size:
        near = max(num_frames // model.tubelet_size, 1) * model.tubelet_size
        raise ConfigError(
            f"--num_frames ({num_frames}) must be a multiple of --tubelet_size ({model.tubelet_size}). "
            f"Try --num_frames {near}."
        )
    side = model.input_size // patch
    return num_frames // model.tubelet_size, side, side


def check_divides(flag: str, size: int, patch: int, what: str) -> None:
    """Raises ConfigError unless `size` pixels are whole patches."""
    if size % patch:
        near = [n * patch for n in (size // patch, size // patch + 1) if n]
        raise ConfigError(
            f"--{flag} ({size}) must be a multiple of {patch}, {what}. Try --{flag} {' or '.join(map(str, near))}."
        )


def check_recomputation(model: ModelConfig) -> None:
    """Warns of a number of blocks that has no effect."""
    if model.checkpoint_num and not model.use_checkpoint:
        log.warning("--checkpoint_num (%d) has no effect without --use_checkpoint.", model.checkpoint_num)


def there(path: str) -> str:
    """`path`, with a note where nothing is there."""
    known = is_url(path) or is_remote(path) or Path(path.split("#sha256=")[0]).exists()
    return path if known else f"{path} (not there)"


def model_facts(model: ModelConfig, sizes: ModelSpec, num_frames: int) -> dict[str, str]:
    """Lines of a dry run."""
    t, h, w = token_grid(model, num_frames, sizes.patch_size)
    recompute = (
        f"; first {model.checkpoint_num} blocks recompute" if model.use_checkpoint and model.checkpoint_num else ""
    )
    return {
        "model": f"{model.model}: width {sizes.width}, {sizes.depth} blocks, {sizes.heads} heads, "
        f"drop path {model.drop_path:g}{recompute}",
        "input": f"{num_frames} frames of {model.input_size} x {model.input_size}, tubelet {model.tubelet_size}",
        "tokens": f"{t} x {h} x {w} = {t * h * w}",
    }


def data_facts(data: DataConfig, lists: str, rows: str) -> dict[str, str]:
    """Lines of a dry run. `lists`: where the rows are; `rows`: how many."""
    given = sources(data)
    separators, prefixes = ([*dict.fromkeys(x)] for x in zip(*((s.separator, s.prefix) for s in given), strict=True))
    facts = {
        "data": f"{data.data_set}, separator {' '.join(map(repr, separators))}, prefix {' '.join(map(repr, prefixes))}",
        "lists": lists if data.data_path else "none",
        "videos": rows,
        "copies": f"{data.num_sample} of a video in a batch",
    }
    if len(given) > 1:
        shares = "their sizes" if data.data_weights is None else " : ".join(f"{w:g}" for w in data.data_weights)
        facts["mixture"] = f"{len(given)} training lists, drawn like {shares}"
    if data.shard_shuffle:
        facts["order"] = f"shard by shard, {data.shard_shuffle} at a time"
    if data.cache_dir:
        facts["cache"] = f"{data.cache_dir}, at most {data.cache_size_gb:g} GB"
    return facts


def listed(files: list[str]) -> str:
    """The lists of a run, each once."""
    return ", ".join(map(there, dict.fromkeys(files)))
