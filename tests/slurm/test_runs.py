"""The experiments under a real SLURM: two processes, sbatch, job arrays, and runs that are stopped and go on."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Data
from tests.recipes.conftest import SCRIPTS
from tests.same_run import differences, log_lines
from tests.slurm.conftest import Cluster, wait_for
from umt.engine import checkpoints
from umt.evaluation.scores import ViewScores

pytestmark = pytest.mark.slurm

FINETUNE = "finetuning/k400/b16_ptk710_ftk710_ftk400_f8_res224"
PRETRAIN = "pretraining/b16_ptk710_f8_res224"
TWO = {"GPUS": "2", "GPUS_PER_NODE": "0"}


def finetune_flags(data: Data, *more: str) -> list[str]:
    """Overrides that make the recipe tiny, and one epoch of it."""
    start = ["--finetune", "", "--short_side_size", "64", "--epochs", "1", "--warmup_epochs", "0"]
    return [*data.finetune[1:], *start, "--precision", "fp32", *more]


def pretrain_flags(data: Data, *more: str) -> list[str]:
    """The same for pretraining: 14 epochs of 3 steps, so that a run can be stopped amid them."""
    sizes = ["--clip_decoder_embed_dim", "96", "--clip_output_dim", "64", "--precision", "fp32"]
    return [*data.pretrain[1:], *sizes, "--epochs", "14", "--save_every_steps", "1", "--log_every", "1", *more]


def console(out: Path) -> str:
    """What the jobs of this folder have written."""
    return "".join(path.read_text() for path in sorted((out / "slurm").glob("*.out")))


def state(out: Path) -> dict[str, object]:
    """The last checkpoint, whole."""
    return checkpoints.load(out / checkpoints.LATEST)


@pytest.fixture(scope="module")
def left_alone(cluster: Cluster, data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Output folder and final facts of a two-process pretraining that SUBMIT=1 started and nothing disturbed."""
    out = tmp_path_factory.mktemp("left_alone") / "out"
    job = cluster.submit(PRETRAIN, *pretrain_flags(data), **TWO, cwd=out.parent)
    return out, cluster.end_of(job)


def test_submit_pretrains_in_two_processes(left_alone: tuple[Path, dict[str, str]]) -> None:
    out, facts = left_alone
    assert (facts["JobState"], facts["ExitCode"], facts["NumTasks"]) == ("COMPLETED", "0:0", "2"), console(out)
    assert "batch        2 GPUs x 4 videos x 1 accumulated = 8 videos" in console(out)
    assert len(log_lines(out)) == 14
    assert facts["StdOut"] == f"{out}/slurm/{facts['JobId']}.out"


def test_a_run_on_fewer_gpus_than_the_recipe_says_so_in_its_log(left_alone: tuple[Path, dict[str, str]]) -> None:
    said = [line for line in console(left_alone[0]).splitlines() if "NOTE" in line]
    assert len(said) == 1
    assert "= 2 x 4 x 1 = 8 videos a step, but the recipe was made for 32 x 64 x 1 = 2048" in said[0]


