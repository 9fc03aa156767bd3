"""A list is opened once in a process, however often and in whatever form it is read, and what was read is shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.web import serving
from umt.data.lists.class_folders import read_folders
from umt.data.lists.reading import count_rows, read_list

# Prints how often each file or folder below FOLDER is opened while what follows runs.
COUNTING = """
import json, sys
from collections import Counter
from pathlib import Path
FOLDER, opened = sys.argv[1], Counter()
def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(FOLDER):
        opened[str(Path(str(arguments[0])).relative_to(FOLDER))] += 1
sys.addaudithook(watch)
{work}
print(json.dumps(opened))
"""


def opens(folder: Path, work: str) -> dict[str, int]:
    """What a process opens of `folder`, whose files were all written a while ago."""
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    code = COUNTING.format(work=work)
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def test_the_lists_of_a_finetuning_are_opened_once_each(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.csv").write_text("a.mp4,0\nb.mp4,1\n")
    (tmp_path / "labels.txt").write_text("run\njump\n")
    work = """
from umt.data.labels.label_order import of_list
from umt.data.lists.reading import count_rows, read_list
for number in range(3):
    for split in ("train", "val", "test"):
        path = f"{FOLDER}/{split}.csv"
        count_rows(path)
        videos = read_list(path, separator=",", num_classes=2, prefix="/videos" * number)
        of_list(FOLDER, data_set="UCF101", classes=2, videos=videos)
"""
    assert opens(tmp_path, work) == {"train.csv": 1, "val.csv": 1, "test.csv": 1, "labels.txt": 1}


@pytest.mark.parametrize("label", ["run", "run|jump"])
def test_the_users_own_lists_are_opened_once_each(tmp_path: Path, label: str) -> None:
    (tmp_path / "train.csv").write_text(f"a.mp4,{label}\nb.mp4,jump\n" * 6)
    (tmp_path / "val.csv").write_text("a b.mp4 , run\n")  # not plain: read line by line
    work = """
from umt.data.lists.own_folder import list_files, look
from umt.data.lists.reading import classes_of, read_named, words_form
seen = look(FOLDER)
for file in list_files(FOLDER):
    for number in range(2):
        form = words_form(seen.separator, multi_label=seen.multi_label)
        classes = classes_of(f"{FOLDER}/train.csv", form, multi_label=seen.multi_label)
        read_named(file, classes, form, multi_label=seen.multi_label)
"""
    assert opens(tmp_path, work) == {"train.csv": 1, "val.csv": 1}


def test_a_dry_run_and_its_checks_open_each_list_once(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("".join(f"{i}.mp4,{'run' if i % 2 else 'jump'}\n" for i in range(12)))
    work = """
import contextlib, io, runpy
sys.argv = ["umt", "finetune", "--dry_run", "--data_path", FOLDER]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    runpy.run_module("umt", run_name="__main__", alter_sys=True)
"""
    counts = opens(tmp_path, work)
    assert [counts[f"{split}.csv"] for split in ("train", "val", "test")] == [1, 1, 1]


def test_a_folder_per_class_is_looked_through_once(tmp_path: Path) -> None:
    for name in ("run", "jump"):
        (tmp_path / name).mkdir()
        for number in range(12):
            (tmp_path / name / f"{number}.mp4").touch()
    work = """
from umt.data.lists.class_folders import read_folders
for split in ("train", "val", "test", "train"):
    read_folders(FOLDER, split)
"""
    counts = opens(tmp_path, work)
    assert (counts["run"], counts["jump"]) == (1, 1)


def written(path: Path, text: str, age: float = 100) -> Path:
    path.write_text(text)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_a_list_that_changes_is_read_again(tmp_path: Path) -> None:
    first = read_list(written(tmp_path / "l.csv", "a.mp4 0\n"))
    again = read_list(written(tmp_path / "l.csv", "b.mp4 0\n", age=99))
    assert [first.path(0), again.path(0)] == ["a.mp4", "b.mp4"]


def test_a_list_written_twice_within_a_tick_of_the_clock_is_read_again(tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / "l.csv").write_text(f"{name}.mp4 0\n")
        assert read_list(tmp_path / "l.csv").path(0) == f"{name}.mp4"


def test_a_video_that_is_added_to_a_class_folder_is_seen(tmp_path: Path) -> None:
    for name in ("run", "jump"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "0.mp4").touch()
        os.utime(tmp_path / "train" / name, (1e9, 1e9))
    assert len(read_folders(tmp_path, "train")) == 2
    (tmp_path / "train" / "run" / "1.mp4").touch()
    assert len(read_folders(tmp_path, "train")) == 3


def test_two_references_to_one_list_share_its_memory(tmp_path: Path) -> None:
    file = written(tmp_path / "l.csv", "a.mp4 0\nb.mp4 1\n")
    (tmp_path / "link.csv").symlink_to(file)
    first, second = read_list(file, prefix="/one"), read_list(tmp_path / "link.csv", prefix="/other", num_classes=2)
    assert (first.file(1), second.file(1)) == ("/one/b.mp4", "/other/b.mp4")
    assert np.shares_memory(first.labels, second.labels)
    assert np.shares_memory(first.num_frames, second.num_frames)


def test_shared_labels_cannot_be_changed_by_one_of_the_lists(tmp_path: Path) -> None:
    videos = read_list(written(tmp_path / "l.csv", "a.mp4 0\n"))
    with pytest.raises(ValueError, match="read-only"):
        videos.labels[0] = 1


def test_a_list_by_url_is_fetched_once(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("a.mp4,0\nb.mp4,1\n")
    with serving(tmp_path) as (address, server):
        for _ in range(3):
            assert count_rows(f"{address}/l.csv") == len(read_list(f"{address}/l.csv", separator=",")) == 2
        assert server.asked == ["/l.csv"]
