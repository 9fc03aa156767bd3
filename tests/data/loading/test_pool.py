"""Loader processes: a reader that hangs or crashes costs neither the run nor an item, and is named."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.data.loading.test_loaders import assert_same, training, two_epochs, views_of
from tests.videos import render
from umt.data.loading.loaders import Workers
from umt.data.loading.pool import Pool
from umt.data.loading.worker import ORPHAN
from umt.data.video import guard
from umt.errors import UserError, VideoError

TIMEOUT = 1.0


def hanging(path: Path) -> Path:
    """A video in which FFmpeg looks for the next cluster through 4 TiB of zeros: what a failed copy leaves."""
    render(path.with_suffix(".mkv"), frames=20)
    os.truncate(path.with_suffix(".mkv"), 1 << 42)
    return path.with_suffix(".mkv").rename(path)


@pytest.fixture
def spoilt(mp4s: Path, tmp_path: Path) -> Path:
    """The data set of `mp4s`, of which reading v2.mp4 never ends."""
    for file in mp4s.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "v2.mp4").unlink()
    hanging(tmp_path / "v2.mp4")
    return tmp_path


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("spawn", "forkserver"))]
)
def test_a_video_that_never_ends_is_replaced_as_one_that_is_empty(spoilt: Path, tmp_path: Path, method: str) -> None:
    cut = two_epochs(spoilt, Workers(2, timeout=TIMEOUT, start_method=method))
    (spoilt / "v2.mp4").unlink()
    (spoilt / "v2.mp4").write_bytes(b"")
    empty = two_epochs(spoilt, Workers(0))
    causes = {str(f["cause"]) for batch in cut for f in batch.failures}
    assert causes == {
        f"{spoilt}/v2.mp4: cannot be read as a video (reading it took longer than --decode_timeout 1 seconds)."
    }
    assert {f["row"] for batch in cut for f in batch.failures} == {2}
    for batch in (*cut, *empty):
        batch.failures = [{"row": f["row"]} for f in batch.failures]
    assert_same(cut, empty)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_test_video_that_never_ends_is_named_or_counted_as_wrong(spoilt: Path) -> None:
    with pytest.raises(
        VideoError, match=r"v2\.mp4: .*--decode_timeout 1 seconds.*row 2 of .*count_unreadable_as_wrong"
    ):
        list(views_of(spoilt, workers=Workers(2, timeout=TIMEOUT)))
    batches = list(views_of(spoilt, lenient=True, workers=Workers(2, timeout=TIMEOUT)))
    assert [f["row"] for batch in batches for f in batch.failures] == [2]
    assert sorted({int(row) for batch in batches for row in batch.row}) == [0, 1, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_it_is_waited_for_once_and_not_again_in_every_epoch(spoilt: Path) -> None:
    loader = training(spoilt, workers=Workers(1, timeout=TIMEOUT))
    list(loader.batches(0))
    began = time.monotonic()
    for epoch in range(1, 5):
        list(loader.batches(epoch))
    assert time.monotonic() - began < TIMEOUT
    loader.close()


@dataclass(frozen=True)
class Crashing:
    """Squares numbers; a number of `fatal` kills its process by a signal, as a fault in a decoder does."""

    fatal: tuple[int, ...] = ()
    number: int = signal.SIGSEGV
    once: str = ""  # a file that the first crash leaves, so that there is no second one
    reading: bool = True

    def __call__(self, work: int) -> int | VideoError:
        try:
            guard.begin(f"{work}.mp4")
        except VideoError as error:
            return error
        if not self.reading:
            guard.end()
        if work in self.fatal and not (self.once and os.path.exists(self.once)):
            if self.once:
                Path(self.once).touch()
            faulthandler.disable()  # pytest's own report of it
            os.kill(os.getpid(), self.number)
        return work * work


@pytest.fixture
def pools() -> Iterator[list[Pool]]:
    started: list[Pool] = []
    yield started
    for pool in started:
        pool.close()


def test_a_file_that_crashes_its_reader_is_refused_and_nothing_else_is_lost(pools: list[Pool]) -> None:
    pools.append(Pool(Crashing((3, 7)), workers=2))
    items = list(pools[0].run(range(10)))
    for number in (3, 7):
        assert str(items[number]) == (
            f"{number}.mp4: cannot be read as a video (each process that read it died: SIGSEGV)."
        )
    assert [n for n in items if isinstance(n, int)] == [n * n for n in range(10) if n not in (3, 7)]


def test_a_worker_that_dies_once_changes_nothing(pools: list[Pool], tmp_path: Path) -> None:
    pools.append(Pool(Crashing((3,), signal.SIGKILL, str(tmp_path / "died")), workers=2))
    assert list(pools[0].run(range(10))) == [n * n for n in range(10)]
    assert (tmp_path / "died").exists()


def test_workers_that_die_without_reading_end_the_run(pools: list[Pool]) -> None:
    pools.append(Pool(Crashing((0,), signal.SIGBUS, reading=False), workers=1))
    with pytest.raises(RuntimeError, match=r"processes that load data keep dying \(SIGBUS\)\. Is /dev/shm full\?"):
        list(pools[0].run(range(3)))


def _fails(work: int) -> int:
    raise KeyError(f"no {work}")


def test_a_mistake_in_a_worker_arrives_with_its_traceback(pools: list[Pool]) -> None:
    pools.append(Pool(_fails, workers=1))
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*in _fails.*KeyError: 'no 0'"):
        next(pools[0].run([0]))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_stay_while_nobody_asks_for_anything(pools: list[Pool], method: str) -> None:
    pools.append(Pool(Crashing(), workers=2, start_method=method))
    before = list(pools[0].run(range(3)))
    workers = [worker.process.pid for worker in pools[0]._crew._workers]
    time.sleep(ORPHAN + 2)
    assert list(pools[0].run(range(3))) == before
    assert [worker.process.pid for worker in pools[0]._crew._workers] == workers


@dataclass(frozen=True)
class Counting:
    """Leaves a file for each item that it makes; item 0 takes as long as there is no file "go"."""

    folder: Path

    def __call__(self, work: int) -> np.ndarray:
        (self.folder / str(work)).touch()
        while work == 0 and not (self.folder / "go").exists():
            time.sleep(0.01)
        return np.full(3, work)


def test_items_come_as_they_are_finished_each_with_its_place(pools: list[Pool], tmp_path: Path) -> None:
    pools.append(Pool(Counting(tmp_path), workers=2, prefetch=1))
    items = pools[0].finished(range(10))
    found = [next(items) for _ in range(9)]
    assert sorted(number for number, _ in found) == list(range(1, 10))
    assert all(item[0] == number for number, item in found)
    (tmp_path / "go").touch()
    assert [number for number, _ in items] == [0]


@dataclass(frozen=True)
class Spoiling:
    """Squares numbers, but for 1, which kills its process, 2, which never ends, and 3, which raises."""

    def __call__(self, work: int) -> int:
        faulthandler.disable()
        if work == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        while work == 2:
            time.sleep(0.01)
        if work == 3:
            raise KeyError("three")
        return work * work


def _named(work: int, how: str) -> str:
    return f"{work}: {how}"


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(name, marks=pytest.mark.slow) for name in ("spawn", "forkserver"))]
)
def test_where_an_item_is_a_file_a_worker_that_is_lost_costs_that_item_alone(pools: list[Pool], method: str) -> None:
    pools.append(Pool(Spoiling(), workers=2, timeout=TIMEOUT, lost=_named, start_method=method))
    found = dict(pools[0].finished(range(12)))
    assert {number: found.pop(number) for number in (1, 2, 3)} == {1: "1: SIGSEGV", 2: "2: ", 3: "3: KeyError: 'three'"}
    assert found == {number: number * number for number in range(12) if number not in (1, 2, 3)}
    assert dict(pools[0].finished(range(4, 6))) == {0: 16, 1: 25}


def test_what_is_being_made_when_the_pool_closes_counts_as_lost(tmp_path: Path) -> None:
    lost: list[int] = []
    pool = Pool(Counting(tmp_path), workers=1, lost=lambda work, how: lost.append(work))
    assert next(pool.finished([1, 0]))[1][0] == 1
    while not (tmp_path / "0").exists():
        time.sleep(0.01)
    pool.close()
    assert lost == [0]


def _cannot_start() -> None:
    raise ImportError("libavcodec.so.99: cannot open shared object file")


def test_a_worker_that_cannot_start_says_why(pools: list[Pool]) -> None:
    pools.append(Pool(Crashing(), workers=1, start=_cannot_start))
    with pytest.raises(UserError, match=r"A worker process cannot start: ImportError: libavcodec\.so\.99: cannot"):
        next(pools[0].run([0]))


def test_a_later_plan_drops_what_is_left_of_an_earlier_one(pools: list[Pool]) -> None:
    pools.append(Pool(Crashing(), workers=2))
    for begin in range(0, 50, 10):
        assert next(pools[0].run(range(begin, begin + 10))) == begin * begin
    assert list(pools[0].run([1, 2, 3])) == [1, 4, 9]
    assert list(pools[0].run([])) == []


def test_workers_run_ahead_no_further_than_the_prefetch(pools: list[Pool], tmp_path: Path) -> None:
    pools.append(Pool(Counting(tmp_path), workers=2, prefetch=3))
    items = pools[0].run(range(100))
    time.sleep(0.5)
    assert not list(tmp_path.iterdir())  # nothing begins before somebody asks
    timer = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(1); open({str(tmp_path / 'go')!r}, 'w')"])
    next(items)
    assert {file.name for file in tmp_path.iterdir()} - {"go"} <= {str(n) for n in range(7)}
    timer.wait()
    assert [item[0] for item in items] == list(range(1, 100))


SCRIPT = """
import os, sys, time
from pathlib import Path
from tests.data.loading.test_loaders import training
from umt.data.loading.loaders import Workers
folder, timeout = Path(sys.argv[1]), float(sys.argv[2])
loader = training(folder, workers=Workers(2, timeout=timeout))
for epoch in range({epochs}):
    for batch in loader.batches(epoch):
        print(batch.row.tolist(), batch.failures, flush=True)
        time.sleep({pause})
