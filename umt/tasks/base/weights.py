"""Which kind of work weights are for. Apart, because it looks into files of weights, which the engine must not know."""

from __future__ import annotations

from umt.models.files.peek import peek
from umt.tasks.base import UNSTATED, Kind, kind_of


def kind_of_weights(source: str) -> Kind:
    """The kind of what a checkpoint was trained for; weights that do not state it are those of a classifier."""
    return kind_of(str(peek(source).config.get("task", UNSTATED)) if source else UNSTATED)
