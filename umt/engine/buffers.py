"""Buffers that training moves: what processes agree on, what each keeps to itself, and what they add up.

Batch normalisation and class memories change buffers in the forward pass, on each process by its own samples. For
validation, for the test and in the weights that others load, processes agree on a copy; training goes on with each
process's own, so that a save or a validation at any moment changes nothing in what follows. Buffers that count samples
are summed over processes at each step, so that they are the same everywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from umt.engine import runtime

KEY = "buffers"  # of a checkpoint: a list with the buffers of each process


class Buffers:
    """Those of one model, by name."""

    def __init__(self, model: nn.Module, *, averaged: Sequence[str] = (), summed: Sequence[str] = ()) -> None:
        """`averaged` and `summed`: see `Task.averaged_buffers` and `Task.summed_buffers`."""
        self.model = model
        self.averaged, self.summed = list(averaged), list(summed)
        self._before: dict[str, Tensor] = {}

    def __bool__(self) -> bool:
        """Whether training moves any buffer on each process by itself."""
        return bool(self.averaged)

    # ---- agreement

    @contextlib.contextmanager
    def agreed_in(self, model: nn.Module) -> Iterator[None]:
        """Collective. `model` (of the same names, perhaps an average) has the agreed buffers until the block ends."""
        held = _buffers(model, self.averaged)
        before = {name: value.clone() for name, value in held.items()}
        _put(held, _agreed(held))
        try:
            yield
        finally:
            _put(held, before)

    def agreed_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Collective. A state dict with the agreed buffers in place of this process's."""
        return {**state, **_agreed({name: state[name] for name in self.averaged if name in state})}

    # ---- each process's own

    def of_each(self, *models: nn.Module) -> list[list[dict[str, Tensor]]]:
        """Collective. By process: the buffers of each of `models`, as its training has them."""
        mine = [{n: v.detach().cpu().clone() for n, v in _buffers(m, self.averaged).items()} for m in models]
        return runtime.gather_objects(mine)

    def take_up(self, content: Sequence[Sequence[Mapping[str, Tensor]]], *models: nn.Module) -> bool:
        """This process's part of what `of_each` gave; whether there is one: another number of processes has none."""
        if len(content) != runtime.world_size():
            return False
        for model, values in zip(models, content[runtime.rank()], strict=False):
            _put(_buffers(model, self.averaged), values)
        return True

    # ---- sums

    def start_step(self) -> None:
        """Remembers what the summed buffers were before the step."""
        self._before = {name: value.clone() for name, value in _buffers(self.model, self.summed).items()}

    def end_step(self, *, updated: bool) -> None:
        """Collective. Sums what the step added over processes; a step that moved no weights leaves no trace."""
        held = _buffers(self.model, self.summed)
        for name, before in self._before.items():
            added = runtime.reduce_sum(held[name] - before) if updated else 0
            held[name].copy_(before + added)


def _buffers(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    return {name: model.get_buffer(name) for name in names}


@torch.no_grad()
def _put(held: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        held[name].copy_(value)


def _agreed(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Collective. Means over processes: in float64, so that their order plays no part; of counts, whole numbers."""
    size = runtime.world_size()
    if size == 1:
        return dict(values)
    return {
        name: (runtime.reduce_sum(value.double()) / size).to(value.dtype)
        if value.is_floating_point()
        else runtime.reduce_sum(value) // size
        for name, value in values.items()
    }
