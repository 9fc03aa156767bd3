"""The lists that a run reads, from --data_path, --prefix and --split; each of them may be given once for several lists.

A path may be a URL, so it is text here and no `Path`, which would take one of its slashes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from umt.config.schema import Config, DataConfig, FinetuneConfig, PretrainConfig
from umt.data.lists.split_files import SplitFile, list_file, lists_in, split_file
from umt.data.storage.urls import is_url
from umt.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """One --data_path: a list (pretraining) or a folder of lists (finetuning), with its prefix and separator."""

    path: str
    prefix: str
    separator: str


def sources(data: DataConfig) -> tuple[Source, ...]:
    """One a --data_path. Raises ConfigError where --prefix, --split or --data_weights have another number of values."""
    paths = _several(data.data_path)
    columns = []
    for flag, given in (("prefix", data.prefix), ("split", data.split)):
        values = _several(given)
        if len(values) not in (1, len(paths)):
            raise ConfigError(
                f"--{flag} ({' '.join(values)}) has {len(values)} values for {len(paths)} lists of --data_path. "
                "Give one for all, or one for each."
            )
        columns.append(values * len(paths) if len(values) == 1 else values)
    weights = data.data_weights
    if weights is not None and len(weights) != len(paths):
        raise ConfigError(
            f"--data_weights ({' '.join(f'{w:g}' for w in weights)}) has {len(weights)} values for {len(paths)} lists "
            f"of --data_path. Give one for each."
        )
    return tuple(Source(*values) for values in zip(paths, *columns, strict=True))


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def split_of(config: FinetuneConfig, folder: str, split: str) -> SplitFile:
    """The list that serves as `split`. One's own lists may lack val and test, where the folder can be looked at."""
    if config.data.data_set != "video_list" or is_url(folder):
        return SplitFile(list_file(folder, split))
    there = lists_in(folder)
    if not there or not os.path.basename(there[0]).startswith("train."):
        return SplitFile(list_file(folder, "train"))
    return split_file(folder, split, there)


def training_files(config: Config) -> list[tuple[str, Source]]:
    """The training list of each --data_path."""
    found = sources(config.data)
    if isinstance(config, PretrainConfig):
        return [(source.path, source) for source in found]
    return [(split_of(config, source.path, "train").path, source) for source in found]


def splits(config: FinetuneConfig) -> list[tuple[str, Source]]:
    """What this run reads: train of each --data_path; val and test of the first, whatever else is trained on."""
    found, evaluation = sources(config.data), config.evaluation
    training = [] if evaluation.eval else [("train", source) for source in found]
    validation = [] if evaluation.eval or evaluation.disable_eval_during_finetuning else [("val", found[0])]
    return [*training, *validation, ("test", found[0])]


def list_files(config: Config) -> list[tuple[str, Source]]:
    """All lists that this run reads."""
    if isinstance(config, PretrainConfig):
        return training_files(config)
    return [(split_of(config, source.path, split).path, source) for split, source in splits(config)]
