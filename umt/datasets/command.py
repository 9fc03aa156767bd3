"""`umt data COMMAND`: finds the tool and starts it; each is a module with `main(argv) -> exit code`, loaded lazily."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence

from umt.errors import ConfigError

# Command -> module and what it is for, in the order in which they are met.
COMMANDS = {
    "prepare": ("umt.datasets.prepare", "official annotations and a folder of videos -> train, val and test lists"),
    "transcode": ("umt.datasets.transcode", "smaller copies of the videos, quick to decode"),
    "check": ("umt.datasets.check", "every line of a list, and with --decode every file"),
    "shard": ("umt.datasets.shard", "the videos of a list as tar shards"),
    "show": ("umt.datasets.show", "a page with what the model will see"),
}


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
