"""scripts/launch.sh on a cluster: which launcher, how many nodes, what the sbatch file says, and what is refused.

Nothing here needs SLURM: a dry run shows what would be run, and a refusal comes before it. What SLURM itself makes of
it is held by tests/slurm.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.recipes.conftest import SCRIPTS, DryRun, clean_environment, run_script

K400 = "finetuning/k400/b16_ptk710_ftk710_ftk400_f8_res224"
PRETRAIN = "pretraining/b16_ptk710_f8_res224"


def options(run: DryRun) -> set[str]:
    """The options of `srun` in the command of a dry run."""
    words = run.facts["command"].split()
    assert words[0] == "srun"
    return set(words[1 : next(i for i, word in enumerate(words) if word.endswith("python"))])


def directives(run: DryRun) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in run.output.splitlines() if line.startswith("#SBATCH ")]


# ---- which launcher, and how many processes on how many nodes


def test_a_partition_asks_srun_for_the_gpus_of_the_recipe() -> None:
    run = run_script(PRETRAIN, "--dry_run", PARTITION="video")
    assert options(run) >= {"--partition=video", "--nodes=4", "--ntasks=32", "--ntasks-per-node=8", "--gres=gpu:8"}
    assert run.notice == ""


def test_a_dead_process_ends_the_others() -> None:
    assert "--kill-on-bad-exit=1" in options(run_script(K400, "--dry_run", PARTITION="video"))


@pytest.mark.parametrize(
    ("environ", "shape"),
    [
        ({"GPUS": "4"}, {"--nodes=1", "--ntasks=4", "--gres=gpu:4"}),
        ({"GPUS": "12"}, {"--nodes=2", "--ntasks=12", "--ntasks-per-node=6", "--gres=gpu:6"}),
        ({"GPUS_PER_NODE": "4"}, {"--nodes=4", "--ntasks=16", "--gres=gpu:4"}),
        ({"NODES": "2", "GPUS_PER_NODE": "4"}, {"--nodes=2", "--ntasks=8", "--gres=gpu:4"}),
        ({"NODES": "8", "GPUS": "16"}, {"--nodes=8", "--ntasks=16", "--ntasks-per-node=2", "--gres=gpu:2"}),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_nodes_and_gpus_follow_from_one_another(environ: dict[str, str], shape: set[str]) -> None:
    assert options(run_script(K400, "--dry_run", PARTITION="video", **environ)) >= shape


@pytest.mark.parametrize(("flags", "environ"), [(["--device", "cpu"], {}), ([], {"GPUS_PER_NODE": "0"})])
def test_a_run_on_cpus_asks_for_no_gpu(flags: list[str], environ: dict[str, str]) -> None:
    asked = options(run_script(K400, "--dry_run", *flags, PARTITION="video", GPUS="2", **environ))
    assert asked >= {"--nodes=1", "--ntasks=2"}
    assert not any("gres" in word or "cpus-per-task" in word for word in asked)


def test_what_srun_is_asked_for_can_be_overridden() -> None:
    run = run_script(
        *(K400, "--dry_run"),
        PARTITION="video",
        CPUS_PER_TASK="6",
        TIME_LIMIT="2-00:00:00",
        SIGNAL="USR2@300",
        ACCOUNT="lab",
        QOS="high",
        JOB_NAME="mine",
        SRUN_ARGS="--mem=0 --gres=gpu:a100:8",
    )
    words = run.facts["command"].split()
    assert options(run) >= {
        *("--cpus-per-task=6", "--time=2-00:00:00", "--signal=USR2@300", "--account=lab", "--qos=high"),
        *("--job-name=mine", "--mem=0"),
    }
    assert words.index("--gres=gpu:a100:8") > words.index("--gres=gpu:8")  # the last one wins


ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "gpu[1-2]"}


def test_an_allocation_is_used_as_a_whole_with_a_process_a_gpu() -> None:
    run = run_script(K400, "--dry_run", **ALLOCATION, SLURM_NTASKS="2", SLURM_GPUS_ON_NODE="4", SLURM_CPUS_PER_TASK="9")
    assert options(run) >= {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=9"}
    assert not any("partition" in word or "gres" in word for word in options(run))


def test_an_allocation_without_gpus_has_its_tasks() -> None:
    assert "--ntasks=6" in options(run_script(K400, "--dry_run", **ALLOCATION, SLURM_NTASKS="6"))


def test_a_shell_that_is_a_step_shares_what_it_holds_with_the_run() -> None:
    shell = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    run = run_script(K400, "--dry_run", **ALLOCATION, **shell, SLURM_NTASKS="1", GPUS="4")
    assert options(run) >= {"--overlap", "--ntasks=4"}
    assert run.facts["batch"].startswith("4 GPUs ")


@pytest.mark.parametrize(
    "environ",
    [
        {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"},
        {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8"},
        {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"},
    ],
    ids=["torchrun", "mpirun", "srun"],
)
def test_a_process_that_a_launcher_started_starts_no_others(environ: dict[str, str]) -> None:
    run = run_script(K400, "--dry_run", **environ)
    assert re.match(r"\S*python -m umt finetune ", run.facts["command"])
    assert run.facts["batch"].startswith("8 GPUs ")


# ---- the sbatch file


def test_submit_and_dry_run_print_the_file_and_submit_nothing(tmp_path: Path) -> None:
    run = run_script(K400, "--dry_run", SUBMIT="1", PARTITION="video", OUTPUT_DIR="out", cwd=tmp_path)
    assert run.returncode == 0
    assert directives(run) == [
        f'--job-name="{Path(K400).name}"',
        *("--nodes=2", "--ntasks=16", "--ntasks-per-node=8", "--gres=gpu:8", "--cpus-per-task=12"),
        *("--time=24:00:00", "--signal=USR1@120", "--open-mode=append", "--requeue"),
        *('--output="out/slurm/%j.out"', "--partition=video"),
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_file_runs_the_command_that_is_shown() -> None:
    run = run_script(K400, "--dry_run", "--epochs", "7", SUBMIT="1", DATA_PATH="my lists")
    last = run.output.splitlines()[-1]
    assert last == f"exec {run.facts['command'].strip()}"
    assert r"--data_path my\ lists" in last
    assert last.endswith("--epochs 7")


def test_everything_in_the_file_can_be_overridden(tmp_path: Path) -> None:
    run = run_script(
        *(K400, "--dry_run"),
        SUBMIT="1",
        NODES="1",
        GPUS="2",
        CPUS_PER_TASK="4",
        TIME_LIMIT="30",
        SIGNAL="B:TERM@60",
        JOB_NAME="mine",
        LOG_DIR="/logs",
        REQUEUE="0",
        ACCOUNT="lab",
        QOS="low",
        SBATCH_ARGS="--mem=0 --exclusive",
        cwd=tmp_path,
    )
    assert directives(run) == [
        *('--job-name="mine"', "--nodes=1", "--ntasks=2", "--ntasks-per-node=2", "--gres=gpu:2", "--cpus-per-task=4"),
        *("--time=30", "--signal=B:TERM@60", "--open-mode=append", "--no-requeue", '--output="/logs/%j.out"'),
        *("--account=lab", "--qos=low", "--mem=0 --exclusive"),
    ]


def test_a_job_array_gives_each_task_its_flags_and_its_folder() -> None:
    run = run_script(K400, "--dry_run", "--seed", "%a", SUBMIT="1", ARRAY="3-5", OUTPUT_DIR="out")
    assert directives(run)[-2:] == ['--output="out/slurm/%A_%a.out"', "--array=3-5"]
    last = run.output.splitlines()[-1]
    assert "--output_dir out/${SLURM_ARRAY_TASK_ID} " in last
    assert last.endswith("--seed ${SLURM_ARRAY_TASK_ID}")
    assert run.facts["output"] == "out/3"


def test_the_interpreters_folder_is_on_the_path(tmp_path: Path) -> None:
    # DeepSpeed looks for ninja there.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text('#!/bin/sh\necho "$PATH"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    run = run_script(K400, GPUS="1", PYTHON="bin/python", cwd=tmp_path)
    assert run.output.split(":")[0] == str(tmp_path / "bin")


# ---- what is refused, before anything starts


def refusal(*flags: str, cwd: Path | None = None, **environ: str) -> str:
    """The one sentence with which the script ends, with exit code 2."""
    run = run_script(K400, *flags, cwd=cwd, **environ)
    assert (run.returncode, run.output) == (2, "")
    assert run.errors.count("\n") == 1
    assert run.errors.startswith("umt: ")
    return run.errors.removeprefix("umt: ").rstrip()


@pytest.fixture
def without_slurm(tmp_path: Path) -> str:
    """A PATH that has what the script needs and no SLURM, whatever is installed here."""
    for name in ("bash", "dirname", "basename", "grep", "mkdir", "tail"):
        found = next(Path(folder, name) for folder in os.environ["PATH"].split(":") if Path(folder, name).exists())
        (tmp_path / name).symlink_to(found)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PARTITION": "video"}, "PARTITION (video) is set, but srun is not on PATH."),
        ({"SUBMIT": "1"}, "SUBMIT (1) is set, but sbatch is not on PATH."),
        (ALLOCATION, "SLURM_JOB_ID (7) says that this is a SLURM allocation, but srun is not on PATH."),
    ],
    ids=["srun", "sbatch", "an allocation"],
)
def test_a_missing_program_is_named(environ: dict[str, str], words: str, without_slurm: str) -> None:
    assert refusal("--device", "cpu", PATH=without_slurm, **environ) == (
        f"{words} Load SLURM's module, or unset it to run on this machine."
    )


def test_more_gpus_than_the_machine_has_are_refused() -> None:
    assert refusal(GPUS="4", CUDA_VISIBLE_DEVICES="0,1") == (
        "GPUS (4) is more than the 2 GPU(s) of this machine. Lower it, or give --device cpu."
    )


def test_gpus_on_a_machine_without_any_are_refused() -> None:
    assert refusal("--device", "cuda", GPUS="2", CUDA_VISIBLE_DEVICES="") == (
        "GPUS (2) is more than the 0 GPU(s) of this machine. Lower it, or give --device cpu."
    )


def test_more_gpus_than_the_allocation_has_are_refused() -> None:
    assert refusal(**ALLOCATION, SLURM_GPUS_ON_NODE="4", GPUS="16") == (
        "GPUS (16) is 8 a node, but this allocation has 4 a node. Give GPUS=8, or ask SLURM for more."
    )


@pytest.mark.parametrize("launcher", [{}, {**ALLOCATION, "SLURMD_NODENAME": "gpu1"}], ids=["torchrun", "srun"])
def test_a_port_in_use_is_refused(launcher: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 1\n")  # is to be there, and must not be reached
    (tmp_path / "srun").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        path = f"{tmp_path}:{os.environ['PATH']}"
        said = refusal("--device", "cpu", GPUS="2", MASTER_PORT=port, PATH=path, **launcher)
    assert said == f"MASTER_PORT ({port}) is in use on this machine. Unset it, and a free port is chosen."


def test_a_port_of_ones_own_is_used() -> None:
    assert "--master_port 29999 " in run_script(K400, "--dry_run", GPUS="2", MASTER_PORT="29999").facts["command"]


def test_a_free_port_is_one_that_nothing_listens_on(tmp_path: Path) -> None:
    # The sequence of RANDOM is fixed by its seed, so the port that would be taken first is known, and taken.
    def port() -> int:
        script = f"source {SCRIPTS[K400].parents[3] / 'scripts' / 'launch.sh'}; RANDOM=42; free_port"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=True, env=clean_environment()
        )
        return int(done.stdout)

    first = port()
    with socket.create_server(("127.0.0.1", first)):
        assert port() != first
    assert port() == first


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"NODES": "4", "GPUS": "10"},
            "GPUS (10) cannot be shared evenly by 4 nodes. "
            "The nearest that works: GPUS=8 or GPUS=12, or another NODES.",
        ),
        (
            {"NODES": "4", "GPUS": "3"},
            "GPUS (3) cannot be shared evenly by 4 nodes. The nearest that works: GPUS=4, or another NODES.",
        ),
        (
            {"NODES": "1", "GPUS": "16"},
            "GPUS (16) on NODES (1) is 16 a node, more than GPUS_PER_NODE (8). Give NODES=2, or leave NODES out.",
        ),
        ({"NODES": "none"}, "NODES (none) must be a whole number above 0. Unset it for the default."),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_nodes_that_cannot_share_the_gpus_are_refused(environ: dict[str, str], words: str) -> None:
    assert refusal(PARTITION="video", **environ) == words


def test_a_batch_that_the_cluster_cannot_make_is_refused_before_it_waits() -> None:
    assert refusal("--dry_run", "--global_batch_size", "256", SUBMIT="1", GPUS="12") == (
        "--global_batch_size (256) is no multiple of GPUs x --batch_size = 12 x 16 = 192. "
        "The nearest that works: --global_batch_size 192 or 384."
    )
