"""`umt data transcode`: smaller copies of videos, quick to decode; the originals stay as they are."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs `umt data transcode ARGV`. Worker processes import this package, and none of what the command needs."""
    from umt.tools.data.transcode.command import main

    return main(argv)
