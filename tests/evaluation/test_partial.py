"""What a running test has finished, row by row and of any length: through kills, damage, and other numbers of ranks."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.test_scores import empty, views
from umt.evaluation.partial import PartialWriter, partial_path, partial_ranks, read_partial
from umt.evaluation.results import Results, Summary
from umt.evaluation.scores import ViewScores
from umt.evaluation.view_results import ViewResults


class Texts(Results):
    """Results of any length: a text for each row."""

    best_metric = "length"

    def __init__(self) -> None:
        self.texts: dict[int, bytes] = {}

    def __len__(self) -> int:
        return 100

    def take(self, batch: object, output: object) -> Sequence[int]:
        raise NotImplementedError

    def count_as_wrong(self, row: int, cause: str) -> None:
        raise NotImplementedError

    def finished(self) -> list[int]:
        return list(self.texts)

    def missing(self) -> list[int]:
        return []

    def dump(self, row: int) -> bytes:
        return self.texts[row]

    def load(self, row: int, data: bytes) -> None:
        self.texts.setdefault(row, data)

    def fingerprint(self) -> str:
        return "texts"

    def summarise(self) -> Summary:
        raise NotImplementedError


def write_texts(folder: Path, texts: dict[int, bytes]) -> Path:
    results = Texts()
    results.texts = texts
    with PartialWriter(partial_path(folder, 0), results) as writer:
        for row in texts:
            writer.append(row, results.dump(row))
    return partial_path(folder, 0)


TEXTS = st.dictionaries(st.integers(0, 99), st.binary(max_size=60), max_size=5)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, cut=st.integers(0, 500))
def test_a_cut_at_any_byte_keeps_the_records_before_it(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[int, bytes], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("ragged")
    path = write_texts(folder, texts)
    whole = path.stat().st_size
    lengths = [20 + len(text) for text in texts.values()]  # row, length and checksum take 20 bytes
    start = whole - sum(lengths)
    os.truncate(path, min(cut, whole))
    results = Texts()
    good = read_partial(path, results)
    kept = sum(start + sum(lengths[: n + 1]) <= cut for n in range(len(lengths)))
    assert list(results.texts.items()) == list(texts.items())[:kept]
    assert good == (0 if cut < start else start + sum(lengths[:kept]))


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS.filter(len), place=st.integers(0, 500), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_a_wrong_result(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[int, bytes], place: int, bit: int
) -> None:
    path = write_texts(tmp_path_factory.mktemp("damaged"), texts)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    results = Texts()
    read_partial(path, results)
    assert results.texts.items() <= texts.items()


def write(folder: Path, scores: ViewScores, rows: list[int], good: int = 0) -> Path:
    path = partial_path(folder, 0)
    results = ViewResults(scores)
    with PartialWriter(path, results, good) as writer:
        for row in rows:
            scores.add_video(row, views(row))
            writer.append(row, results.dump(row))
    return path


def test_finished_videos_are_read_back_exactly(tmp_path: Path) -> None:
    path, scores = write(tmp_path, empty(), [10, 12]), empty()
    assert read_partial(path, ViewResults(scores)) == path.stat().st_size
    assert scores.finished() == [10, 12]
    assert (scores.logits[2] == views(12)).all()


def test_a_partial_file_cut_anywhere_gives_its_whole_records_only(tmp_path: Path) -> None:
    path = write(tmp_path, empty(), [10, 11])
    data = path.read_bytes()
    record = (len(data) - write(tmp_path / "empty", empty(), []).stat().st_size) // 2
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        scores = empty()
        read_partial(path, ViewResults(scores))
        assert len(scores.finished()) == max(0, (cut - (len(data) - 2 * record)) // record)


def test_a_damaged_record_is_computed_again(tmp_path: Path) -> None:
    path, scores = write(tmp_path, empty(), [10, 11]), empty()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    read_partial(path, ViewResults(scores))
    assert scores.finished() == [10]


def test_writing_goes_on_behind_the_last_whole_record(tmp_path: Path) -> None:
    path, scores = write(tmp_path, empty(), [10, 11]), empty()
    os.truncate(path, path.stat().st_size - 3)
    good = read_partial(path, ViewResults(scores))
    write(tmp_path, empty(), [12], good)
    again = empty()
    read_partial(path, ViewResults(again))
    assert again.finished() == [10, 12]


@pytest.mark.parametrize(
    "other", [{"checkpoint": "b"}, {"clips": 1}, {"paths": ["x", "y", "z"]}, {"labels": [1, 1, 1]}]
)
def test_a_partial_file_of_another_test_is_never_read(tmp_path: Path, other: dict[str, object]) -> None:
    scores = empty(**other)
    assert read_partial(write(tmp_path, empty(), [10, 11, 12]), ViewResults(scores)) == 0
    assert scores.finished() == []


def test_partial_files_are_found_whatever_the_number_of_ranks(tmp_path: Path) -> None:
    for rank in (0, 3, 11):
        partial_path(tmp_path, rank).touch()
    assert partial_ranks(tmp_path) == [0, 3, 11]


def test_a_full_disk_is_a_sentence_and_keeps_what_is_finished(tmp_path: Path) -> None:
    """The limit on file sizes stands for the disk: the kernel refuses the write in the middle of a record."""
    path = write(tmp_path, empty(), [10])
    limit = path.stat().st_size + 40
    code = f"""
import resource, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.evaluation.test_partial import write
from tests.evaluation.test_scores import empty
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write(Path({str(path.parent)!r}), empty(), [11], {path.stat().st_size})
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("OutputError")
    assert "the videos finished so far are kept" in run.stdout
    scores = empty()
    read_partial(path, ViewResults(scores))
    assert scores.finished() == [10]