def test_the_global_batch_size_keeps_the_recipe_by_accumulating(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    flags = pretrain_flags(data, "--recipe_gpus", "6", "--recipe_batch", "4", "--global_batch_size", "24")
    short = ["--epochs", "1", "--warmup_epochs", "0"]
    done = cluster.experiment(PRETRAIN, *flags, *short, **TWO, PARTITION="video", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "batch        2 GPUs x 4 videos x 3 accumulated = 24 videos" in done.stderr
    assert "NOTE" not in done.stderr


def test_a_partition_finetunes_and_tests_in_two_processes(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    flags = finetune_flags(data)
    done = cluster.experiment(FINETUNE, *flags, **TWO, PARTITION="video", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "batch        2 GPUs x 4 videos" in done.stderr
    assert ViewScores.load(tmp_path / "out" / "scores.npz").seen.all()


def test_an_allocation_is_used_by_srun(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    script = ["bash", str(SCRIPTS[FINETUNE]), *finetune_flags(data)]
    done = cluster.call("salloc", "--ntasks=2", *script, cwd=tmp_path, OUTPUT_DIR="out")
    assert done.returncode == 0, done.stderr
    assert "batch        2 GPUs x 4 videos" in done.stderr
    assert "Granted job allocation" in done.stderr


def test_a_job_array_runs_each_task_with_its_own_flags_and_folder(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    flags = pretrain_flags(data, "--seed", "%a", "--epochs", "1", "--warmup_epochs", "0")
    one = {"GPUS": "1", "GPUS_PER_NODE": "0"}
    job = cluster.submit(PRETRAIN, *flags, cwd=tmp_path, **one, ARRAY="3-4")
    for task in ("3", "4"):
        assert cluster.end_of(f"{job}_{task}")["JobState"] == "COMPLETED", console(tmp_path / "out")
        assert (tmp_path / "out" / "slurm" / f"{job}_{task}.out").exists()
    three, four = (state(tmp_path / "out" / task)["model"] for task in ("3", "4"))
    assert differences(three, four) != []


# ---- stopped, and gone on


def stop_amid(cluster: Cluster, job: str, out: Path, *command: str) -> None:
    """Runs `command` when the job has done some steps of its 42."""
    wait_for(lambda: re.search(r"epoch [34]/14 step", console(out)), f"epoch 3 of job {job}")
    done = cluster.call(*command)
    assert done.returncode == 0, done.stderr
    assert "epoch 13/14" not in console(out)


def assert_as_left_alone(left_alone: tuple[Path, dict[str, str]], out: Path, facts: dict[str, str]) -> None:
    assert (facts["JobState"], facts["ExitCode"]) == ("COMPLETED", "0:0"), console(out)
    assert differences(state(left_alone[0]), state(out)) == []
    assert log_lines(left_alone[0]) == log_lines(out)


def test_a_requeued_job_ends_as_one_left_alone(
    cluster: Cluster, data: Data, left_alone: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = cluster.submit(PRETRAIN, *pretrain_flags(data), **TWO, cwd=out.parent)
    stop_amid(cluster, job, out, "scontrol", "requeue", job)
    facts = cluster.end_of(job)
    assert facts["Restarts"] == "1"
    assert f"SLURM is requeueing job {job}, which goes on by itself." in console(out)
    assert_as_left_alone(left_alone, out, facts)


def test_the_signal_before_the_time_limit_requeues_the_job_which_ends_as_one_left_alone(
    cluster: Cluster, data: Data, left_alone: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    # The signal that SLURM sends at --signal's time, sent to the same processes now.
    out = tmp_path / "out"
    job = cluster.submit(PRETRAIN, *pretrain_flags(data), **TWO, cwd=out.parent)
    stop_amid(cluster, job, out, "scancel", "--signal=USR1", job)
    facts = cluster.end_of(job)
    assert facts["Restarts"] == "1"
    assert f"SLURM job {job} is requeued and goes on by itself." in console(out)
    assert_as_left_alone(left_alone, out, facts)


def test_a_job_longer_than_its_time_limit_ends_as_one_left_alone(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    # SLURM looks for jobs near their limit every 30 seconds: of the 55 before a limit of 60, this sees at least 25.
    limits = {"limited": {"TIME_LIMIT": "1", "SIGNAL": "USR1@55"}, "left_alone": {}}
    flags = pretrain_flags(data, "--epochs", "100", "--log_every", "30", "--num_workers", "0")
    jobs = {}
    for name, limit in limits.items():
        (tmp_path / name).mkdir()
        jobs[name] = cluster.submit(PRETRAIN, *flags, **TWO, **limit, cwd=tmp_path / name)
    facts = {name: cluster.end_of(job, 280) for name, job in jobs.items()}
    assert facts["limited"]["TimeLimit"] == "00:01:00"
    assert int(facts["limited"]["Restarts"]) >= 1, console(tmp_path / "limited" / "out")
    assert facts["left_alone"]["Restarts"] == "0"
    assert_as_left_alone((tmp_path / "left_alone" / "out", {}), tmp_path / "limited" / "out", facts["limited"])


def test_a_preempted_job_ends_as_one_left_alone(
    cluster: Cluster, data: Data, left_alone: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = cluster.submit(PRETRAIN, *pretrain_flags(data), **TWO, cwd=out.parent)
    stop_amid(cluster, job, out, "srun", "--partition=urgent", "--exclusive", "true")
    facts = cluster.end_of(job)
    assert facts["Restarts"] == "1"
    assert_as_left_alone(left_alone, out, facts)


def test_a_cancelled_job_stays_cancelled(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = cluster.submit(PRETRAIN, *pretrain_flags(data), **TWO, cwd=out.parent)
    stop_amid(cluster, job, out, "scancel", job)
    facts = cluster.end_of(job)
    assert (facts["JobState"], facts["Restarts"]) == ("CANCELLED", "0")
    assert f"SLURM job {job} was cancelled, so it is not requeued" in console(out)


def test_a_task_of_an_array_that_is_signalled_is_requeued_alone(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = {"GPUS": "1", "GPUS_PER_NODE": "0"}
    job = cluster.submit(PRETRAIN, *pretrain_flags(data, "--seed", "%a"), cwd=tmp_path, **one, ARRAY="0-1")
    stop_amid(cluster, job, out, "scancel", "--signal=USR1", f"{job}_1")
    ends = {task: cluster.end_of(f"{job}_{task}") for task in ("0", "1")}
    assert {task: facts["JobState"] for task, facts in ends.items()} == {"0": "COMPLETED", "1": "COMPLETED"}
    assert {task: facts["Restarts"] for task, facts in ends.items()} == {"0": "0", "1": "1"}


def test_a_killed_process_ends_the_job_and_is_named(cluster: Cluster, data: Data, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = cluster.submit(PRETRAIN, *pretrain_flags(data), **TWO, cwd=tmp_path)
    wait_for(lambda: "epoch 3/14 step" in console(out), f"epoch 3 of job {job}")
    # PID, job, step, number on the node and in the step, as `scontrol listpids` prints them.
    pids = [line.split() for line in cluster.call("scontrol", "listpids", f"{job}.0").stdout.splitlines()]
    os.kill(next(int(words[0]) for words in pids if words[4] == "1"), signal.SIGKILL)
    facts = cluster.end_of(job, 60)
    assert facts["JobState"] == "FAILED"
    assert int(facts["ExitCode"].split(":")[0]) in (137, 143)  # srun's word for killed processes
    assert "rank 1" in console(out)
