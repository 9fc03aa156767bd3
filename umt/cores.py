"""How many CPU cores this process may use. No torch: a recipe resolves with it."""

import os


def usable_cores() -> int:
    """The cores that this process is bound to: under SLURM and in containers these may be far fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
