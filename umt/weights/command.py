"""`umt weights COMMAND`: finds the tool and starts it; each is a module with `main(argv)`, imported when asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence

from umt.errors import ConfigError

# Command -> module and what it is for.
COMMANDS = {
    "clip": ("umt.weights.clip", "the visual tower of a CLIP, from whatever file or hub it comes, as a teacher"),
}


def usage() -> str:
    """What `umt weights --help` prints."""
    lines = [f"  umt weights {name:<8} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["umt weights: weights of others for use here", "", *lines, "", _MORE])


_MORE = "umt weights COMMAND --help lists the flags; docs/teachers.md tells it in order."


def main(argv: Sequence[str]) -> int:
    """Runs `umt weights ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0].lower(), COMMANDS, n=2, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Choose one of {', '.join(COMMANDS)}."
        raise ConfigError(f"umt weights: '{argv[0]}' is not a command. {hint}")
    tool = importlib.import_module(COMMANDS[argv[0]][0])
    code: int = tool.main(list(argv[1:]))
    return code
