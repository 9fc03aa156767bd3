"""`umt replay FILE`: recomputes the step that a run stopped at because its loss or gradient was not finite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umt.errors import ConfigError

USAGE = """umt replay FILE

Recomputes a step that a run saved because its loss or gradient was not finite (nonfinite-*.pth in its output folder):
the loss of each micro-batch, the parameters whose gradients are not finite, and the loss of each sample alone."""


def main(argv: Sequence[str]) -> int:
    """Runs `umt replay ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    if list(argv) in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if len(argv) != 1 or argv[0].startswith("-"):
        raise ConfigError("umt replay takes one file, e.g. umt replay outputs/run/nonfinite-120-rank0.pth.")
    from umt.run.execute import replay_step  # torch takes seconds

    for line in replay_step(Path(argv[0])):
        print(line)
    return 0
