"""What a real SLURM does not grant is one sentence and exit code 2, before anything starts."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Data
from tests.recipes.conftest import SCRIPTS
from tests.slurm.conftest import Cluster
from tests.slurm.test_runs import FINETUNE, finetune_flags

pytestmark = pytest.mark.slurm
SBATCH = ("sbatch", "--wait", "--quiet", "--ntasks=2", "--output=job.out", "--wrap")


def refusal(cluster: Cluster, data: Data, cwd: Path, *flags: str, **environ: str) -> str:
    """The one sentence of a two-process finetuning."""
    done = cluster.experiment(FINETUNE, *finetune_flags(data, *flags), cwd=cwd, **{"GPUS": "2", **environ})
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (cwd / "out" / "log.txt").exists()
    return done.stderr.rstrip()


@pytest.mark.parametrize("submit", ["0", "1"])
def test_a_partition_that_does_not_exist(submit: str, cluster: Cluster, data: Data, tmp_path: Path) -> None:
    assert refusal(cluster, data, tmp_path, PARTITION="vdieo", SUBMIT=submit) == (
        "umt: PARTITION (vdieo) is not a partition of this cluster; there are: video, urgent."
    )


@pytest.mark.parametrize("submit", ["0", "1"])
def test_gpus_that_are_not_there(submit: str, cluster: Cluster, data: Data, tmp_path: Path) -> None:
    said = refusal(cluster, data, tmp_path, "--device", "auto", PARTITION="video", SUBMIT=submit, CPUS_PER_TASK="1")
    assert said == (
        "umt: SLURM refuses the job: Invalid generic resource (gres) specification. It was asked for 2 processes on "
        "1 node(s) with 2 GPU(s) each, 1 CPU core(s) a process: change NODES, GPUS, GPUS_PER_NODE, CPUS_PER_TASK, "
        "TIME_LIMIT, ACCOUNT or QOS."
    )


@pytest.mark.parametrize("submit", ["0", "1"])
def test_nodes_that_are_not_there(submit: str, cluster: Cluster, data: Data, tmp_path: Path) -> None:
    said = refusal(cluster, data, tmp_path, PARTITION="video", SUBMIT=submit, NODES="2")
    assert "SLURM refuses the job: Requested node configuration is not available. It was asked for 2 pro" in said


def test_more_processes_than_the_allocation_has(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    words = ["salloc", "--quiet", "--ntasks=1", "bash", str(SCRIPTS[FINETUNE]), *finetune_flags(data)]
    done = cluster.call(*words, cwd=tmp_path, OUTPUT_DIR="out", GPUS="2")
    assert done.returncode == 2
    assert done.stderr.startswith("umt: SLURM refuses the job: More processors requested than permitted.")


def test_a_controller_that_does_not_answer(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    conf = Path(cluster.environ["SLURM_CONF"]).read_text()
    (tmp_path / "slurm.conf").write_text(conf.replace("SlurmctldPort=", "MessageTimeout=2\nSlurmctldPort=1"))
    said = refusal(cluster, data, tmp_path, PARTITION="video", SLURM_CONF=str(tmp_path / "slurm.conf"))
    assert said.startswith("umt: SLURM does not answer: ")


def test_a_batch_that_does_not_divide(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    said = refusal(cluster, data, tmp_path, "--global_batch_size", "100", PARTITION="video", SUBMIT="1")
    assert said == (
        "umt: --global_batch_size (100) is no multiple of GPUs x --batch_size = 2 x 4 = 8. "
        "The nearest that works: --global_batch_size 96 or 104, or keep 100 with --batch_size 2."
    )
    assert not (tmp_path / "out" / "slurm").exists()


def test_a_port_in_use_on_the_node_of_a_batch_script(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    conf = Path(cluster.environ["SLURM_CONF"]).read_text().splitlines()
    port = next(line.split("=")[1] for line in conf if line.startswith("SlurmdPort="))
    words = [*SBATCH, f"bash {SCRIPTS[FINETUNE]} {shlex.join(finetune_flags(data))}"]
    done = cluster.call(*words, cwd=tmp_path, OUTPUT_DIR="out", MASTER_PORT=port)
    assert done.returncode == 2, done.stderr
    assert (tmp_path / "job.out").read_text() == (
        f"umt: MASTER_PORT ({port}) is in use on this machine. Unset it, and a free port is chosen.\n"
    )
