"""What classification of clips offers to the tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umt.tasks.base import Kind, Task

KIND = Kind(
    about="classification of clips",
    task="umt.tasks.classify.kind:task_from_record",
    plan="umt.tasks.classify.sizing:ClassifySizing",
    show="umt.tasks.classify.shown:ClassifyShown",
)


def task_from_record(record: Mapping[str, Any]) -> Task:
    """The task of a checkpoint's record, its classifier with new weights."""
    from umt.tasks.classify.build import make_task
    from umt.tasks.classify.recipe import ClassifyRecipe

    return make_task(ClassifyRecipe.from_record(record), weights=False, loss_weights=record.get("loss_weights"))
