"""argv -> a recipe: typed, complete, and held against every check. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence

from umt.flags.parser import fit_default_warmup, parse_values
from umt.processes import announced_size
from umt.run import checks
from umt.tasks.base import ALIASES, Recipe, recipe_class


def parse(command: str, argv: Sequence[str], *, files: bool = True) -> Recipe:
    """The run that `umt COMMAND ARGV` asks for: typed, in range and free of contradictions.

    Raises ConfigError with one sentence that names the flag, its value and the remedy. With `files`, lists, weights and
    the output folder are looked at too, unless the run is only to be printed (`--dry_run`).
    """
    if command in ALIASES:
        command, more, _ = ALIASES[command]
        argv = [*argv, *more]
    flags = recipe_class(command)
    values, choices = flags.complete(parse_values(flags, argv), announced_size(os.environ))
    recipe = flags.from_values(fit_default_warmup(flags, values), **({"choices": choices} if choices else {}))
    checks.check(recipe)
    if files and not recipe.runtime.dry_run:
        checks.check_files(recipe)
    return recipe
