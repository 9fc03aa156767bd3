"""The cache: whole objects or none, never more than the limit, many processes at once; a full disk is no failure."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from umt.data.storage import cache as caching
from umt.data.storage.cache import Cache

SIZE = 1000


@pytest.fixture(autouse=True)
def _fresh() -> None:
    caching._broken.clear()


def content(name: str) -> bytes:
    return np.random.default_rng(int(name)).bytes(SIZE)


def writer(name: str, log: Path | None = None) -> Callable[[str], None]:
    def fetch(path: str) -> None:
        if log is not None:
            with log.open("ab") as file:
                file.write(f"{name}\n".encode())
        with open(path, "r+b") as file:
            file.write(content(name))

    return fetch


def get(cache: Cache, name: str, log: Path | None = None) -> bytes | None:
    with cache.get(name, SIZE, writer(name, log)) as path:
        return None if path is None else Path(path).read_bytes()


def stored(cache: Cache) -> int:
    with cache._lock("count"):  # nobody evicts while it is added up
        return sum(p.stat().st_size for p in Path(cache.folder, "objects").rglob("*") if p.is_file())


def made(folder: Path, limit: int = 100 * SIZE) -> Cache:
    cache = Cache(str(folder / "cache"), limit)
    cache.prepare()
    return cache


def test_an_object_is_fetched_once_and_kept_for_the_next_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert [get(made(tmp_path), "1", log) for _ in range(3)] == [content("1")] * 3
    assert log.read_text() == "1\n"


def test_what_was_used_longest_ago_goes_first_and_the_limit_holds(tmp_path: Path) -> None:
    cache, log = made(tmp_path, 10 * SIZE), tmp_path / "log"
    for number in range(10):
        get(cache, str(number))
        time.sleep(0.002)
    get(cache, "0")  # used again
    time.sleep(0.002)
    get(cache, "10")
    assert stored(cache) <= 10 * SIZE
    get(cache, "0", log)
    get(cache, "9", log)
    assert not log.exists()
    get(cache, "1", log)
    assert log.read_text() == "1\n"


def test_an_object_larger_than_the_limit_is_not_stored(tmp_path: Path) -> None:
    cache = made(tmp_path, SIZE - 1)
    assert get(cache, "1") is None
    assert stored(cache) == 0


def test_an_object_that_is_evicted_while_it_is_read_stays_readable(tmp_path: Path) -> None:
    cache = made(tmp_path, 2 * SIZE)
    with cache.get("1", SIZE, writer("1")) as path:
        assert path is not None
        for number in range(2, 6):
            get(cache, str(number))
        assert stored(cache) <= 2 * SIZE
        assert Path(path).read_bytes() == content("1")


def test_a_fetch_that_fails_leaves_nothing_and_its_error_is_the_callers(tmp_path: Path) -> None:
    cache = made(tmp_path, 2 * SIZE)

    def fails(path: str) -> None:
        Path(path).write_bytes(b"half")
        raise LookupError("the store is gone")

    for _ in range(5):
        with pytest.raises(LookupError, match="the store is gone"), cache.get("1", SIZE, fails):
            pass
    assert not [p for p in Path(cache.folder).rglob("*") if p.parent.name == "writing"]
    assert get(cache, "1") == content("1")


def test_half_an_object_is_fetched_again(tmp_path: Path) -> None:
    cache = made(tmp_path)
    get(cache, "1")
    (place,) = [p for p in Path(cache.folder, "objects").rglob("*") if p.is_file()]
    place.write_bytes(b"half")
    assert get(cache, "1") == content("1")


def test_a_smaller_limit_is_kept_from_the_start_of_the_next_run(tmp_path: Path) -> None:
    cache = made(tmp_path)
    for number in range(10):
        get(cache, str(number))
    assert stored(cache) == 10 * SIZE
    assert stored(made(tmp_path, 4 * SIZE)) <= 4 * SIZE


def _use(folder: Path, seed: int, limit: int, wrong: multiprocessing.SimpleQueue[str]) -> None:
    cache = Cache(str(folder / "cache"), limit)
    for number in np.random.default_rng(seed).integers(0, 40, size=150):
        if get(cache, str(number), folder / "log") != content(str(number)):
            wrong.put(f"{number} was wrong")
        if stored(cache) > limit:
            wrong.put(f"{stored(cache)} bytes are stored")


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_many_processes_share_a_cache_within_its_limit(tmp_path: Path, method: str) -> None:
    limit = 20 * SIZE
    made(tmp_path, limit)
    context = multiprocessing.get_context(method)
    wrong = context.SimpleQueue()
    processes = [context.Process(target=_use, args=(tmp_path, seed, limit, wrong)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    assert wrong.empty(), wrong.get()


def test_what_is_being_written_counts_and_is_not_waited_for(tmp_path: Path) -> None:
    cache = made(tmp_path, 2 * SIZE)
    get(cache, "0")
    inside: list[bytes | None] = []

    def while_written(path: str) -> None:
        second: list[bytes | None] = []

        def deeper(path: str) -> None:
            second.append(get(cache, "3"))
            writer("2")(path)

        with cache.get("2", SIZE, deeper) as place:
            assert place is not None
        inside.extend(second)
        writer("1")(path)

    with cache.get("1", SIZE, while_written) as place:
        assert place is not None
    assert inside == [None]  # both places were taken by what was being written
    assert stored(cache) == 2 * SIZE
    assert get(cache, "3") == content("3")
    assert stored(cache) <= 2 * SIZE


def test_processes_that_want_the_same_object_fetch_it_once(tmp_path: Path) -> None:
    cache = made(tmp_path)

    def want() -> None:
        def slow(path: str) -> None:
            time.sleep(0.3)
            writer("1", tmp_path / "log")(path)

        with cache.get("1", SIZE, slow) as path:
            assert path is not None
            assert Path(path).read_bytes() == content("1")

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=want) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == "1\n"


def test_a_process_killed_while_it_fetches_harms_nobody(tmp_path: Path) -> None:
    cache = made(tmp_path, 3 * SIZE)

    def dies(path: str) -> None:
        Path(path).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    def want() -> None:
        with cache.get("1", SIZE, dies):
            pass

    process = multiprocessing.get_context("fork").Process(target=want)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert get(cache, "1") == content("1")
    (left,) = Path(cache.folder, "writing").iterdir()
    os.utime(left, (0, 0))  # an hour later
    cache.prepare()
    assert not left.exists()


def test_a_disk_that_takes_no_more_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    """The limit of a file's size stands for a full disk: the kernel refuses the write in the same place."""
    code = f"""
import multiprocessing, resource
from tests.data.storage.test_cache import Cache, get
cache = Cache({str(tmp_path / "cache")!r}, 10**9)
cache.prepare()
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
def use(): assert [get(cache, str(i)) for i in range(3)] == [None] * 3
workers = [multiprocessing.get_context("fork").Process(target=use) for _ in range(3)]
[w.start() for w in workers]; [w.join() for w in workers]
assert [w.exitcode for w in workers] == [0, 0, 0]
use()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert (
        "cannot be written: File too large. The run goes on and reads from the remote store each time." in done.stderr
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting wants root")
def test_a_full_disk_ends_the_storing_but_not_the_reading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        cache = made(disk, 10**9)
        kept = get(cache, "1")
        (disk / "others").write_bytes(bytes(200 * 1024))
        with caplog.at_level(logging.WARNING):
            answers = [get(cache, str(number)) for number in range(2, 60)]
        assert kept == get(cache, "1") == content("1")
        assert answers[-1] is None
        assert [r.getMessage() for r in caplog.records if "cannot be written: No space left" in r.getMessage()]
        assert len(caplog.records) == 1
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_folder_that_cannot_be_made_is_no_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file")
    cache = made(tmp_path)
    assert [get(cache, "1"), get(cache, "1")] == [None, None]
    assert len(caplog.records) == 1
