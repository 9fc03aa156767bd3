"""`umt data check LIST...`: whether a run can train on lists, and with --decode on the files that they name."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs `umt data check ARGV`. Worker processes import this package, and none of what the command needs."""
    from umt.tools.data.check.command import main

    return main(argv)
