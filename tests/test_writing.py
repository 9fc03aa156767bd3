"""Files that are there whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from umt.errors import OutputError
from umt.writing import output_errors, whole


def test_a_file_appears_when_its_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "made" / "file"
    with whole(target) as place:
        place.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def fail(target: Path, begun: bool) -> None:
    with whole(target) as place:
        if begun:
            place.write_text("half")
        raise ZeroDivisionError


@pytest.mark.parametrize("begun", [True, False])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(begun: bool, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        fail(target, begun)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "file"
    code = "import os, sys, pathlib, umt.writing as w\nwith w.whole(pathlib.Path(sys.argv[1])) as p:\n p.write_text('half'); os._exit(9)"  # noqa: E501
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert [path.name for path in tmp_path.iterdir()] == [".file.part"]
    with whole(target) as place:
        place.write_text("new")
    assert list(tmp_path.iterdir()) == [target]


def test_what_cannot_be_written_is_a_sentence_with_its_remedy(tmp_path: Path) -> None:
    sentence = r"^--out \(x\) cannot be written: No such file or directory\. Give another place\.$"
    with pytest.raises(OutputError, match=sentence), output_errors("--out (x)", "Give another place."):
        (tmp_path / "gone" / "x").write_text("")
