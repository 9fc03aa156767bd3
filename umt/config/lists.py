"""The lists that a run reads, from --data_path, --prefix and --split; each of them may be given once for several lists.

A path may be a URL, so it is text here and no `Path`, which would take one of its slashes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from umt.config.schema import Config, DataConfig, FinetuneConfig, PretrainConfig
from umt.data.storage.urls import is_url, join
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


def list_file(folder: str, split: str) -> str:
    """The list of a split: `split.csv`, or in a folder of this machine `split.parquet` where there is no csv."""
    csv, parquet = join(folder, f"{split}.csv"), join(folder, f"{split}.parquet")
    return parquet if not is_url(folder) and os.path.isfile(parquet) and not os.path.isfile(csv) else csv


def training_files(config: Config) -> list[tuple[str, Source]]:
    """The training list of each --data_path."""
    found = sources(config.data)
    if isinstance(config, PretrainConfig):
        return [(source.path, source) for source in found]
    return [(list_file(source.path, "train"), source) for source in found]


def evaluation_files(config: FinetuneConfig) -> list[tuple[str, Source]]:
    """The lists of validation and test: those of the first --data_path, whatever else is trained on."""
    first = sources(config.data)[0]
    evaluation = config.evaluation
    splits = ["test"] if evaluation.eval or evaluation.disable_eval_during_finetuning else ["val", "test"]
    return [(list_file(first.path, split), first) for split in splits]


def list_files(config: Config) -> list[tuple[str, Source]]:
    """All lists that this run reads."""
    if isinstance(config, PretrainConfig):
        return training_files(config)
    return ([] if config.evaluation.eval else training_files(config)) + evaluation_files(config)
