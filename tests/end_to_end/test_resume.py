"""`python -m umt` killed (SIGKILL) at watched moments and started again ends as one left alone, bit for bit."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.end_to_end.conftest import Command, Data, environment, with_flags
from tests.same_run import differences, log_lines, run_differences
from umt.engine import checkpoints, evaluate
from umt.errors import EXIT_PREEMPTED
from umt.evaluation.partial import partial_path
from umt.evaluation.scores import ViewScores
from umt.models import create_model

Moment = Callable[[Path, str], bool]


# ---- moments: of the output folder and of what the process has said so far


def said(text: str) -> Moment:
    """The process has written a line that has `text`."""
    return lambda out, console: text in console


def logged(epochs: int) -> Moment:
    """log.txt has the lines of so many epochs: the kill lands around the write of their checkpoint."""

    def moment(out: Path, console: str) -> bool:
        return (out / "log.txt").exists() and (out / "log.txt").read_text().count("\n") >= epochs

    return moment


def saved_after(text: str) -> Moment:
    """checkpoint-latest.pth has been replaced since `text` was said, which is after a step's save."""
    seen: dict[str, int] = {}

    def moment(out: Path, console: str) -> bool:
        if text not in console:
            return False
        number = (out / checkpoints.LATEST).stat().st_ino if (out / checkpoints.LATEST).exists() else 0
        return seen.setdefault("inode", number) != number

    return moment


