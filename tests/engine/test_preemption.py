"""A run that is asked to stop saves, says so and exits with code 75; the same command goes on. Signals are real."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine import tiny_run
from tests.engine.test_resume import ENVIRONMENT, SCRIPT, assert_same_run, run_several
from umt.engine import checkpoints, preemption
from umt.engine.preemption import Preemption, job_of, requeue
from umt.engine.trainer import TrainerOptions
from umt.engine.watch import Watch
from umt.errors import EXIT_PREEMPTED, PreemptedError

# 3 epochs of 5 steps of 2 micro-batches, and no checkpoint by itself but at the ends of epochs.
COMMON = ["--save_every_steps", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run left alone, and one that gets each signal once: before its first step, within epochs, in the last step."""
    folder = tmp_path_factory.mktemp("runs")
    moments = [("SIGTERM", "0 0"), ("SIGUSR1", "0 7"), ("SIGUSR2", "2 9")]
    cut = [[str(folder / "cut"), *COMMON, "--die_at", *at.split(), "--by", name] for name, at in moments]
    runs = [[str(folder / "whole"), *COMMON], *cut, [str(folder / "cut"), *COMMON]]
    assert run_several(folder, runs) == [0, EXIT_PREEMPTED, EXIT_PREEMPTED, EXIT_PREEMPTED, 0]
    return folder


def test_a_run_stopped_by_signals_ends_as_one_left_alone(folder: Path) -> None:
    assert_same_run(folder / "whole", folder / "cut")


def test_the_step_that_runs_when_the_signal_comes_is_finished_and_saved(tmp_path: Path) -> None:
    # Micro-batches 4 and 5 are the third step.
    runs = [[str(tmp_path / "run"), *COMMON, "--die_at", "0", "4", "--by", "SIGTERM"]]
    assert run_several(tmp_path, runs) == [EXIT_PREEMPTED]
    progress = checkpoints.load(tmp_path / "run" / "checkpoint-latest.pth")["progress"]
    assert (progress["epoch"], progress["step"]) == (0, 3)


def test_max_hours_stop_the_run_after_a_step_and_say_so(tmp_path: Path) -> None:
    watch = Watch(preemption=Preemption(max_hours=1e-9))
    trainer = tiny_run.build(TrainerOptions(epochs=1, steps_per_epoch=3, output_dir=tmp_path), watch=watch)
    with pytest.raises(
        PreemptedError, match=r"--max_hours \(1e-09\) are over: epoch 1, after step 1 of 3; all of it is"
    ):
        trainer.fit()
    assert checkpoints.load(tmp_path / "checkpoint-latest.pth")["progress"]["step"] == 1


def test_without_checkpoints_it_says_that_nothing_is_saved(tmp_path: Path) -> None:
    options = TrainerOptions(epochs=1, steps_per_epoch=3, output_dir=tmp_path, save_ckpt=False)
    with pytest.raises(PreemptedError, match="nothing is saved"):
        tiny_run.build(options, watch=Watch(preemption=Preemption(max_hours=1e-9))).fit()


def test_the_handlers_are_there_in_the_block_only() -> None:
    before = [signal.getsignal(number) for number in preemption.SIGNALS]
    with Preemption() as asked:
        assert asked.reason is None
        os.kill(os.getpid(), signal.SIGUSR2)
        assert asked.reason == "SIGUSR2 was received"
        os.kill(os.getpid(), signal.SIGTERM)  # the same wish, passed on by another way
        assert asked.reason == "SIGUSR2 was received"
    assert [signal.getsignal(number) for number in preemption.SIGNALS] == before


def test_a_second_sigterm_after_a_while_ends_the_process_at_once() -> None:
    program = """
import os, signal, time
from umt.engine import preemption
preemption.PATIENCE_SECONDS = 0.2
with preemption.Preemption():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    print("still here", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("and still", flush=True)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == "still here\n"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_ranks_stops_both_at_the_same_step(tmp_path: Path, rank: int) -> None:
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *start, str(SCRIPT), str(tmp_path / "cut"), "--batch_size", "2", *COMMON]
    stop = ["--die_at", "1", "3", "--die_on_rank", str(rank), "--by", "SIGUSR1"]
    stopped = subprocess.run([*command, *stop], env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert f"exitcode  : {EXIT_PREEMPTED}" in stopped.stderr  # in torchrun's own summary
    progress = checkpoints.load(tmp_path / "cut" / "checkpoint-latest.pth")["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 2)
    assert subprocess.run(command, env=ENVIRONMENT, timeout=120).returncode == 0
    command[command.index(str(tmp_path / "cut"))] = str(tmp_path / "whole")
    assert subprocess.run(command, env=ENVIRONMENT, timeout=120).returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_torchrun_passes_sigterm_on_and_the_run_is_saved(tmp_path: Path) -> None:
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *start, str(SCRIPT), str(tmp_path / "run"), "--batch_size", "2", "--steps", "100000"]
    process = subprocess.Popen(
        [*command, "--save_every_steps", "0"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "step 3/" not in process.stderr.readline():
        assert process.poll() is None
    process.terminate()
    said = process.stderr.read()
    process.wait()
    assert "SIGTERM was received: epoch 1, after step" in said
    assert checkpoints.load(tmp_path / "run" / "checkpoint-latest.pth")["progress"]["step"] >= 3


def test_a_slurm_job_is_named_as_scontrol_names_it() -> None:
    assert job_of({}) is None
    assert job_of({"SLURM_JOB_ID": "17"}) == "17"
    assert job_of({"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}) == "17_2"


def test_a_requeue_that_fails_is_said_and_no_error() -> None:
    # There is no such job, and perhaps no SLURM.
    assert "SLURM did not requeue job 999999999 (" in requeue("999999999")


def test_a_run_that_is_told_to_stop_does_so_within_a_step() -> None:
    with Preemption() as asked:
        asked.ask("another rank")
        began = time.monotonic()
        with pytest.raises(PreemptedError, match="another rank: epoch 1, after step 1"):
            tiny_run.build(TrainerOptions(epochs=1, steps_per_epoch=10**6), watch=Watch(preemption=asked)).fit()
    assert time.monotonic() - began < 30


def test_a_warning_that_comes_while_the_process_ends_changes_nothing() -> None:
    late = "import atexit, os, signal, sys; atexit.register(os.kill, os.getpid(), signal.SIGUSR1)"
    command = f"{late}; import umt.__main__ as m; sys.argv = ['umt', '--version']; sys.exit(m.main())"
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, check=False).returncode == 0
