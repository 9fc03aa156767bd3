"""The list that `umt verify` tests: its own folder, a copy, or a sample."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from umt.data.lists.lines import Form
from umt.tools.verify.tested_list import folder_of


def test_a_list_of_any_name_becomes_the_test_list_with_its_labels(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("a.mp4,0\nb.mp4,1\n")
    (tmp_path / "labels.txt").write_text("x\ny\n")
    folder, videos = folder_of(str(tmp_path / "val.csv"), tmp_path / "out", Form(","), None)
    assert Path(folder, "test.csv").read_text() == "a.mp4,0\nb.mp4,1\n"
    assert Path(folder, "labels.txt").read_text() == "x\ny\n"
    assert videos is None


def test_a_folder_and_its_test_list_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("a.mp4,0\n")
    for given in (tmp_path, tmp_path / "test.csv"):
        assert folder_of(str(given), tmp_path / "out", Form(","), None) == (str(tmp_path), None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_a_sample_is_drawn_by_chance_the_same_each_time(tmp_path: Path, header: str) -> None:
    lines = [f"v{i}.mp4,{i % 8}" for i in range(400)]
    (tmp_path / "test.csv").write_text(header + "\n".join(lines) + "\n")
    drawn = set()
    for out in ("a", "b"):
        folder, videos = folder_of(str(tmp_path), tmp_path / out, Form(","), 100)
        drawn.add(Path(folder, "test.csv").read_text())
    (text,) = drawn
    chosen = text.removeprefix(header).splitlines()
    assert (videos, len(set(chosen)), set(chosen) <= set(lines)) == (400, 100, True)
    assert min(Counter(line[-1] for line in chosen).values()) > 4  # of each of 8 classes


def test_a_sample_of_more_than_there_is_is_the_list(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("a.mp4,0\n")
    folder, videos = folder_of(str(tmp_path), tmp_path / "out", Form(","), 10)
    assert (Path(folder, "test.csv").read_text(), videos) == ("a.mp4,0\n", 1)


def test_processes_that_copy_the_same_list_at_once_never_see_a_part_of_it(tmp_path: Path) -> None:
    text = "".join(f"v{i}.mp4,{i % 8}\n" for i in range(20_000))
    (tmp_path / "val.csv").write_text(text)
    (tmp_path / "labels.txt").write_text("x\n")
    script = """
import sys
from pathlib import Path
from umt.data.lists.lines import Form
from umt.tools.verify.tested_list import folder_of
for _ in range(100):
    folder, _ = folder_of(sys.argv[1], Path(sys.argv[2]), Form(","))
    assert Path(folder, "test.csv").read_text() == Path(sys.argv[1]).read_text()
    assert Path(folder, "labels.txt").read_text() == "x\\n"
"""
    words = [sys.executable, "-c", script, str(tmp_path / "val.csv"), str(tmp_path / "out")]
    crew = [subprocess.Popen(words) for _ in range(2)]
    assert [process.wait() for process in crew] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "out" / "list").iterdir()) == ["labels.txt", "test.csv"]
