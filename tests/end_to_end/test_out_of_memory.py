"""Memory that really ends: the sentence, and that what it advises runs where the run did not.

The limit is the operating system's on a process's address space (`ulimit -v`), put at what the same run takes with a
small batch and some more, since importing torch alone takes gigabytes of addresses.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Data, environment, with_flags

GIB = 2**30
_RUN = """
import sys
from umt.__main__ import main
code = main()
print("VmPeak", next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmPeak")))
sys.exit(code)
"""
# What is freed goes back at once, and no thread has a heap of its own: the limit is on addresses, used or not.
STEADY = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")]


def finished(flags: Sequence[str], limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The run, ended; `limit`: the most bytes of addresses that it may have."""
    lower = None if limit is None else partial(resource.setrlimit, resource.RLIMIT_AS, (limit, limit))
    return subprocess.run(
        [sys.executable, "-c", _RUN, *flags],
        env=environment() | STEADY, preexec_fn=lower, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def addresses(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stderr
    return 1024 * int(re.search(r"VmPeak (\d+)", done.stdout).group(1))  # type: ignore[union-attr]


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a run that ended with code 2."""
    assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr}"
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("umt: ")]
    return sentence


def advised(sentence: str) -> dict[str, str]:
    """Flags -> verdict."""
    measure = r"[:;] (--[a-z_]+[^:;(]*?)(?: \(\+\d+ % FLOPs\))?: [\d.]+ GiB \((fits|may fit|too large)\)"
    return dict(re.findall(measure, sentence))


@pytest.fixture(scope="module")
def many(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The same videos, listed often enough for a large batch."""
    folder = tmp_path_factory.mktemp("many")
    for file in data.folder.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "train.csv").unlink()
    (folder / "train.csv").write_text((data.folder / "train.csv").read_text() * 10)
    return Data(folder)


def short(flags: Sequence[str], folder: Path, **values: object) -> list[str]:
    """One epoch in fp32 that writes to `folder`."""
    flags = with_flags(flags, epochs=1, warmup_epochs=0, precision="fp32", output_dir=folder, **values)
    return with_flags(flags, disable_eval_during_finetuning=None) if flags[0] == "finetune" else flags


@pytest.fixture(scope="module")
def limits(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """By task: what a run with a small batch takes, and some more."""
    folder = tmp_path_factory.mktemp("few")
    return {
        task: addresses(finished(short(flags, folder / task, batch_size=2))) + more
        for task, flags, more in (("pretrain", data.pretrain, 3 * GIB // 4), ("finetune", data.finetune, 6 * GIB // 5))
    }


@pytest.mark.parametrize(
    ("task", "batch", "helps"), [("pretrain", 240, "--batch_size"), ("finetune", 48, "--use_checkpoint")]
)
def test_what_is_said_to_fit_runs_where_the_run_did_not(
    many: Data, limits: dict[str, int], task: str, batch: int, helps: str, tmp_path: Path
) -> None:
    flags = short(getattr(many, task), tmp_path / "large", batch_size=batch)
    sentence = said(finished(flags, limits[task]))
    assert f"out of memory at --batch_size {batch} (" in sentence
    assert "8 processes with --enable_deepspeed --zero_stage 1: " in sentence
    fits = [f for f, verdict in advised(sentence).items() if f.startswith(helps) and verdict == "fits"]
    assert fits, sentence
    addresses(finished([*flags, *fits[0].split(), "--output_dir", str(tmp_path / "fits")], limits[task]))


def test_half_of_a_batch_that_is_said_to_be_too_large_is(many: Data, limits: dict[str, int], tmp_path: Path) -> None:
    flags = short(many.finetune, tmp_path / "large", batch_size=128)
    half = "--batch_size 64 --global_batch_size 128"
    verdicts = advised(said(finished(flags, limits["finetune"])))
    assert verdicts[half] == "too large"
    said(finished([*flags, *half.split(), "--output_dir", str(tmp_path / "half")], limits["finetune"]))


@pytest.fixture
def four_gib_left() -> Iterator[None]:
    """Another process takes what the GPU has free, but for 4 GiB."""
    code = """
        import sys, torch
        held = torch.empty(torch.cuda.mem_get_info()[0] - 4 * 2**30, dtype=torch.uint8, device="cuda")
        print("held", flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield
        other.communicate()


@pytest.mark.gpu
@pytest.mark.usefixtures("four_gib_left")
def test_what_is_said_to_fit_a_gpu_runs_there(many: Data, tmp_path: Path) -> None:
    flags = [*short(many.finetune, tmp_path / "large", batch_size=240), "--device", "cuda"]
    sentence = said(finished(flags))
    assert "out of memory at --batch_size 240 (" in sentence
    assert "CUDA out of memory" in sentence
    fits = [f for f, verdict in advised(sentence).items() if verdict == "fits"]
    assert fits, sentence
    for number, measure in enumerate(fits):
        again = finished([*flags, *measure.split(), "--output_dir", str(tmp_path / str(number))])
        assert again.returncode == 0, again.stderr
