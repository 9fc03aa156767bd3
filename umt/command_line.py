"""What the command lines of all tools share: an argparse whose complaints are ConfigErrors with the nearest flag."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from umt.errors import ConfigError


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
                near = difflib.get_close_matches(word.replace("-", "_"), [f.replace("-", "_") for f in flags], n=2)
                near = [flag for flag in flags if flag.replace("-", "_") in near]
                hint = f"Did you mean {' or '.join(near)}?" if near else f"{self.prog} --help lists them."
                raise ConfigError(f"{self.prog}: there is no flag {word}. {hint}")
        known, unknown = self.parse_known_args(list(argv))
        if unknown:
            raise ConfigError(f"{self.prog}: '{unknown[0]}' is one word too many. See {self.prog} --help.")
        return known
