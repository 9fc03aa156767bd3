"""Dry runs of every experiment, through bash, once for all tests."""

from __future__ import annotations

import csv
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SCRIPTS = {str(path.relative_to(ROOT / "exp"))[:-3]: path for path in sorted((ROOT / "exp").rglob("*.sh"))}
OWN_VARIABLES = (
    *("DATA_PATH", "PREFIX", "MODEL_PATH", "TEACHER_PATH", "OUTPUT_DIR", "DATA_ROOT", "OUTPUT_ROOT", "GPUS"),
    *("PYTHON", "PYTHONPATH", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES"),
    *("SUBMIT", "PARTITION", "NODES", "GPUS_PER_NODE", "CPUS_PER_TASK", "TIME_LIMIT", "SIGNAL", "ACCOUNT", "QOS"),
    *("JOB_NAME", "LOG_DIR", "REQUEUE", "ARRAY", "SRUN_ARGS", "SBATCH_ARGS"),
)


@dataclass(frozen=True)
class DryRun:
    """What a script printed: `facts` maps the name of a line to its text."""

    script: str
    returncode: int
    output: str
    errors: str
    cpu_seconds: float

    @property
    def facts(self) -> dict[str, str]:
        lines = [line for line in self.output.splitlines() if line.startswith("  ") and not line.startswith("  NOTE")]
        return {line[2:15].strip(): line[15:] for line in lines}

    @property
    def notice(self) -> str:
        return next((line for line in self.output.splitlines() if line.startswith("  NOTE")), "")


def clean_environment() -> dict[str, str]:
    """The environment without what chooses a launcher or a path."""
    launchers = ("SLURM_", "OMPI_")
    return {k: v for k, v in os.environ.items() if k not in OWN_VARIABLES and not k.startswith(launchers)}


def run_script(script: str, *flags: str, cwd: Path | None = None, **environ: str) -> DryRun:
    """Runs an experiment with further flags and variables, as a user would: `bash exp/<script>.sh FLAGS`."""
    clean = clean_environment()
    # The messages go to a file: a second pipe that nobody reads yet would stop a script that writes much to it.
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(
            ["bash", str(SCRIPTS[script]), *flags],
            cwd=cwd or ROOT,
            env={**clean, "OMP_NUM_THREADS": "1", **environ},
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
        )
        assert process.stdout is not None
        output = process.stdout.read()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        messages.seek(0)
        errors = messages.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    return DryRun(script, process.returncode, output, errors, usage.ru_utime + usage.ru_stime)


@pytest.fixture(scope="session")
def dry_runs() -> dict[str, DryRun]:
    """Every script with --dry_run, on as many GPUs as its recipe was made for."""

    def run(script: str) -> DryRun:
        return run_script(script, "--dry_run", GPUS="32" if script.startswith("pretraining/") else "16")

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SCRIPTS, pool.map(run, SCRIPTS), strict=True))


def rows(path: str) -> list[dict[str, str]]:
    """A golden csv as dictionaries."""
    with (GOLDEN / path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
