"""Several readers of one file, in one process, in threads, and in processes that were forked or spawned; long runs."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.data.reading import read, read_in_child
from tests.videos import cut, played, render
from umt.data.video.reader import ORDER, available, open_video

WORKING = [
    pytest.param(n, marks=[] if available(n) else pytest.mark.skip(reason=f"{n} does not work on this machine"))
    for n in ORDER
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A plain file, and one that only PyAV reads right."""
    folder = tmp_path_factory.mktemp("videos")
    plain = render(folder / "a.mp4", frames=40)
    return [plain, cut(render(folder / "open.mp4", frames=40, open_gop=True), folder / "cut.mp4", start=7)]


@pytest.mark.parametrize("decoder", WORKING)
def test_two_open_readers_of_one_file_do_not_disturb_each_other(videos: list[Path], decoder: str) -> None:
    for path in videos:
        truth = played(path)
        with open_video(path, decoder) as first, open_video(path, decoder) as second:
            for number in range(8):
                np.testing.assert_array_equal(first.frames([number, 20]), truth[[number, 20]])
                np.testing.assert_array_equal(second.frames([30 - number]), truth[[30 - number]])


@pytest.mark.parametrize("decoder", WORKING)
def test_threads_read_one_file_at_once(videos: list[Path], decoder: str) -> None:
    for path in videos:
        truth = played(path)
        with ThreadPoolExecutor(4) as pool:
            for indices, frames in pool.map(lambda seed: read(path, decoder, seed), range(16)):  # noqa: B023
                np.testing.assert_array_equal(frames, truth[indices])


@pytest.mark.parametrize(
    ("method", "decoders"),
    [("fork", ORDER), ("spawn", ["pyav"]), pytest.param("spawn", ORDER, marks=pytest.mark.slow)],
)
def test_processes_read_the_same_frames_however_they_are_started(
    videos: list[Path], method: str, decoders: list[str]
) -> None:
    decoders = [name for name in decoders if available(name)]
    truths = {path: played(path) for path in videos}
    for decoder in decoders:  # the parent has decoded before, so that a fork copies whatever that leaves behind
        read(videos[0], decoder, 0)
    work = [(str(path), decoder, seed) for path in videos for decoder in decoders for seed in range(2)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map_async(read_in_child, work).get(timeout=100)
    for (path, _, _), (indices, frames) in zip(work, results, strict=True):
        np.testing.assert_array_equal(frames, truths[Path(path)][indices])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_reader_that_was_open_before_a_fork_works_on_both_sides(videos: list[Path]) -> None:
    truth = played(videos[0])
    with open_video(videos[0], "pyav") as video:
        video.frames([3])
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        child = context.Process(target=lambda: there.send([video.frames([n]) for n in range(30, 40)]))
        child.start()
        np.testing.assert_array_equal(np.concatenate([video.frames([n]) for n in range(30)]), truth[:30])
        assert here.poll(60)
        np.testing.assert_array_equal(np.concatenate(here.recv()), truth[30:])
        child.join()


def test_closed_readers_leave_no_open_file_and_no_thread(videos: list[Path]) -> None:
    def held() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    if not Path("/proc/self/fd").exists():
        pytest.skip("looks into /proc")
    for path in videos:
        read(path, "pyav", 0)
    before = held()
    for seed in range(20):
        for path in videos:
            read(path, "pyav", seed)
    assert held() == before


MEMORY = """
import os, sys
from umt.data.video.reader import open_video
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
def read(times):
    for number in range(times):
        with open_video(sys.argv[2 + number % 2], sys.argv[1]) as video:
            video.frames([number % 30, 12])
read(150)
before = resident()
read(int(sys.argv[4]))
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks into /proc")
@pytest.mark.parametrize(("decoder", "reads"), [("pyav", 300), pytest.param("pyav", 8000, marks=pytest.mark.slow)])
def test_the_resident_size_of_a_worker_stays_flat(videos: list[Path], decoder: str, reads: int) -> None:
    command = [sys.executable, "-c", MEMORY, decoder, *map(str, videos), str(reads)]
    grown = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 4  # MiB: one more packet kept of each file would be more after 300 reads
