"""Command line of a run: argv -> typed configuration, and the text of `--dry_run`.

Any form that the original's scripts use works: `--flip`, `--flip True`, `--flip False`, `--no_flip`, `--use_cls`,
`--opt_betas 0.9 0.999`; the last of equal flags wins. Importing this module imports no torch.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import logging
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from umt.config import checks, own
from umt.config.flags import Group, convert, kinds, rule_of
from umt.config.legacy import LEGACY, REFUSED
from umt.config.plan import render_dry_run, world_size_from
from umt.config.schema import CONFIGS, Choice, Config, build, groups
from umt.errors import ConfigError

__all__ = ["parse", "parser", "render_dry_run"]

log = logging.getLogger("umt")

# The original's name for "not the first": every other switch is turned off by `--no_<name>`.
_OFF = {"use_mean_pooling": ("use_cls", "no_use_mean_pooling")}


class _Help(argparse.HelpFormatter):
    """One line a flag: `--name TYPE  what it is`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=120)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar) if action.metavar else super()._format_args(action, default_metavar)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"The command line cannot be read: {message}. See --help.")


def _fields(task: str) -> Iterable[tuple[type[Group], dataclasses.Field[Any]]]:
    for group in groups(CONFIGS[task]).values():
        for field in dataclasses.fields(group):
            yield group, field


def off_switches(name: str) -> tuple[str, ...]:
    """Names of the flags that set the switch `name` to False."""
    return _OFF.get(name, (f"no_{name}",))


