"""All that the engine, a run and the tools know of a task. Importing this file needs no torch.

A kind of work is a folder with a `Recipe` (its flags, what they must satisfy, and what is built from them), a `Task`
(the method), `Results` (what a test collects; `umt.evaluation.results`) and a `Kind` (what it offers to the tools).
`TASKS` names them as text; a package of yours adds its own by an entry point of the group `umt.tasks`
(docs/extend.md).
"""

from __future__ import annotations

import importlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from umt.errors import ConfigError
from umt.flags.flag_groups import Choice, FlagGroups
from umt.flags.loading import LoadingConfig
from umt.flags.optim import OptimConfig
from umt.flags.run import CheckpointConfig, ParallelConfig, RuntimeConfig
from umt.spelling import did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from umt.evaluation.results import Results, Summary
    from umt.processes import World

# Command -> its recipe, and what `umt --help` says of it.
TASKS = {
    "pretrain": ("umt.tasks.distill.recipe:DistillRecipe", "align a student with a frozen image teacher"),
    "finetune": ("umt.tasks.classify.recipe:ClassifyRecipe", "train, validate and test a classifier"),
}
# Another name of a command with flags of its own.
ALIASES = {"test": ("finetune", ("--eval",), "test a classifier from many views (finetune --eval)")}
ENTRY_POINTS = "umt.tasks"
# What weights are for that do not say it: files of the original and of other libraries.
UNSTATED = "finetune"


# ---- the method


@dataclass
class StepOutput:
    """`loss` is a mean over the micro-batch (a float32 scalar with a graph); `metrics` are detached scalars to log."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Task(ABC):
    """One thing that can be trained. It never sees devices, precision, distribution or logging: the engine does.

    `model` is what is trained. The engine may put a wrapper (DDP, torch.compile) in its place before the first step, so
    a step calls `self.model` and nothing reaches into its insides.
    """

    model: nn.Module

    @abstractmethod
    def training_step(self, batch: Any, seed: int) -> StepOutput:
        """Loss of one micro-batch. `seed` is a function of (run seed, step, micro-step, rank), for mixup and such."""

    def evaluation_step(self, batch: Any) -> Any:
        """What the task's `Results` take of a batch. Only tasks that can be evaluated have it."""
        raise TypeError(f"{type(self).__name__} has nothing to evaluate")

    def alone(self, batch: Any, index: int) -> Any:
        """Sample `index` as a batch whose training loss is that sample's, for the report on a step that failed."""
        return next(iter(itertools.islice(batch.parts(1), index, None)))

    def batch_from(self, state: Mapping[str, Any]) -> Any:
        """The batch that gave `Batch.state_dict`."""
        raise TypeError(f"{type(self).__name__} cannot take up a saved batch")

    def to(self, device: torch.device) -> None:
        """Moves the model and whatever else the task holds (a frozen teacher) to `device`."""
        self.model.to(device)

    def averaged_buffers(self) -> Sequence[str]:
        """Names of the model's buffers that training moves on each process by its own samples.

        Processes agree on their mean for validation, for the test and in the weights that others load; training goes on
        with each process's own. Default: the running statistics of batch normalisation.
        """
        from umt.layers.buffers import running_statistics

        return running_statistics(self.model)

    def summed_buffers(self) -> Sequence[str]:
        """Names of the model's buffers that count or add up samples: what a step adds to them is summed over processes.

        So they are the same on every process, and the same as one process would have with all samples of the step.
        """
        return ()

    def end_step(self) -> None:
        """Called on every process when the weights have moved and the summed buffers are the same everywhere."""

    def state_dict(self) -> dict[str, Any]:
        """State beyond `model`: tensors, numbers, strings, plain containers only. A frozen teacher is not state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""


# ---- a run


class Place(Protocol):
    """Where a run computes (`umt.engine.runtime.Runtime`)."""

    @property
    def device(self) -> torch.device: ...
    @property
    def precision(self) -> str: ...
    @property
    def world(self) -> World: ...
    @property
    def is_main(self) -> bool: ...


class Alone:
    """A `Place` of one process on the CPU, for tools that look at what a run would see."""

    precision = "fp32"
    is_main = True

    @property
    def device(self) -> torch.device:
        """The CPU."""
        import torch

        return torch.device("cpu")

    @property
    def world(self) -> World:
        """No other process."""
        from umt.processes import World

        return World()


@dataclass(frozen=True)
class Start:
    """A checkpoint that a run goes on from or tests, and the record that it keeps (`Parts.record`)."""

    path: Path
    record: Mapping[str, Any]


class TrainingData(Protocol):
    """Micro-batches of this process, in an order that depends on the epoch's number alone."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""

    def __len__(self) -> int:
        """Rows of the training list."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """This process's micro-batches of `epoch` from number `start` on, without decoding those before it."""

    def close(self) -> None:
        """Ends worker processes."""


@dataclass(frozen=True)
class EvaluationSet:
    """A list that is validated on or tested.

    Attributes:
        loader: makes this process's batches without the rows that it is given, which are finished.
        results: provenance (the weights and their digest, the precision) -> empty results.
        about: what is done, for the log: "5 videos, 4 clips x 3 crops".
        batch_size: samples in one forward pass, at most; None: a batch at a time.
        unreadable_is_wrong: rows that cannot be read count as wrong instead of ending the evaluation.
        unit: what its rows are, for the progress bar.
    """

    loader: Callable[[frozenset[int]], Iterable[Any]]
    results: Callable[[Mapping[str, str | int | float]], Results]
    about: str = ""
    batch_size: int | None = None
    unreadable_is_wrong: bool = False
    unit: str = "video"


