"""A file's state dict on its way into a model, and the report of what became of every weight.

`load_weights` makes the plan; the model changes it in its `fit_weights`, so that names and shapes become its own. No
model is touched before the plan is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from umt.models.layouts.adapters import StateDict
from umt.models.specs import Grid


@dataclass
class LoadReport:
    """What became of every weight. `adapted` says how; `new` kept its initial values; `unused` stayed in the file."""

    path: str
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {len(self.loaded)} loaded, {len(self.adapted)} adapted, {len(self.new)} new, "
            f"{len(self.unused)} unused"
        ]
        lines += [f"  adapted  {name}: {how}" for name, how in self.adapted.items()]
        lines += [f"  new      {names}" for names in _grouped(self.new)]
        lines += [f"  unused   {names}" for names in _grouped(self.unused)]
        return "\n".join(lines)


@dataclass
class Plan:
    """The state dict, and what the caller of `load_weights` asks for.

    Attributes:
        file: where the weights lie on this machine, a file or a folder.
        new_head, head_rows, source_grid: arguments of `load_weights`.
        may_be_new: names of the model's weights that the file need not have.
    """

    state: StateDict
    report: LoadReport
    file: Path
    new_head: bool = False
    head_rows: Sequence[int] | None = None
    source_grid: Grid | None = None
    may_be_new: set[str] = field(default_factory=set)

    def leave(self, names: Iterable[str]) -> None:
        """Takes names of the state dict out and lists them as unused."""
        for name in list(names):
            del self.state[name]
            self.report.unused.append(name)


@runtime_checkable
class FitsWeights(Protocol):
    """A model that `load_weights` can load."""

    def fit_weights(self, plan: Plan) -> None:
        """Brings `plan.state` to the names and shapes of this model; what it changes, it notes in `plan.report`.

        Raises `CheckpointError` for what cannot fit.
        """
        ...


def _grouped(names: Sequence[str]) -> list[str]:
    """Names by their first part, so that hundreds fit in a few lines: `clip_decoder.* (24)`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split(".")[0], []).append(name)
    return [f"{part}.* ({len(group)})" if len(group) > 1 else group[0] for part, group in groups.items()]