def parser(task: str) -> argparse.ArgumentParser:
    """The argparse parser of a task, in readable groups. Values stay words; `parse` gives them their types."""
    ignored = ", ".join(f"--{name}" for name in sorted(LEGACY[task]))
    made = _Parser(
        prog=f"umt {task}",
        usage=f"umt {task} [--flag value ...]",
        formatter_class=_Help,
        description=CONFIGS[task].__doc__,
        epilog=f"Accepted for the sake of existing scripts, without effect: {ignored}.",
        allow_abbrev=False,
    )
    sections: dict[str, Any] = {}
    for group, field in _fields(task):
        kind, title = kinds(group)[field.name], str(group.__doc__)
        section = sections.get(title) or sections.setdefault(title, made.add_argument_group(title))
        option: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        rule = rule_of(field)
        shown = "" if field.default in (None, "") or field.default is False else f" (default: {_words(field.default)})"
        option["help"] = (rule.help + shown).replace("%", "%%")
        if kind.base is bool:
            section.add_argument(f"--{field.name}", nargs="?", const="True", metavar="[True|False]", **option)
            for switch in off_switches(field.name):
                # In the help where the original had the pair, else understood in silence.
                seen = f"--{field.name} False" if field.default is True else argparse.SUPPRESS
                section.add_argument(
                    f"--{switch}",
                    dest=field.name,
                    action="store_const",
                    const="False",
                    default=argparse.SUPPRESS,
                    help=seen,
                )
        else:
            metavar = "|".join(rule.choices) or " ".join([kind.base.__name__.upper()] * (kind.length or 1))
            metavar += " ..." if kind.many else ""
            section.add_argument(f"--{field.name}", nargs="*", metavar=metavar, **option)
    for name in (*LEGACY[task], *REFUSED):
        made.add_argument(f"--{name}", nargs="*", dest=f" {name}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return made


def _words(value: Any) -> str:
    return repr(value) if isinstance(value, str) and not value.strip() else str(value)


def flag_names(task: str) -> list[str]:
    """Every flag that a task accepts, with its dashes: also those that turn a switch off, and those without effect."""
    names = [field.name for _, field in _fields(task)]
    off = [
        switch
        for group, field in _fields(task)
        if kinds(group)[field.name].base is bool
        for switch in off_switches(field.name)
    ]
    return [f"--{name}" for name in (*names, *off, *LEGACY[task], *REFUSED)]


def parse(task: str, argv: Sequence[str], *, files: bool = True) -> Config:
    """The run that `argv` asks for: typed, in range and free of contradictions.

    Raises ConfigError with one sentence that names the flag, its value and the remedy. With `files`, lists, weights and
    the output folder are looked at too, unless the run is only to be printed (`--dry_run`).
    """
    values = _recipe_batch(list(argv), _fit_warmup(task, list(argv), _values(task, list(argv))))
    chosen: tuple[Choice, ...] = ()
    if task == "finetune" and own.asked_for(values):
        values, chosen = own.complete(values, world_size=world_size_from(os.environ))
    values = _fit_default_warmup(task, values)
    config = build(task, values, chosen)
    checks.check(config)
    if files and not config.runtime.dry_run:
        checks.check_files(config)
    return config


def _values(task: str, argv: list[str], *, quiet: bool = False) -> dict[str, Any]:
    words, unknown = parser(task).parse_known_args(argv)
    given: dict[str, Any] = vars(words)
    _refuse(given)
    if unknown:
        raise ConfigError(_unknown(task, unknown))
    if not quiet:
        _warn_of_legacy(task, given)
    values = {}
    for group, field in _fields(task):
        if field.name in given:
            word = given[field.name]
            values[field.name] = convert(
                field,
                kinds(group)[field.name],
                _single(field.name, [word] if isinstance(word, str) else word, kinds(group)),
            )
    return values


def _fit_warmup(task: str, argv: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """`recipe.sh --epochs 1`: an --epochs that overrides an earlier one shortens the recipe's warm-up in proportion.

    Only where the warm-up would not fit any more; one that is stated after the recipe's is left to the checks.
    """
    said = {
        name: [i for i, w in enumerate(argv) if w.split("=")[0] == f"--{name}"] for name in ("epochs", "warmup_epochs")
    }
    if len(said["epochs"]) < 2 or not said["warmup_epochs"] or said["epochs"][-1] < said["warmup_epochs"][-1]:
        return values
    epochs, warmup = values["epochs"], values["warmup_epochs"]
    recipe = _values(task, argv[: said["epochs"][-1]], quiet=True)
    if not 0 < epochs < warmup <= recipe["epochs"]:
        return values
    fitted = math.ceil(warmup * epochs / recipe["epochs"])
    _say(f"--epochs {epochs} replaces the recipe's {recipe['epochs']}: --warmup_epochs {warmup} becomes {fitted}.")
    return {**values, "warmup_epochs": fitted}


def _fit_default_warmup(task: str, values: dict[str, Any]) -> dict[str, Any]:
    """`--epochs 1` alone: the default warm-up is shortened as that of a recipe is, where it would not fit any more."""
    if "warmup_epochs" in values or values.get("warmup_steps", -1) > 0:
        return values
    usual = {field.name: field.default for _, field in _fields(task) if field.name in ("epochs", "warmup_epochs")}
    epochs, warmup = values.get("epochs", usual["epochs"]), usual["warmup_epochs"]
    if not 0 < epochs < warmup:
        return values
    fitted = math.ceil(warmup * epochs / usual["epochs"])
    _say(f"--epochs {epochs} is below the usual warm-up of {warmup} epochs: --warmup_epochs becomes {fitted}.")
    return {**values, "warmup_epochs": fitted}


def _recipe_batch(argv: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """`recipe.sh --batch_size 8`: the recipe was made for the --batch_size that stands first."""
    said = [i for i, word in enumerate(argv) if word.split("=")[0] == "--batch_size"]
    if len(said) < 2 or "recipe_batch" in values:
        return values
    first = argv[said[0]].partition("=")[2] or argv[said[0] + 1]
    return {**values, "recipe_batch": int(first)} if first.isdigit() and int(first) > 0 else values


def _say(text: str) -> None:
    """Once, not once a process."""
    ranks = [os.environ.get(name) for name in ("RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")]
    if next((rank for rank in ranks if rank), "0") == "0":
        log.warning(text)


def _single(name: str, words: list[str], known: dict[str, Any]) -> list[str]:
    if known[name].length is None and not known[name].many and len(words) > 1:
        raise ConfigError(
            f"--{name} takes one value, not {len(words)} ({' '.join(words)}). Quote a value that holds spaces."
        )
    return words


def _refuse(given: dict[str, Any]) -> None:
    for name, reason in REFUSED.items():
        if f" {name}" in given:
            raise ConfigError(f"--{name}: {reason}.")


def _warn_of_legacy(task: str, given: dict[str, Any]) -> None:
    present = [name for name in LEGACY[task] if f" {name}" in given]
    if present:
        _say(f"Flags without effect: {'; '.join(f'--{name} ({LEGACY[task][name]})' for name in present)}.")


def _unknown(task: str, words: list[str]) -> str:
    names = [field.name for _, field in _fields(task)]
    names += [switch for name in names for switch in _OFF.get(name, ())]
    for word in words:
        if word.startswith("-"):
            name = word.lstrip("-").split("=")[0]
            near = difflib.get_close_matches(name.replace("-", "_").lower(), names, n=3, cutoff=0.6)
            near += [n for n in names if len(name) >= 4 and name in n and n not in near][: 3 - len(near)]
            hint = f"Did you mean {' or '.join('--' + n for n in near)}?" if near else f"umt {task} --help lists them."
            return f"There is no flag --{name}. {hint}"
    return f"A flag was expected, not '{words[0]}'. Quote values that hold spaces; umt {task} --help lists the flags."
