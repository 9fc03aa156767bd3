"""`umt data COMMAND`: finds the tool and starts it; each is a module with `main(argv) -> exit code`, loaded lazily."""

from __future__ import annotations

from collections.abc import Sequence

from umt.flags.command_line import Tools

# Command -> module and what it is for, in the order in which they are met.
COMMANDS = {
    "prepare": ("umt.tools.data.prepare", "official annotations and a folder of videos -> train, val and test lists"),
    "transcode": ("umt.tools.data.transcode", "smaller copies of the videos, quick to decode"),
    "check": ("umt.tools.data.check", "every line of a list, and with --decode every file"),
    "shard": ("umt.tools.data.shard", "the videos of a list as tar shards"),
    "show": ("umt.tools.data.show", "a page with what the model will see"),
}


def usage() -> str:
    """What `umt data --help` prints."""
    return _TOOLS.usage()


def main(argv: Sequence[str]) -> int:
    """Runs `umt data ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    return _TOOLS.run(argv)


_TOOLS = Tools("umt data", "data sets: preparing, checking and looking at them", COMMANDS, "docs/data.md")
