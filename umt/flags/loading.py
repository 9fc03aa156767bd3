"""Flags of the processes that load data, for every kind of data."""

from __future__ import annotations

from dataclasses import dataclass

from umt.cores import usable_cores
from umt.flags.group import Group, flag


@dataclass(frozen=True)
class LoadingConfig(Group):
    """Data"""

    decode_timeout: float = flag(
        120.0,
        "seconds after which a video that is still being read counts as unreadable; 0: never",
        at_least=0,
        on_resume="ignore",
    )
    max_failures: float = flag(
        0.01,
        "share of the training videos that may be unreadable before the run stops",
        at_least=0,
        at_most=1,
        on_resume="ignore",
    )
    num_workers: int | None = flag(
        None,
        "processes that load data, per GPU; default: 10, or the CPU cores if fewer",
        at_least=0,
        example="8",
        on_resume="ignore",
    )
    pin_mem: bool = flag(True, "page-locked batches, for faster copies to the GPU", on_resume="ignore")

    def processes(self) -> int:
        """Processes per GPU that load data: --num_workers, else 10, or the usable CPU cores if fewer."""
        return min(10, usable_cores()) if self.num_workers is None else self.num_workers

    def failure_budget(self, rows: int) -> int:
        """Unreadable training rows that a run tolerates: --max_failures of them, at least one unless it is 0."""
        return max(1, int(self.max_failures * rows)) if self.max_failures else 0