"""


def script(folder: Path, timeout: float, *, epochs: int = 1, pause: float = 0.0) -> subprocess.Popen[str]:
    code = textwrap.dedent(SCRIPT).format(epochs=epochs, pause=pause)
    words = [sys.executable, "-c", code, str(folder), str(timeout)]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3], start_new_session=True
    )


def members(group: int) -> list[int]:
    """Processes of a session that are not zombies."""
    numbers = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group and fields[0] != "Z":
            numbers.append(int(stat.parent.name))
    return numbers


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_run_leaves_no_process_behind_even_if_a_reader_hangs(spoilt: Path) -> None:
    run = script(spoilt, 0)
    time.sleep(8)
    assert len(members(run.pid)) == 3
    run.kill()
    run.wait()
    end = time.monotonic() + 15
    while members(run.pid) and time.monotonic() < end:
        time.sleep(0.2)
    assert not members(run.pid)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_job_that_was_suspended_loses_no_video(mp4s: Path) -> None:
    run = script(mp4s, 1, epochs=30, pause=0.05)
    assert run.stdout is not None
    run.stdout.readline()
    for _ in range(3):
        os.killpg(run.pid, signal.SIGSTOP)
        time.sleep(3)
        os.killpg(run.pid, signal.SIGCONT)
        time.sleep(0.4)
    lines = run.communicate(timeout=60)[0].splitlines()
    assert run.returncode == 0
    assert len(lines) == 30 * 3 - 1
    assert all(line.endswith(" []") for line in lines)


LEAVING = """
import sys
from pathlib import Path
from tests.data.loading.test_loaders import training
from umt.data.loading.loaders import Workers
loader = training(Path(sys.argv[1]), workers=Workers(2))
epoch = next(epoch for epoch in range(99) if 2 in loader.order(epoch)[2:4])
print(next(loader.batches(epoch)).failures)
"""


@pytest.mark.slow
def test_a_program_ends_although_a_reader_hangs(spoilt: Path) -> None:
    words = [sys.executable, "-c", LEAVING, str(spoilt)]
    done = subprocess.run(
        words, cwd=Path(__file__).parents[3], check=True, timeout=60, capture_output=True, text=True
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n", "")
