"""Buffers that training moves: one validation whatever the number of processes, and saves that change nothing."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.buffers_run import BATCH, EPOCHS, STEPS
from umt.engine import checkpoints
from umt.errors import EXIT_PREEMPTED

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(processes: int, *words: object) -> tuple[list[int], str]:
    """Exit codes of all processes, and what they said."""
    launched = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    common = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.engine.buffers_run", *map(str, words)]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env={**common, **launched, "RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in range(processes)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in started]
    return [process.returncode for process in started], "".join(said)


def content(folder: Path) -> dict[str, Any]:
    return checkpoints.load(folder / checkpoints.LATEST)


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit, whatever is nested in what."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    codes, said = run(2, folder)
    assert codes == [0, 0], said
    assert "broadcast_buffers" not in said
    return folder


def test_each_process_trains_with_statistics_of_its_own_and_the_checkpoint_has_both(whole: Path) -> None:
    saved = content(whole)
    first, second = (buffers[0]["layers.2.running_mean"] for buffers in saved["buffers"])
    assert not torch.equal(first, second)
    agreed = ((first.double() + second.double()) / 2).float()
    assert torch.equal(saved["model"]["layers.2.running_mean"], agreed)
    assert saved["model"]["layers.2.num_batches_tracked"] == STEPS * EPOCHS


def test_one_checkpoint_validates_equally_on_one_two_and_three_processes(whole: Path, tmp_path: Path) -> None:
    for processes in (1, 2, 3):
        codes, said = run(processes, tmp_path, "--validate", whole / checkpoints.LATEST)
        assert codes == [0] * processes, said
    metrics = [json.loads(file.read_text()) for file in tmp_path.glob("validated*.json")]
    assert len(metrics) == 6
    assert all(other == metrics[0] for other in metrics)


@pytest.mark.slow
def test_the_validation_of_a_run_is_that_of_its_checkpoint(whole: Path, tmp_path: Path) -> None:
    """The best checkpoint is what was validated: its epoch's number comes again from the file."""
    codes, said = run(1, tmp_path, "--validate", whole / checkpoints.BEST)
    assert codes == [0], said
    best = json.loads((tmp_path / "validated1-0.json").read_text())
    assert best["acc1"] == content(whole)["progress"]["best"]


def test_a_save_asked_for_by_sigterm_changes_nothing_in_what_follows(whole: Path, tmp_path: Path) -> None:
    codes, said = run(2, tmp_path, "--die_at", 2, "--by", "SIGTERM")
    assert codes == [EXIT_PREEMPTED] * 2, said
    assert content(tmp_path)["progress"]["step"] > 0
    codes, said = run(2, tmp_path)
    assert codes == [0, 0], said
    assert_same(content(tmp_path), content(whole))


@pytest.mark.slow
def test_saves_in_between_change_nothing(whole: Path, tmp_path: Path) -> None:
    codes, said = run(2, tmp_path, "--save_every_steps", 1)
    assert codes == [0, 0], said
    assert_same(content(tmp_path), content(whole))


def test_a_killed_run_of_two_processes_ends_bit_equal(whole: Path, tmp_path: Path) -> None:
    codes, said = run(2, tmp_path, "--save_every_steps", 1, "--die_at", 6)
    assert 0 not in codes, said
    codes, said = run(2, tmp_path, "--save_every_steps", 1)
    assert codes == [0, 0], said
    assert_same(content(tmp_path), content(whole))


def test_summed_buffers_are_those_of_one_process_with_all_samples(whole: Path) -> None:
    first, second = (json.loads((whole / f"counts{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert [sum(counts) for counts in first] == [2 * BATCH * (step + 1) for step in range(STEPS * EPOCHS)]


@pytest.mark.slow
def test_another_number_of_processes_goes_on_from_what_they_agreed_on(whole: Path, tmp_path: Path) -> None:
    codes, said = run(2, tmp_path, "--die_at", 5, "--by", "SIGTERM")
    assert codes == [EXIT_PREEMPTED] * 2, said
    codes, said = run(1, tmp_path)
    assert codes == [0], said
    assert "go on from the buffers that those agreed on" in said
