"""`umt weights COMMAND`: finds the tool and starts it; each is a module with `main(argv)`, imported when asked for."""

from __future__ import annotations

from collections.abc import Sequence

from umt.flags.command_line import Tools

# Command -> module and what it is for.
COMMANDS = {"clip": ("umt.tools.weights.clip", "the visual tower of a CLIP, from any file or hub, as a teacher")}


def usage() -> str:
    """What `umt weights --help` prints."""
    return _TOOLS.usage()


def main(argv: Sequence[str]) -> int:
    """Runs `umt weights ARGV`; returns its exit code. Raises UserError for what the caller can correct."""
    return _TOOLS.run(argv)


_TOOLS = Tools("umt weights", "weights of others for use here", COMMANDS, "docs/teachers.md")
