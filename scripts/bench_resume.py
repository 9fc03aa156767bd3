"""Kills real runs with SIGKILL at random moments, starts them again, and compares their ends with runs left alone.

    python scripts/bench_resume.py [--kills 5] [--tasks pretrain finetune] [--processes 1 2] [--workers 0 2] [--seed 0]

From a checkout. Tiny models, real MP4 files, every combination of the above with as many kills each; with two processes
a kill hits both or one of them, drawn by chance. A killed run is started again and killed again until it ends; then
every checkpoint (weights, their average, optimiser, best accuracy, progress), the log but for the clock, and the scores
of the final test are compared bit for bit. The moments are drawn uniformly over the seconds of the run; every third
waits for the next write of a checkpoint and strikes in it. Prints a Markdown table; exit code 1 if anything differs.

The processes are forks of this one, which has imported torch and started nothing: as clean as new ones, without the
seconds of the import.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import itertools
import os
import random
import re
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.end_to_end.conftest import Data, make_data, with_flags
from tests.same_run import run_differences
from umt.__main__ import main as umt

WRITING = ".checkpoint-new.pth.writing"
MOMENTS = ("before the first checkpoint", "inside an epoch", "between epochs", "in a save", "in the test")


@dataclass
class Trials:
    """One row of the table."""

    task: str
    processes: int
    workers: int
    background: bool
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    runs: int = 0
    differences: list[str] = field(default_factory=list)

    def row(self) -> str:
        shown = [self.task, self.processes, self.workers, "in the background" if self.background else "between steps"]
        shown += [self.kills[moment] for moment in MOMENTS]
        shown += [self.runs, len(self.differences)]
        return "| " + " | ".join(map(str, shown)) + " |"


def start(words: list[str], folder: Path, processes: int) -> list[int]:
    """`umt words` in `folder` as so many ranks -> their process numbers. They write to folder/console.txt."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    console = os.open(folder / "console.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            os.setsid()
            os.chdir(folder)
            os.dup2(console, 1)
            os.dup2(console, 2)
            if processes > 1:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(processes)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            sys.argv = ["umt", *words]
            code = 1
            try:
                code = umt()
            finally:
                os._exit(code)
        children.append(child)
    os.close(console)
    return children


def finish(children: list[int], seconds: float) -> list[int | None]:
    """Waits, at most so long, until all have ended -> exit codes, None for one that had to be killed."""
    codes: dict[int, int | None] = {}
    end = time.monotonic() + seconds
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    codes[child] = None
                if child in codes:  # its loader processes end by themselves, but later
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)
    return [codes[child] for child in children]


def moment_of(out: Path, said: str) -> str:
    """Where a run was when it died."""
    if (out / WRITING).exists():
        return "in a save"
    if not (out / "checkpoint-latest.pth").exists():
        return "before the first checkpoint"
    if "testing " in said:
        return "in the test"
    last = re.findall(r"step (\d+)/(\d+)|(done in)", said)
    return "between epochs" if last and (last[-1][2] or last[-1][0] == last[-1][1]) else "inside an epoch"


def kill_at_random(
    words: list[str], folder: Path, processes: int, rng: random.Random, seconds: float, in_a_save: bool
) -> str | None:
    """Starts the run and kills it at a moment within `seconds` -> which moment; None if the run was over before."""
    out = folder / "out"
    (folder / "console.txt").unlink(missing_ok=True)
    began, delay = time.monotonic(), rng.uniform(0, 0.8 * seconds)
    children = start(words, folder, processes)
    struck = False
    victims = children if rng.random() < 0.7 else [rng.choice(children)]
    while not struck:
        time.sleep(0.0005)
        if any(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) for child in children):
            break
        struck = time.monotonic() - began > delay and (not in_a_save or (out / WRITING).exists())
    if struck:
        for child in victims:
            os.kill(child, signal.SIGKILL)
    codes = finish(children, 120)
    if None in codes:
        raise RuntimeError(f"a process of {folder} did not end:\n{(folder / 'console.txt').read_text()[-3000:]}")
    if not struck or -signal.SIGKILL not in codes:
        if any(code != 0 for code in codes):
            raise RuntimeError(f"exit codes {codes}:\n{(folder / 'console.txt').read_text()[-3000:]}")
        return None
    return moment_of(out, (folder / "console.txt").read_text())


def run_trials(trials: Trials, flags: list[str], kills: int, folder: Path, rng: random.Random) -> None:
    words = with_flags(
        flags, output_dir="out", log_every=1, num_workers=trials.workers, save_every_steps=rng.choice((1, 3))
    )
    words += ["--save_in_background"] * trials.background
    whole = folder / "whole"
    whole.mkdir()
    began = time.monotonic()
    codes = finish(start(words, whole, trials.processes), 600)
    if codes != [0] * trials.processes:
        raise RuntimeError(f"the run left alone failed:\n{(whole / 'console.txt').read_text()[-3000:]}")
    seconds = time.monotonic() - began
    while sum(trials.kills.values()) < kills:
        cut = folder / f"cut{trials.runs}"
        cut.mkdir()
        over = False
        while not over and sum(trials.kills.values()) < kills:
            count = sum(trials.kills.values())
            moment = kill_at_random(words, cut, trials.processes, rng, seconds, in_a_save=count % 3 == 2)
            over = moment is None
            if moment is not None:
                trials.kills[moment] += 1
        if not over and finish(start(words, cut, trials.processes), 600) != [0] * trials.processes:
            raise RuntimeError(f"the last start failed:\n{(cut / 'console.txt').read_text()[-3000:]}")
        trials.runs += 1
        trials.differences += run_differences(whole / "out", cut / "out")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="of each combination")
    parser.add_argument("--tasks", nargs="+", default=["pretrain", "finetune"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GPUS"):
        os.environ.pop(name, None)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("umt.run.execute", "timm", "torch._inductor.config", "tensorboardX"):
        importlib.import_module(name)
    table: list[Trials] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        data = fork_data(Path(temporary))
        rng = random.Random(arguments.seed)
        combinations = itertools.product(arguments.tasks, arguments.processes, arguments.workers)
        for number, (task, processes, workers) in enumerate(combinations):
            trials = Trials(task, processes, workers, background=bool(number % 2))
            folder = Path(temporary) / f"{number}"
            folder.mkdir()
            run_trials(trials, data.pretrain if task == "pretrain" else data.finetune, arguments.kills, folder, rng)
            table.append(trials)
            sys.stderr.write(f"{trials.row()}  {' '.join(trials.differences[:5])}\n")
    print("| task | processes | workers | saves |", " | ".join(f"killed {moment}" for moment in MOMENTS), end="")
    print(" | runs compared | differences |\n|" + " --- |" * (6 + len(MOMENTS)))
    for trials in table:
        print(trials.row())
    total = sum(sum(trials.kills.values()) for trials in table)
    print(f"\n{total} kills in {time.monotonic() - began:.0f} s, seed {arguments.seed}.")
    return int(any(trials.differences for trials in table))


def fork_data(folder: Path) -> Data:
    """The videos, made in a process of its own: what encodes them starts threads, and those who are forked must not."""
    child = os.fork()
    if child == 0:
        make_data(folder)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("the videos could not be rendered")
    return Data(folder)


if __name__ == "__main__":
    sys.exit(main())
