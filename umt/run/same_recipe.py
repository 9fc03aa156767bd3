"""Whether a checkpoint belongs to the run that finds it: what may change between two starts of one run, and what not.

A run that is started again goes on from its own checkpoint without being asked. So it must not take up another
recipe's, left in the same folder, unless a person names that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umt.errors import CheckpointError
from umt.flags.flag_groups import FlagGroups
from umt.flags.group import rule_of


def changes(recipe: type[FlagGroups], then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(flags that make another recipe, flags whose change is allowed and reported), as `--name then -> now`.

    Each flag, or its group, says which it is (`Group.on_resume`).

    Args:
        recipe: what is run now.
        then: flags by name, as a checkpoint has them; a flag that it does not know is no change.
        now: the same of this run.
    """
    if then.get("task", recipe.command) != recipe.command:
        return [f"task {then['task']} -> {recipe.command}"], []
    lists: dict[str, list[str]] = {"refuse": [], "say": [], "ignore": []}
    for group, field in recipe.flags():
        flag = field.name
        if flag in then and flag in now and _plain(then[flag]) != _plain(now[flag]):
            change = f"--{flag} {_shown(then[flag])} -> {_shown(now[flag])}"
            lists[rule_of(field).on_resume or group.on_resume].append(change)
    return lists["refuse"], lists["say"]


def require_same(
    path: str, recipe: type[FlagGroups], then: Mapping[str, Any], now: Mapping[str, Any], *, named: bool
) -> list[str]:
    """What changed since the checkpoint `path` was made and may change; `named`: a person asked for this file.

    Raises:
        CheckpointError: it is another recipe's and nobody asked for it, or another task's.
    """
    refused, allowed = changes(recipe, then, now)
    other_task = then.get("task", recipe.command) != recipe.command
    if refused and (other_task or not named):
        more = f" and {len(refused) - 4} more" if len(refused) > 4 else ""
        go_on = "" if other_task else f", or --resume {path} to go on from it all the same"
        raise CheckpointError(
            f"{path} is of another recipe ({', '.join(refused[:4])}{more}), so this run does not go on from it. "
            f"Give another --output_dir, or --no_auto_resume to start again in this one{go_on}."
        )
    return refused + allowed


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
