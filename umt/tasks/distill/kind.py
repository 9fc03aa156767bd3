"""What pretraining offers to the tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umt.tasks.base import Kind, Task

KIND = Kind(
    about="pretraining by an image teacher",
    task="umt.tasks.distill.kind:task_from_record",
    plan="umt.tasks.distill.sizing:DistillSizing",
    show="umt.tasks.distill.shown:DistillShown",
)


def task_from_record(record: Mapping[str, Any]) -> Task:
    """The task of a checkpoint's record, its student with new weights."""
    from umt.tasks.distill.data import make_task
    from umt.tasks.distill.recipe import DistillRecipe

    return make_task(DistillRecipe.from_record(record))
