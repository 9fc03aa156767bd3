"""What `umt data prepare` writes is read back as it was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umt.data.lists.reading import read_list
from umt.errors import OutputError
from umt.tools.data.prepare.match import Matched, Row
from umt.tools.data.prepare.output import files_of, list_text, write

# What disk.py lets through: file names that end in a video's ending, and no line ends, nor a space at the start.
NAMES = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
PATHS = st.tuples(NAMES, NAMES).map(lambda parts: f"{parts[0]}/{parts[1]}.mp4").filter(lambda p: p == p.strip())


@given(rows=st.lists(st.tuples(PATHS, st.integers(0, 709)), min_size=1, max_size=8), separator=st.sampled_from(", "))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_path_comes_back_from_the_list(rows: list[tuple[str, int]], separator: str, tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_bytes(list_text([Row(path, label, -1, 1) for path, label in rows], separator))
    read = read_list(file, separator=separator)
    assert [(read.path(i), int(read.labels[i])) for i in range(len(read))] == rows


def test_a_split_without_videos_has_no_list_and_an_old_one_goes(tmp_path: Path) -> None:
    full = {split: Matched([Row("a.mp4", 0, -1, 1)], 1) for split in ("train", "val", "test")}
    write(tmp_path, files_of(["a"], full, ",", {}))
    write(tmp_path, files_of(["a"], {**full, "test": Matched([], 1, [("b.mp4", "no such file")])}, ",", {}))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "labels.txt", "manifest.json", "missing.txt", "train.csv", "val.csv",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"--out \(.*out\) cannot be written"):
        write(tmp_path / "out", {"train.csv": b""})