@dataclass(frozen=True)
class Outcome:
    """What a finished run has come to, for its own report. For the main process."""

    summary: Summary
    path: Path | None  # of the results
    best_epoch: int | None
    failed_rows: Sequence[int]  # training rows that could not be read


@dataclass
class Parts:
    """What a run is made of, built by its recipe on the run's device.

    Attributes:
        task: with the weights that the flags name, unless the run goes on from a checkpoint.
        train: None where nothing is trained.
        validation, test: None where there is none.
        record: what the checkpoints keep, plain values: every flag, and what was settled beyond them.
        parameter_groups: of the optimiser.
        best_metric: of the validation, by which the best checkpoint is chosen; greater is better.
        ema_decay: of a moving average of the weights; None: none is kept.
        files: name -> text of files in the output folder that say what the run is.
        notes: lines for the log before the first step.
        report: judges a finished run; None: nothing to add to the test's own table.
    """

    task: Task
    record: dict[str, Any]
    train: TrainingData | None = None
    validation: EvaluationSet | None = None
    test: EvaluationSet | None = None
    parameter_groups: list[dict[str, Any]] = field(default_factory=list)
    best_metric: str = "acc1"
    ema_decay: float | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    report: Callable[[Outcome], None] | None = None


class Recipe(FlagGroups, ABC):
    """A run as its flags ask for it: a frozen dataclass of groups of flags. No torch before `build`.

    A recipe of your own names the groups below among its fields, each perhaps derived from the shared one, and adds
    its own; `choices` tells which values were not given but chosen by what was found.
    """

    kind: ClassVar[str]
    """Its `Kind`, as module:NAME; imported when a tool asks."""

    variables: ClassVar[Mapping[str, str]] = {}
    """Flag of weights -> environment variable from which the experiment scripts take it."""

    loading: LoadingConfig
    optim: OptimConfig
    checkpoint: CheckpointConfig
    parallel: ParallelConfig
    runtime: RuntimeConfig
    choices: tuple[Choice, ...]

    @classmethod
    def complete(cls, values: dict[str, Any], world_size: int) -> tuple[dict[str, Any], tuple[Choice, ...]]:
        """The given values with those that are chosen for what was not given, and these choices."""
        return values, ()

    @property
    def only_tests(self) -> bool:
        """Whether nothing is trained."""
        return False

    @property
    def tests_best(self) -> bool:
        """Whether the best checkpoint is tested instead of the last."""
        return False

    @property
    def copies(self) -> int:
        """Samples that one row gives in a batch; the learning rate scales with them."""
        return 1

    def check(self) -> None:
        """Raises ConfigError for the first contradiction between the task's flags."""

    def check_files(self) -> None:
        """Raises AnnotationError, CheckpointError or ConfigError for lists and files that do not serve."""

    def weights(self) -> dict[str, str]:
        """Flag -> file, folder, URL or name of weights that a run reads before its first step; empty ones left out."""
        return {}

    def initial_weights(self) -> str:
        """The flag among `weights` that a run which goes on from a checkpoint does without; "" for none."""
        return ""

    @abstractmethod
    def training_rows(self) -> tuple[int | None, str]:
        """Rows of the training list, None where nobody can know, and where the number comes from."""

    @abstractmethod
    def facts(self, rows: str) -> dict[str, str]:
        """What `--dry_run` prints of model and data, a line each; `rows`: the training rows, as text."""

    def derived(self) -> dict[str, Any]:
        """What follows from the flags, for config.json; plain values."""
        return {}

    def remarks(self) -> list[str]:
        """Lines that `--dry_run` adds at its end."""
        return []

    def warning(self) -> str:
        """A sentence on what the chosen values cannot make good; "" for none."""
        return ""

    @abstractmethod
    def build(self, place: Place, start: Start | None = None) -> Parts:
        """The parts of this run. With `start`, weights are left to the caller, who loads that checkpoint's.

        Raises ConfigError, AnnotationError, CheckpointError.
        """

    def record(self) -> dict[str, Any]:
        """Every flag as a plain value, and the command: what a checkpoint keeps, at the least."""
        return {"task": self.command, **self.values()}


# ---- what a task offers to the tools


@dataclass(frozen=True)
class Kind:
    """What a task offers to the tools, each as "module:NAME", imported when it is asked for; "": it has no such thing.

    The protocols are in the tools' own files: `umt.tools.<command>.base`.
    """

    about: str  # in a sentence: "predicts <about>"
    task: str  # the record of a checkpoint -> the task again, on the CPU, with weights to be loaded
    load: str = ""
    predict: str = ""
    export: str = ""
    check: str = ""
    show: str = ""
    plan: str = ""

    def offer(self, what: str) -> Any:
        """The thing that a tool asks for. Raises ConfigError with the kinds that have it."""
        reference = getattr(self, what)
        if not reference:
            able = [command for command in TASKS if getattr(kind_of(command), what)]
            raise ConfigError(f"umt {what} does not know {self.about}. It takes what umt {', '.join(able)} trains.")
        return resolve(reference)


def resolve(reference: str) -> Any:
    """What "module:NAME" names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def entry_points() -> dict[str, Any]:
    """Tasks of other packages, by command. Looked for only when a command is not known, and for --help."""
    from importlib import metadata

    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def recipe_class(command: str) -> type[Recipe]:
    """The recipe of `umt COMMAND`. Raises ConfigError for a command that is none of a task."""
    if command in TASKS:
        recipe: type[Recipe] = resolve(TASKS[command][0])
        return recipe
    others = entry_points()
    if command in others:
        recipe = others[command].load()
        return recipe
    raise ConfigError(f"'{command}' is no task of this installation. {did_you_mean(command, [*TASKS, *others])}")


def kind_of(command: str) -> Kind:
    """The kind of `umt COMMAND`."""
    kind: Kind = resolve(recipe_class(command).kind)
    return kind
