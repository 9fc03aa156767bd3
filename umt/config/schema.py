"""Every flag with its type, default, range and meaning, for pretraining and for finetuning: what a run is made of.

`recipe_flags.py` has the flags of what is learnt, `run_flags.py` those of how it is run.

Names and defaults are those of the original's command line, with these exceptions, each because the original's default
could not run UMT at all: for pretraining the model, the mask, the tubelet, the sampling and the decoder widths (which
are taken from student and teacher unless given). `docs/migrate.md` lists them. What is checked here is one value at a
time; `checks.py` holds values against each other, `plan.py` computes what follows from them.
"""

from __future__ import annotations

import dataclasses
import shlex
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar

from umt.config.flags import Group
from umt.config.recipe_flags import (
    DECODERS,
    ORDERS,
    ClassifierConfig,
    DataConfig,
    FinetuneAugmentConfig,
    FinetuneDataConfig,
    FinetuneOptimConfig,
    OptimConfig,
    PretrainAugmentConfig,
    PretrainDataConfig,
    PretrainOptimConfig,
    StudentConfig,
    TeacherConfig,
)
from umt.config.run_flags import CheckpointConfig, EvalConfig, ParallelConfig, PretrainCheckpointConfig, RuntimeConfig

__all__ = [
    "CONFIGS", "DECODERS", "ORDERS", "Choice", "Config", "DataConfig", "FinetuneConfig", "FinetuneDataConfig",
    "OptimConfig", "PretrainConfig", "build", "flatten", "groups",
]  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A value that nobody gave: chosen for one's own videos by what was found (docs/own_dataset.md), and why."""

    flag: str
    value: Any
    why: str

    @property
    def shown(self) -> str:
        """The value as typed on a command line."""
        if isinstance(self.value, float):
            return f"{self.value:g}"
        if isinstance(self.value, tuple):
            return shlex.join(f"{value:g}" if isinstance(value, float) else str(value) for value in self.value)
        return shlex.quote(str(self.value).replace("\t", "\\t"))


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run: a student is aligned with a frozen image teacher."""

    task: ClassVar[str] = "pretrain"
    model: StudentConfig = field(default_factory=StudentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    data: PretrainDataConfig = field(default_factory=PretrainDataConfig)
    augment: PretrainAugmentConfig = field(default_factory=PretrainAugmentConfig)
    optim: PretrainOptimConfig = field(default_factory=PretrainOptimConfig)
    checkpoint: PretrainCheckpointConfig = field(default_factory=PretrainCheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass(frozen=True)
class FinetuneConfig:
    """A finetuning run: a classifier is trained, validated and tested."""

    task: ClassVar[str] = "finetune"
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    augment: FinetuneAugmentConfig = field(default_factory=FinetuneAugmentConfig)
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    chosen: tuple[Choice, ...] = ()  # no flag: which of the values above nobody gave, and why they are what they are


Config = PretrainConfig | FinetuneConfig
CONFIGS: dict[str, type[PretrainConfig] | type[FinetuneConfig]] = {
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
}


def groups(config: type[PretrainConfig] | type[FinetuneConfig]) -> dict[str, type[Group]]:
    """The groups of a run's flags, in order."""
    hints = typing.get_type_hints(config)
    return {f.name: hints[f.name] for f in dataclasses.fields(config) if f.name != "chosen"}


def build(task: str, values: dict[str, Any], chosen: tuple[Choice, ...] = ()) -> Config:
    """A run from flat flag names and typed values; what is not named keeps its default. KeyError for another name.

    `chosen`: which of the values of a finetuning nobody gave.
    """
    left = dict(values)
    parts: dict[str, Any] = {}
    for name, group in groups(CONFIGS[task]).items():
        names = [f.name for f in dataclasses.fields(group)]
        parts[name] = group(**{n: left.pop(n) for n in names if n in left})
    if left:
        raise KeyError(f"no flag of {task} is called {', '.join(left)}")
    if chosen:
        parts["chosen"] = chosen
    return CONFIGS[task](**parts)


def flatten(config: Config) -> dict[str, Any]:
    """Every flag and its value, flat, as `build` takes it."""
    return {flag: value for part in groups(type(config)) for flag, value in vars(getattr(config, part)).items()}
