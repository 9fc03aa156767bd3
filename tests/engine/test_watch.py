"""A process that dies or hangs ends the others, with its rank, host and step. Real processes, killed and stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.test_resume import ENVIRONMENT, SCRIPT, assert_same_run
from umt.engine import checkpoints
from umt.errors import EXIT_PEER_LOST

pytestmark = pytest.mark.slow
TIMEOUT = 0.15  # minutes
LONG = ["--batch_size", "2", "--steps", "1000000", "--timeout_minutes", str(TIMEOUT)]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start_by_hand(folder: Path, *words: str) -> list[subprocess.Popen[str]]:
    """Two ranks without a launcher, each writing what it says to folder/rank<N>.txt."""
    folder.mkdir(exist_ok=True)
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = []
    for rank in range(2):
        with open(folder / f"rank{rank}.txt", "w", encoding="utf-8") as said:
            processes.append(
                subprocess.Popen(
                    [sys.executable, str(SCRIPT), str(folder / "run"), *words],
                    env={**ENVIRONMENT, **meet, "RANK": str(rank)}, stderr=said, stdout=said, text=True,
                )
            )  # fmt: skip
    return processes


def wait_for(file: Path, text: str, process: subprocess.Popen[str]) -> None:
    while text not in file.read_text():
        assert process.poll() is None, file.read_text()
        time.sleep(0.05)


def end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_lost_rank_ends_the_other_and_is_named(tmp_path: Path, lost: int, by: signal.Signals) -> None:
    processes = start_by_hand(tmp_path, *LONG)
    try:
        wait_for(tmp_path / "rank0.txt", "step 20/", processes[0])
        time.sleep(4)  # some beats later
        began = time.monotonic()
        processes[lost].send_signal(by)
        code = processes[1 - lost].wait(timeout=60)
        took = time.monotonic() - began
    finally:
        end(processes)
    said = (tmp_path / f"rank{1 - lost}.txt").read_text()
    assert code == EXIT_PEER_LOST, said
    assert f"rank {lost} on {socket.gethostname()} is gone or stopped: no sign of life for" in said
    assert re.search(r"and the last was at .*step \d+ of", said)
    assert took < 60 * TIMEOUT + 15


def test_a_rank_that_hangs_ends_all_and_shows_where_it_hangs(tmp_path: Path) -> None:
    processes = start_by_hand(tmp_path, *LONG, "--die_at", "0", "30", "--die_on_rank", "1", "--hang")
    try:
        codes = [process.wait(timeout=90) for process in processes]
    finally:
        end(processes)
    assert codes == [EXIT_PEER_LOST, EXIT_PEER_LOST]
    for rank in range(2):
        said = (tmp_path / f"rank{rank}.txt").read_text()
        assert f"no rank has advanced for {60 * TIMEOUT:.0f} s (--timeout_minutes), and rank 1 on " in said
        assert "is the furthest behind, at step 16 of 1000000 of epoch 1 (reading its videos)" in said
        assert ("in batches" in said) == (rank == 1)  # the stack of the one that hangs


def test_an_error_of_one_rank_ends_the_other_with_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").mkdir()  # rank 0 alone writes the record, and cannot
    processes = start_by_hand(tmp_path, *LONG)
    try:
        codes = [process.wait(timeout=60) for process in processes]
    finally:
        end(processes)
    assert codes[0] != 0
    assert codes[1] == 2
    said = (tmp_path / "rank1.txt").read_text()
    assert f"rank 0 on {socket.gethostname()} stopped: " in said
    assert "config.json could not be written" in said


def test_a_collective_that_fails_because_a_peer_stopped_ends_with_the_code_of_the_peer(tmp_path: Path) -> None:
    program = """if True:
        import datetime, sys
        import torch.distributed as dist
        from umt.engine.watch import Watch
        from umt.errors import ConfigError, PeerLostError
        where = {"size": 2, "address": "127.0.0.1", "port": int(sys.argv[1])}
        store = dist.TCPStore("127.0.0.1", where["port"], is_master=True, wait_for_workers=False)
        try:
            with Watch(rank=1, **where):
                try:
                    with Watch(rank=0, **where):
                        raise ConfigError("the mistake.")
                except ConfigError:
                    raise RuntimeError("[gloo] Connection closed by peer") from None
        except PeerLostError as error:
            print(error.code, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, free_port()], env=ENVIRONMENT, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == f"2 rank 0 on {socket.gethostname()} stopped: the mistake.\n", done.stderr


def test_a_rank_that_never_comes_is_said(tmp_path: Path) -> None:
    meet = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    program = (
        "from umt.engine import runtime; runtime.start(device='cpu', timeout_minutes=-0.76)"  # with the margin: 3 s
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**ENVIRONMENT, **meet}, capture_output=True, text=True, timeout=100
    )
    assert f"PeerLostError: Rank 0 on {socket.gethostname()} did not meet all of the 2 processes" in done.stderr


def test_torchrun_starts_a_killed_rank_again_from_the_last_checkpoint(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--max_restarts", "1"]
    words = ["--batch_size", "2", "--save_every_steps", "1"]
    command = [sys.executable, *launcher, str(SCRIPT), str(tmp_path / "cut"), *words]
    process = subprocess.Popen(
        [*command, "--steps", "400", "--epochs", "1"], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    while "step 20/" not in said:
        said += process.stderr.readline()
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    said += process.stderr.read()
    assert process.wait(timeout=120) == 0, said[-3000:]
    assert "resumed " in said
    command[command.index(str(tmp_path / "cut"))] = str(tmp_path / "whole")
    assert subprocess.run([*command, "--steps", "400", "--epochs", "1"], env=ENVIRONMENT, timeout=120).returncode == 0
    one, two = (checkpoints.load(tmp_path / name / "checkpoint-latest.pth") for name in ("whole", "cut"))
    assert one["progress"] == two["progress"]
    assert_same_run(tmp_path / "whole", tmp_path / "cut", names=["checkpoint-latest.pth", "checkpoint-0.pth"])
