"""Device, precision, threads and processes are settled from flags and environment, and refused in a sentence."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from umt.engine import runtime
from umt.errors import ConfigError
from umt.processes import World

CPU = torch.device("cpu")


def test_a_plain_process_needs_no_launcher() -> None:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        assert runtime.start(device="cpu", precision="fp32", threads=1, environ={}).world == World()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def test_torchrun_is_read() -> None:
    environ = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert runtime.find_world(environ) == World(3, 8, 1, 2, "torchrun")


def test_open_mpi_is_read() -> None:
    environ = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    assert runtime.find_world(environ) == World(1, 2, 1, 1, "openmpi")


def test_srun_is_read() -> None:
    environ = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "11", "SLURM_LOCALID": "1"}
    assert runtime.find_world({**environ, "SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}) == World(5, 11, 1, 4, "slurm")
    assert runtime.find_world({**environ, "SLURM_STEP_TASKS_PER_NODE": "11"}) == World(5, 11, 1, 11, "slurm")


def test_a_batch_script_without_srun_is_one_process() -> None:
    assert runtime.find_world({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}) == World()


def test_torchrun_inside_srun_wins() -> None:
    environ = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}
    assert runtime.find_world(environ).rank == 9


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"RANK \(2\) must lie in 0..WORLD_SIZE - 1 \(1\)"):
        runtime.find_world({"RANK": "2", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(("nodes", "first"), [("gpu[03-07,12],cpu1", "gpu03"), ("gpu3,gpu9", "gpu3"), ("one", "one")])
def test_slurm_processes_meet_on_the_first_node_of_the_step(nodes: str, first: str) -> None:
    environ = {"SLURM_STEP_NODELIST": nodes, "SLURM_JOB_ID": "41234"}
    assert runtime.rendezvous(World(1, 2, launcher="slurm"), environ) == (first, 21234)


def test_processes_without_a_meeting_point_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 processes were started by openmpi but MASTER_ADDR or MASTER_PORT is not"):
        runtime.rendezvous(World(0, 2, launcher="openmpi"), {})


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        script = "from umt.engine import runtime; runtime.start(device='cpu', threads=1)"
        launcher = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **launcher, **where},
            check=False,
        )  # fmt: skip
    assert f"ConfigError: Port {port} of 127.0.0.1, where the processes were to meet, is in use." in done.stderr


def test_an_unknown_device_is_refused() -> None:
    for name in ("tpu", "cuda:one"):
        with pytest.raises(ConfigError, match=rf"--device \({name}\) must be auto, cpu, cuda or cuda:N"):
            runtime.choose_device(name, World())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused_and_auto_takes_the_cpu() -> None:
    assert runtime.choose_device("auto", World()) == CPU
    with pytest.raises(ConfigError, match=r"--device \(cuda\): no usable CUDA GPU was found"):
        runtime.choose_device("cuda", World())


def test_precision_is_bf16_where_the_cpu_has_it_and_fp32_elsewhere() -> None:
    assert runtime.choose_precision("auto", CPU) == ("bf16" if runtime.has_native_bf16(CPU) else "fp32")
    assert runtime.choose_precision("fp16", CPU) == "fp16"
    with pytest.raises(ConfigError, match=r"--precision \(fp8\) must be one of auto, bf16, fp16, fp32"):
        runtime.choose_precision("fp8", CPU)


def test_threads_are_asked_for_or_inherited_or_the_share_of_the_cores() -> None:
    assert runtime.choose_threads(3, World(), {"OMP_NUM_THREADS": "7"}) == 3
    assert runtime.choose_threads(0, World(), {"OMP_NUM_THREADS": "7"}) == 7
    assert runtime.choose_threads(0, World(local_size=10_000), {}) == 1


def test_the_helpers_work_without_a_process_group() -> None:
    runtime.barrier()
    value = torch.tensor([1.0, 2.0])
    assert torch.equal(runtime.reduce_mean(value), value)
    assert runtime.broadcast_object("x") == "x"
    assert runtime.gather_objects(5) == [5]
    assert (runtime.rank(), runtime.world_size(), runtime.is_main()) == (0, 1, True)


def test_unwrapping_finds_the_model_whose_names_are_saved() -> None:
    model = nn.Linear(2, 2)
    assert runtime.unwrap(torch.compile(model)) is model
    assert runtime.unwrap(model) is model


def test_importing_the_engine_changes_nothing() -> None:
    program = """
import os, signal, sys, torch, logging
def state():
    return (dict(os.environ), torch.get_num_threads(), torch.initial_seed(), torch.backends.cudnn.benchmark,
            torch.are_deterministic_algorithms_enabled(), torch.distributed.is_initialized(), print, sys.stdout,
            signal.getsignal(signal.SIGTERM), *(logging.getLogger(name).handlers[:] for name in ("", "umt")))
before = state()
import umt.engine.trainer, umt.engine.record, umt.engine.replay
assert state() == before
assert not {"timm", "tensorboardX"} & sys.modules.keys()
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_run_resumes_bit_for_bit(tmp_path: Path, precision: str) -> None:
    script = Path(__file__).with_name("tiny_run.py")
    common = [sys.executable, str(script)]
    for folder, kill in (("whole", []), ("cut", ["--die_at", "1", "5"]), ("cut", [])):
        arguments = [str(tmp_path / folder), "--device", "cuda", "--precision", precision, "--width", "256", *kill]
        done = subprocess.run([*common, *arguments], cwd=script.parents[2], env={"PYTHONPATH": str(script.parents[2])})
        assert (done.returncode == 0) == (not kill)
    whole, cut = (torch.load(tmp_path / f / "checkpoint-latest.pth", weights_only=True) for f in ("whole", "cut"))
    assert all(torch.equal(whole["model"][name], value) for name, value in cut["model"].items())
