"""Command line of a run: argv -> flag values, typed and in range.

Any form that the original's scripts use works: `--flip`, `--flip True`, `--flip False`, `--no_flip`, `--use_cls`,
`--opt_betas 0.9 0.999`; the last of equal flags wins.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from umt.errors import ConfigError
from umt.flags.flag_groups import FlagGroups
from umt.flags.group import convert, kinds, rule_of
from umt.flags.legacy import REFUSED
from umt.processes import speaks
from umt.spelling import did_you_mean

log = logging.getLogger("umt")
Flags = type[FlagGroups]


class _Help(argparse.HelpFormatter):
    """One line per flag: `--name TYPE  what it is`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=120)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar) if action.metavar else super()._format_args(action, default_metavar)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"The command line cannot be read: {message}. See --help.")


def off_switches(name: str, off: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the flags that set the switch `name` to False; `off`: those that its rule names."""
    return off or (f"no_{name}",)


def parser(flags: Flags) -> argparse.ArgumentParser:
    """The argparse parser of a run's flags, in readable groups. Values stay words; `parse_values` gives them types."""
    ignored = ", ".join(f"--{name}" for name in sorted(flags.legacy))
    words = _Parser(
        prog=f"umt {flags.command}",
        usage=f"umt {flags.command} [--flag value ...]",
        formatter_class=_Help,
        description=flags.__doc__,
        epilog=f"Accepted for the sake of existing scripts, without effect: {ignored}." if ignored else None,
        allow_abbrev=False,
    )
    sections: dict[str, Any] = {}
    for group, field in flags.flags():
        kind, title = kinds(group)[field.name], str(group.__doc__)
        section = sections.get(title) or sections.setdefault(title, words.add_argument_group(title))
        option: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        rule = rule_of(field)
        shown = "" if field.default in (None, "") or field.default is False else f" (default: {_words(field.default)})"
        option["help"] = (rule.help + shown).replace("%", "%%")
        if kind.base is bool:
            section.add_argument(f"--{field.name}", nargs="?", const="True", metavar="[True|False]", **option)
            for switch in off_switches(field.name, rule.off):
                # In the help where the original had the pair, else accepted without a line there.
                section.add_argument(
                    f"--{switch}",
                    dest=field.name,
                    action="store_const",
                    const="False",
                    default=argparse.SUPPRESS,
                    help=f"--{field.name} False" if field.default is True else argparse.SUPPRESS,
                )
        else:
            metavar = "|".join(rule.choices) or " ".join([kind.base.__name__.upper()] * (kind.length or 1))
            metavar += " ..." if kind.many else ""
            section.add_argument(f"--{field.name}", nargs="*", metavar=metavar, **option)
    for name in (*flags.legacy, *REFUSED):
        words.add_argument(f"--{name}", nargs="*", dest=f" {name}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return words


def flag_names(flags: Flags) -> list[str]:
    """Every flag that is accepted, with its dashes: also those that turn a switch off, and those without effect."""
    names = [field.name for _, field in flags.flags()]
    off = [
        switch
        for group, field in flags.flags()
        if kinds(group)[field.name].base is bool
        for switch in off_switches(field.name, rule_of(field).off)
    ]
    return [f"--{name}" for name in (*names, *off, *flags.legacy, *REFUSED)]


def _words(value: Any) -> str:
    return repr(value) if isinstance(value, str) and not value.strip() else str(value)


def parse_values(flags: Flags, argv: Sequence[str]) -> dict[str, Any]:
    """The values that `argv` gives, by flag. Raises ConfigError with one sentence: flag, value and remedy.

    Where a script states a recipe and further words change it, what follows from both is here: the warm-up that still
    fits, and the batch that the recipe was made for.
    """
    words = list(argv)
    return _recipe_batch(words, _fit_warmup(flags, words, _values(flags, words)))


def _values(flags: Flags, argv: list[str], *, quiet: bool = False) -> dict[str, Any]:
    words, unknown = parser(flags).parse_known_args(argv)
    given: dict[str, Any] = vars(words)
    for name, reason in REFUSED.items():
        if f" {name}" in given:
            raise ConfigError(f"--{name}: {reason}.")
    if unknown:
        raise ConfigError(_unknown(flags, unknown))
    if not quiet:
        _warn_of_legacy(flags, given)
    values = {}
    for group, field in flags.flags():
        if field.name in given:
            word, kind = given[field.name], kinds(group)[field.name]
            several = [word] if isinstance(word, str) else word
            if kind.length is None and not kind.many and len(several) > 1:
                raise ConfigError(
                    f"--{field.name} takes one value, not {len(several)} ({' '.join(several)}). Quote a value that "
                    "holds spaces."
                )
            values[field.name] = convert(field, kind, several)
    return values


def _places(argv: list[str], name: str) -> list[int]:
    """Where `argv` has the flag `name`."""
    return [i for i, word in enumerate(argv) if word.split("=")[0] == f"--{name}"]


def _fit_warmup(flags: Flags, argv: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """`recipe.sh --epochs 1`: an --epochs that overrides an earlier one shortens the recipe's warm-up in proportion.

    Only where the warm-up would not fit any more; one that is stated after the recipe's is left to the checks.
    """
    of_epochs, of_warmup = _places(argv, "epochs"), _places(argv, "warmup_epochs")
    if len(of_epochs) < 2 or not of_warmup or of_epochs[-1] < of_warmup[-1]:
        return values
    epochs, warmup = values["epochs"], values["warmup_epochs"]
    recipe = _values(flags, argv[: of_epochs[-1]], quiet=True)
    if not 0 < epochs < warmup <= recipe["epochs"]:
        return values
    fitted = math.ceil(warmup * epochs / recipe["epochs"])
    _say(f"--epochs {epochs} replaces the recipe's {recipe['epochs']}: --warmup_epochs {warmup} becomes {fitted}.")
    return {**values, "warmup_epochs": fitted}


def fit_default_warmup(flags: Flags, values: dict[str, Any]) -> dict[str, Any]:
    """`--epochs 1` alone: the default warm-up is shortened as that of a recipe is, where it would not fit any more."""
    if "warmup_epochs" in values or values.get("warmup_steps", -1) > 0:
        return values
    usual = {field.name: field.default for _, field in flags.flags() if field.name in ("epochs", "warmup_epochs")}
    epochs, warmup = values.get("epochs", usual["epochs"]), usual["warmup_epochs"]
    if not 0 < epochs < warmup:
        return values
    fitted = math.ceil(warmup * epochs / usual["epochs"])
    _say(f"--epochs {epochs} is below the usual warm-up of {warmup} epochs: --warmup_epochs becomes {fitted}.")
    return {**values, "warmup_epochs": fitted}


def _recipe_batch(argv: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """`recipe.sh --batch_size 8`: the recipe was made for the --batch_size that stands first."""
    places = _places(argv, "batch_size")
    if len(places) < 2 or "recipe_batch" in values:
        return values
    first = argv[places[0]].partition("=")[2] or argv[places[0] + 1]
    return {**values, "recipe_batch": int(first)} if first.isdigit() and int(first) > 0 else values


def _warn_of_legacy(flags: Flags, given: dict[str, Any]) -> None:
    present = [name for name in flags.legacy if f" {name}" in given]
    if present:
        _say(f"Flags without effect: {'; '.join(f'--{name} ({flags.legacy[name]})' for name in present)}.")


def _say(text: str) -> None:
    """Once, not once per process."""
    if speaks(os.environ):
        log.warning(text)


def _unknown(flags: Flags, words: list[str]) -> str:
    names = [field.name for _, field in flags.flags()]
    names += [switch for _, field in flags.flags() for switch in rule_of(field).off]
    for word in words:
        if word.startswith("-"):
            name = word.lstrip("-").split("=")[0]
            choices = {name: f"--{name}" for name in names}
            hint = did_you_mean(name, choices, f"umt {flags.command} --help lists them.", count=3)
            return f"There is no flag --{name}. {hint}"
    return (
        f"A flag was expected, not '{words[0]}'. Quote values that hold spaces; umt {flags.command} --help lists the "
        "flags."
    )
