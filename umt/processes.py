"""The processes of a run, as the launcher that started them put them into the environment. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from umt.errors import ConfigError

# torchrun comes first because it also runs inside a SLURM step. A batch script or `salloc` shell has SLURM_NTASKS
# without being a task of its own, so only SLURM_STEP_NUM_TASKS, which `srun` alone sets, counts.
_LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "openmpi": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
}


@dataclass(frozen=True)
class World:
    """This process among its peers, as the launcher numbered them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "none"  # none | torchrun | openmpi | slurm


def find_world(environ: Mapping[str, str]) -> World:
    """Rank and world size from what torchrun, Open MPI or srun put into the environment; one process otherwise."""
    for launcher, (rank, size, local_rank, local_size) in _LAUNCHERS.items():
        if rank in environ and size in environ:
            try:
                numbers = (
                    int(environ[rank]),
                    int(environ[size]),
                    int(environ.get(local_rank, "0")),
                    # SLURM writes 4(x2),3 for nodes of 4, 4 and 3 tasks; the first is the greatest.
                    int(re.split(r"[(,]", environ.get(local_size, "1"))[0]),
                )
            except ValueError as error:
                raise ConfigError(
                    f"The environment of {launcher} has a rank or world size that is no number ({error}). "
                    f"Unset {rank} and {size} for a single process."
                ) from error
            if not 0 <= numbers[0] < numbers[1]:
                raise ConfigError(
                    f"{rank} ({numbers[0]}) must lie in 0..{size} - 1 ({numbers[1] - 1}). "
                    f"Unset both for a single process."
                )
            return World(*numbers, launcher=launcher)
    return World()


def announced_size(environ: Mapping[str, str]) -> int:
    """Processes that the environment announces: those of a launcher, else GPUS of scripts/launch.sh, else 1."""
    for name in (*(size for _, size, _, _ in _LAUNCHERS.values()), "GPUS"):
        if word := environ.get(name, ""):
            if not word.isdigit() or int(word) < 1:
                raise ConfigError(f"The environment variable {name} ({word}) must be a whole number above 0. Unset it.")
            return int(word)
    return 1


def speaks(environ: Mapping[str, str]) -> bool:
    """Whether this process is the one that says what is said once for all."""
    ranks = (environ.get(rank) for rank, _, _, _ in _LAUNCHERS.values())
    return next((rank for rank in ranks if rank), "0") == "0"
