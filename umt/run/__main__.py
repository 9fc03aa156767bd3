"""`python -m umt.run finetune FLAGS`: holds a run against every check, and starts nothing.

The launcher asks this before it starts several processes, so that a mistake is one sentence instead of one per process
with the launcher's traceback around them. Exit code 2 where something is to be mended.
"""

from __future__ import annotations

import logging
import os
import sys

from umt.errors import UserError
from umt.processes import announced_size
from umt.run.command_line import parse
from umt.run.plan import plan


def main(command: str, *argv: str) -> int:
    """0 if the run could start; 2, with one sentence on the error output, if not."""
    logging.disable(logging.WARNING)  # the run itself will say these
    try:
        plan(parse(command, argv), world_size=announced_size(os.environ))
    except UserError as error:
        sys.stderr.write(f"umt: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
