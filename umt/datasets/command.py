"""`umt data COMMAND`: finds the tool and starts it; each is a module with `main(argv) -> exit code`, loaded lazily.

Shared by the tools: `Parser`, an argparse whose complaints are ConfigErrors with the nearest flag.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
from collections.abc import Sequence
from typing import NoReturn

from umt.errors import ConfigError

# Command -> module and what it is for, in the order in which they are met.
COMMANDS = {
    "prepare": ("umt.datasets.prepare", "official annotations and a folder of videos -> train, val and test lists"),
    "transcode": ("umt.datasets.transcode", "smaller copies of the videos, quick to decode"),
    "check": ("umt.datasets.check", "every line of a list, and with --decode every file"),
    "shard": ("umt.datasets.shard", "the videos of a list as tar shards"),
    "show": ("umt.datasets.show", "a page with what the model will see"),
}


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


def usage() -> str:
    """What `umt data --help` prints."""
    lines = [f"  umt data {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["umt data: data sets, before and beside the training", "", *lines, "", _MORE])


_MORE = "umt data COMMAND --help lists the flags; docs/data.md tells it in order."


def main(argv: Sequence[str]) -> int:
    """Runs `umt data ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0].lower(), COMMANDS, n=2, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Choose one of {', '.join(COMMANDS)}."
        raise ConfigError(f"umt data: '{argv[0]}' is not a command. {hint}")
    tool = importlib.import_module(COMMANDS[argv[0]][0])
    code: int = tool.main(list(argv[1:]))
    return code
