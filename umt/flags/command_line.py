"""What the command lines of all tools share: an argparse whose complaints are ConfigErrors with the nearest flag,
numbers with their ranges, and tools under one command, each found by its name."""

from __future__ import annotations

import argparse
import importlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from umt.errors import ConfigError
from umt.spelling import did_you_mean

_WITHIN = {"at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}


class Number:
    """A `type` for argparse: an int or a float with a range, to which `Parser` holds every value that is given.

    The sentence is "--flag (value) must be at least 1.", or what `rule` says instead, and then `remedy`.
    """

    def __init__(
        self,
        kind: type[int] | type[float] = int,
        *,
        at_least: float | None = None,
        above: float | None = None,
        at_most: float | None = None,
        below: float | None = None,
        rule: str = "",
        remedy: str = "",
    ) -> None:
        self.kind, self.remedy = kind, remedy
        self.__name__ = kind.__name__  # argparse's "invalid int value"
        bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
        self.bounds = {name: bound for name, bound in bounds.items() if bound is not None}
        self.rule = rule or f"must be {' and '.join(f'{name} {bound:g}' for name, bound in self.bounds.items())}"

    def __call__(self, word: str) -> int | float:
        return self.kind(word)

    def check(self, flag: str, value: float) -> None:
        """Raises ConfigError for a value out of range; NaN is outside of any."""
        if not all(_WITHIN[name](value, bound) for name, bound in self.bounds.items()):
            shown = f"{value:g}" if self.kind is float else value
            raise ConfigError(f"{flag} ({shown}) {self.rule}.{self.remedy and f' {self.remedy}'}")


COUNT = Number(at_least=1)
COUNT_OR_0 = Number(at_least=0)
SHARE = Number(float, at_least=0, at_most=1, rule="is a share, from 0 to 1")
SECONDS_OR_0 = Number(float, at_least=0, rule="must be at least 0 seconds; 0 sets no limit")


class Parser(argparse.ArgumentParser):
    """Flags of one tool. Mistakes are ConfigErrors, which suggest the nearest flags; there are no abbreviations."""

    def __init__(self, prog: str, description: str, usage: str | None = None) -> None:
        super().__init__(
            prog=prog, usage=usage, description=description, allow_abbrev=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=120),
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}. See {self.prog} --help.")

    def words(self, argv: Sequence[str]) -> argparse.Namespace:
        """The parsed words. Raises ConfigError for what the tool does not know, and for a number out of its range."""
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        # Before argparse complains of a flag that is missing because it is misspelt.
        for word in (word.split("=")[0] for word in argv):
            if word.startswith("--") and len(word) > 2 and word not in flags:
                hint = did_you_mean(word, flags, f"{self.prog} --help lists them.")
                raise ConfigError(f"{self.prog}: there is no flag {word}. {hint}")
        known, unknown = self.known_words(argv)
        if unknown:
            raise ConfigError(f"{self.prog}: '{unknown[0]}' is one word too many. See {self.prog} --help.")
        return known

    def known_words(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The words that are of this parser, and the rest. Raises ConfigError for a number out of its range."""
        known, rest = self.parse_known_args(list(argv))
        for action in self._actions:
            if isinstance(action.type, Number):
                value: Any = getattr(known, action.dest, None)
                for item in value if isinstance(value, list) else [value]:
                    if item is not None:
                        action.type.check(action.option_strings[-1], item)
        return known, rest


@dataclass(frozen=True)
class Tools:
    """The tools under one command, `prog TOOL`. `modules`: tool -> its module, which has `main(argv) -> exit code` and
    is imported only when it runs, and what it is for. `page`: the documentation.
    """

    prog: str
    about: str
    modules: Mapping[str, tuple[str, str]]
    page: str

    def usage(self) -> str:
        """What `prog --help` prints."""
        width = max(map(len, self.modules)) + 1
        lines = [f"  {self.prog} {name:<{width}} {what}" for name, (_, what) in self.modules.items()]
        more = f"{self.prog} COMMAND --help lists the flags; {self.page} explains them."
        return "\n".join([f"{self.prog}: {self.about}", "", *lines, "", more])

    def run(self, argv: Sequence[str]) -> int:
        """Runs the tool that `argv` names; its exit code. Raises UserError for what the caller can mend."""
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(self.usage())
            return 0
        if argv[0] not in self.modules:
            hint = did_you_mean(argv[0], list(self.modules), cutoff=0.5)
            raise ConfigError(f"{self.prog}: '{argv[0]}' is not a command. {hint}")
        code: int = importlib.import_module(self.modules[argv[0]][0]).main(list(argv[1:]))
        return code


def last_value(words: Sequence[str], flag: str) -> str:
    """The value of the last `--flag value` or `--flag=value`; "" for none."""
    value = ""
    for i, word in enumerate(words):
        if word == f"--{flag}" and i + 1 < len(words):
            value = words[i + 1]
        elif word.startswith(f"--{flag}="):
            value = word.partition("=")[2]
    return value
