"""`umt data prepare`: official annotation files and a folder of videos -> lists, class names and a manifest."""

from __future__ import annotations

from collections.abc import Sequence

from umt.datasets.command import Parser


def main(argv: Sequence[str]) -> int:
    """Runs `umt data prepare ARGV`; returns its exit code."""
    parser = Parser("umt data prepare", str(__doc__))
    parser.words(argv)
    return 0