def videos_done(videos: int) -> Moment:
    """The final test has finished at least so many videos, and is not over."""
    seen: list[int] = []  # sizes of the file: one write for each video

    def moment(out: Path, console: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            size = partial_path(out, 0).stat().st_size
            if not seen or size != seen[-1]:
                seen.append(size)
        return len(seen) > videos

    return moment


def started(words: Sequence[str], folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """`umt words` at work in `folder`, in a group of its own, and the file of what it says."""
    console = folder / "console.txt"
    with open(console, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "umt", *words], cwd=folder, stderr=file, stdout=file, env=environment(),
            start_new_session=True,
        )  # fmt: skip
    return process, console


def kill_when(moment: Moment, words: Sequence[str], folder: Path) -> str:
    """Runs `umt words` in `folder` until the moment, then SIGKILLs it; what it had said."""
    process, console = started(words, folder)
    try:
        while process.poll() is None and not moment(folder / "out", console.read_text()):
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"it ended before the moment came:\n{console.read_text()}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers end by themselves, but later
    return console.read_text()


# ---- what two runs leave


def assert_same_run(whole: Path, cut: Path) -> None:
    """Every checkpoint with all that is in it, the log but for the clock, and the scores of the test."""
    assert run_differences(whole, cut) == []


# Both run in a folder of their own, so that their commands, which checkpoints record, are the same.
def words_of(flags: Sequence[str], **more: object) -> list[str]:
    return with_flags(flags, output_dir="out", log_every=1, **more)


def assert_kills_leave_no_trace(words: list[str], moments: Sequence[Moment], umt: Command, tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    umt(*words, cwd=tmp_path / "whole")
    for moment in moments:
        kill_when(moment, words, tmp_path / "cut")
    umt(*words, cwd=tmp_path / "cut")
    assert_same_run(tmp_path / "whole" / "out", tmp_path / "cut" / "out")


@pytest.mark.slow
def test_a_pretraining_killed_in_mid_epoch_ends_as_one_left_alone(data: Data, umt: Command, tmp_path: Path) -> None:
    words = words_of(data.pretrain, save_every_steps=1, epochs=1, warmup_epochs=0)
    assert_kills_leave_no_trace(words, [said("step 4/6")], umt, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("every", "workers"), [(1, 0), (4, 2)])
def test_a_pretraining_killed_anywhere_ends_as_one_left_alone(
    every: int, workers: int, data: Data, umt: Command, tmp_path: Path
) -> None:
    moments = [
        said("epoch 1/2 step 1/6"),  # before or in the first write
        said("epoch 1/2 step 3/6"),  # between two writes, if they come every 4 steps
        said("epoch 1/2 step 6/6"),
        logged(1),  # between epochs
        said("epoch 2/2 step 2/6"),
        saved_after("epoch 2/2 step 4/6"),
        said("epoch 2/2 step 6/6"),
    ]
    words = words_of(data.pretrain, save_every_steps=every, num_workers=workers)
    assert_kills_leave_no_trace(words, moments, umt, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("workers", "flags"),
    # fp16 is hundreds of times slower than fp32 on a CPU: tests/engine cuts it at toy widths, and on a GPU.
    [(0, {}), (2, {"test_best": None}), (0, {"precision": "bf16", "update_freq": 2})],
    ids=["plain", "workers and test_best", "bf16 and accumulation"],
)
def test_a_finetuning_killed_anywhere_ends_as_one_left_alone(
    workers: int, flags: dict[str, object], data: Data, umt: Command, tmp_path: Path
) -> None:
    last = 6 // int(str(flags.get("update_freq", 1)))
    moments = [
        said("epoch 1/2 step 2/"),  # mid-epoch
        saved_after(f"epoch 1/2 step {last}/{last}"),  # in validation: the last step is saved, the epoch is not
        logged(1),  # between epochs
        said("epoch 2/2 step 2/"),
        saved_after(f"epoch 2/2 step {last}/{last}"),
        said("testing "),  # before the first video
        videos_done(2),  # between videos
    ]
    words = words_of(data.finetune, save_every_steps=1, num_workers=workers, **flags)
    assert_kills_leave_no_trace(words, moments, umt, tmp_path)


# ---- what the flags of resuming say


@pytest.fixture(scope="module")
def finished(data: Data, umt: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a pretraining of 3 epochs with all its numbered checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    umt(*words_of(data.pretrain, epochs=3, save_ckpt_freq=1), cwd=folder)
    return folder / "out"


@pytest.mark.slow
def test_resume_goes_on_from_the_file_that_it_names(finished: Path, data: Data, umt: Command, tmp_path: Path) -> None:
    # The folder's own latest checkpoint is further on: the named one wins all the same.
    (tmp_path / "out").mkdir()
    for name in ("checkpoint-0.pth", "checkpoint-latest.pth", "log.txt"):
        (tmp_path / "out" / name).write_bytes((finished / name).read_bytes())
    words = words_of(data.pretrain, epochs=3, save_ckpt_freq=1, resume="out/checkpoint-0.pth")
    said_then = umt(*words, cwd=tmp_path).stderr
    assert "resumed out/checkpoint-0.pth after 1 epochs and 0 steps" in said_then
    assert "epoch 2/3 step 1/6" in said_then
    one, two = (checkpoints.load(folder / "checkpoint-2.pth") for folder in (finished, tmp_path / "out"))
    assert differences({**one, "config": 0}, {**two, "config": 0}) == []
    assert log_lines(finished) == log_lines(tmp_path / "out")


@pytest.mark.slow
def test_no_auto_resume_starts_from_the_beginning(finished: Path, data: Data, umt: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint-latest.pth").write_bytes((finished / "checkpoint-latest.pth").read_bytes())
    words = words_of(data.pretrain, epochs=1, warmup_epochs=0)
    said_then = umt(*words, "--no_auto_resume", cwd=tmp_path).stderr
    assert "resumed" not in said_then
    assert "epoch 1/1 step 1/6" in said_then
    assert checkpoints.load(tmp_path / "out" / "checkpoint-latest.pth")["progress"]["epoch"] == 1


@pytest.mark.slow
def test_test_best_tests_the_best_epoch_not_the_last(data: Data, umt: Command, tmp_path: Path) -> None:
    # The second epoch starts from a best accuracy that no epoch can beat, so the best stays the first.
    words = words_of(data.finetune, test_best=None)
    umt(*with_flags(words, epochs=1, warmup_epochs=0), cwd=tmp_path)
    first = checkpoints.load(tmp_path / "out" / "checkpoint-best.pth")
    first["progress"] |= {"best": 100.0, "best_epoch": 0}
    for name in ("checkpoint-best.pth", "checkpoint-latest.pth"):
        torch.save(first, tmp_path / "out" / name)
    umt(*words, cwd=tmp_path)
    best, last = (checkpoints.load(tmp_path / "out" / f"checkpoint-{name}.pth") for name in ("best", "latest"))
    assert last["progress"] == {**last["progress"], "epoch": 2, "best": 100.0, "best_epoch": 0}
    assert best["progress"]["epoch"] == 1
    provenance = ViewScores.load(tmp_path / "out" / "scores.npz").provenance
    assert provenance["weights"] == "out/checkpoint-best.pth"
    assert provenance["weights_digest"] == digest(best["model"]) != digest(last["model"])


def digest(state: dict[str, torch.Tensor]) -> str:
    model = create_model("vit_tiny_patch8_64", num_classes=len(state["head.bias"]))
    model.load_state_dict(state)
    return evaluate.weights_digest(model)


@pytest.mark.slow
def test_a_finished_run_that_gets_more_epochs_keeps_its_whole_log(data: Data, umt: Command, tmp_path: Path) -> None:
    for epochs in (1, 2):
        umt(*words_of(data.finetune, epochs=epochs, warmup_epochs=0), cwd=tmp_path)
    assert [line.get("epoch", "test") for line in log_lines(tmp_path / "out")] == [0, 1, "test"]


# ---- a step that is no number


@pytest.mark.slow
def test_a_step_that_is_no_number_is_replayed_by_the_command_it_names(data: Data, umt: Command, tmp_path: Path) -> None:
    stopped = umt(*words_of(data.pretrain, lr=1e30, warmup_epochs=0), cwd=tmp_path, code=2)
    assert "Traceback" not in stopped.stderr
    command = re.search(r"umt replay (\S+\.pth)", stopped.stderr)
    assert command is not None, stopped.stderr
    named = re.findall(r"row (\d+) \S*?(train_\d+\.mp4)", stopped.stderr)
    assert len(named) == 4
    replayed = umt("replay", command[1], cwd=tmp_path).stdout
    assert re.findall(r"row (\d+) copy 0 \S*?(train_\d+\.mp4)", replayed) == named
    assert "loss nan" in replayed


@pytest.mark.slow
def test_poisoned_weights_stop_a_finetuning_at_its_first_step(data: Data, umt: Command, tmp_path: Path) -> None:
    state = create_model("vit_tiny_patch8_64", num_classes=4).state_dict()
    state["blocks.1.mlp.fc1.weight"][0, 0] = float("nan")
    torch.save({"model": state}, tmp_path / "poisoned.pth")
    stopped = umt(*words_of(data.finetune, finetune=tmp_path / "poisoned.pth"), cwd=tmp_path, code=2)
    assert "epoch 0, step 0" in stopped.stderr
    replayed = umt("replay", str(next((tmp_path / "out").glob("nonfinite-0-rank0.pth"))), cwd=tmp_path).stdout
    assert len(re.findall(r"nan +row \d+ copy [01] \S*train_\d+\.mp4", replayed)) == 8


# ---- what people do in the same folder


@pytest.mark.slow
def test_another_recipes_checkpoint_is_refused_before_the_training(
    finished: Path, data: Data, umt: Command, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    log_before = (tmp_path / "out" / "log.txt").read_bytes()
    words = words_of(data.pretrain, epochs=3, save_ckpt_freq=1)
    refused = umt(*words, "--mask_ratio", "0.6", cwd=tmp_path, code=2).stderr
    assert "out/checkpoint-latest.pth is of another recipe (--mask_ratio 0.8 -> 0.6)" in refused
    assert "Traceback" not in refused
    assert "--resume out/checkpoint-latest.pth to go on from it all the same" in refused
    assert "stands after 3 epochs, but --epochs is 2" in umt(*words, "--epochs", "2", cwd=tmp_path, code=2).stderr
    assert (tmp_path / "out" / "log.txt").read_bytes() == log_before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_signals_stop_a_finetuning_anywhere_without_a_trace(
    workers: int, data: Data, umt: Command, tmp_path: Path
) -> None:
    """As a scheduler does: every process of the job gets the signal, those that load data too."""
    words = words_of(data.finetune, num_workers=workers)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    umt(*words, cwd=tmp_path / "whole")
    moments = [
        ("SIGTERM", said("running on")),  # before the first step
        ("SIGUSR1", said("epoch 1/2 step 2/6")),
        ("SIGUSR2", said("epoch 1/2 step 6/6")),  # in the validation or before it
        ("SIGTERM", said("epoch 2/2 step 3/6")),
        ("SIGTERM", said("testing ")),
    ]
    for name, moment in moments:
        console = signal_when(moment, signal.Signals[name], words, tmp_path / "cut")
        assert f"{name} was received" in console, console
        assert "The same command goes on from here." in console
        assert "Traceback" not in console
    umt(*words, cwd=tmp_path / "cut")
    assert_same_run(tmp_path / "whole" / "out", tmp_path / "cut" / "out")


def signal_when(moment: Moment, number: signal.Signals, words: Sequence[str], folder: Path) -> str:
    """Runs `umt words` in `folder` until the moment, then signals its whole group; what it said until it ended."""
    process, console = started(words, folder)
    while process.poll() is None and not moment(folder / "out", console.read_text()):
        time.sleep(0.001)
    os.killpg(process.pid, number)
    assert process.wait(timeout=100) == EXIT_PREEMPTED, console.read_text()
    return console.read_text()
