"""What the command lines of all tools share: an argparse whose complaints are ConfigErrors with the nearest flag, and
tools under one command, each found by its name."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from umt.errors import ConfigError
from umt.spelling import did_you_mean


class Parser(argparse.ArgumentParser):
    """Flags of one tool. Mistakes are ConfigErrors; a misspelt flag is told the nearest ones; no abbreviations."""

    def __init__(self, prog: str, description: str, usage: str | None = None) -> None:
        super().__init__(
            prog=prog, usage=usage, description=description, allow_abbrev=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=120),
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}. See {self.prog} --help.")

    def words(self, argv: Sequence[str]) -> argparse.Namespace:
        """The parsed words. Raises ConfigError for what the tool does not know."""
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        # Before argparse complains of a flag that is missing because it is misspelt.
        for word in (word.split("=")[0] for word in argv):
            if word.startswith("--") and len(word) > 2 and word not in flags:
                hint = did_you_mean(word, flags, f"{self.prog} --help lists them.")
                raise ConfigError(f"{self.prog}: there is no flag {word}. {hint}")
        known, unknown = self.parse_known_args(list(argv))
        if unknown:
            raise ConfigError(f"{self.prog}: '{unknown[0]}' is one word too many. See {self.prog} --help.")
        return known


@dataclass(frozen=True)
class Tools:
    """The tools under one command, `prog TOOL`. `modules`: tool -> its module, which has `main(argv) -> exit code` and
    is imported when it is asked for, and what it is for. `page` tells more of them.
    """

    prog: str
    about: str
    modules: Mapping[str, tuple[str, str]]
    page: str

    def usage(self) -> str:
        """What `prog --help` prints."""
        width = max(map(len, self.modules)) + 1
        lines = [f"  {self.prog} {name:<{width}} {what}" for name, (_, what) in self.modules.items()]
        more = f"{self.prog} COMMAND --help lists the flags; {self.page} tells it in order."
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
