"""The moving shapes: real files, reproducible, whose class needs the whole clip."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from umt.data.video.reader import open_video
from umt.randomness import generator
from umt.tools.quickstart import shapes, teacher

ROOT = Path(__file__).resolve().parents[3]


def height_of(move: str, row: int) -> np.ndarray:
    """Where the target of `move` is from frame to frame, y down; the other draws are those of `row` for every move."""
    things, _ = shapes.scene("star", move, generator(0, "test", row))
    return things[-1].centre[:, 1]


def test_a_video_is_a_function_of_seed_split_and_row(tmp_path: Path) -> None:
    counts = {"pretrain": 1, "train": 3, "val": 1, "test": 1}
    for name in ("one", "two"):
        shapes.write_data_set(tmp_path / name, counts=counts, seed=3, processes=1)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 6 + 4 + 1
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


@pytest.mark.timeout(60)
def test_rendering_does_not_hang_where_opencv_has_threads_already(tmp_path: Path) -> None:
    cv2.setNumThreads(4)
    for _ in range(3):
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 5)
    shapes.write_data_set(tmp_path, counts={"train": 1}, processes=1)
    assert (tmp_path / "labels.txt").exists()


def test_files_are_h264_that_the_readers_decode(tmp_path: Path) -> None:
    clip = shapes.render("star", "rises", generator(0))
    shapes.write_video(tmp_path / "clip.mp4", clip)
    with open_video(tmp_path / "clip.mp4") as video:
        frames = video.frames(np.arange(len(video)))
    assert frames.shape == clip.shape
    assert np.abs(frames.astype(float) - clip).mean() < 12  # lossy, not another picture


@pytest.mark.parametrize("row", range(5))
def test_half_a_clip_does_not_tell_the_class(row: int) -> None:
    up, sinks, rises, down = (height_of(move, row) for move in shapes.MOVES)
    begin, end = slice(0, 6), slice(-6, None)
    assert np.abs(up[begin] - sinks[begin]).max() < 3  # the same beginning,
    assert np.abs(rises[begin] - down[begin]).max() < 3
    assert np.abs(sinks[end] - down[end]).max() < 3  # the same end,
    assert np.abs(up[end] - rises[end]).max() < 3
    assert (sinks[end].mean() - sinks[begin].mean()) > 8  # and another way between them
    assert (rises[end].mean() - rises[begin].mean()) < -8


def test_captions_of_frames_say_what_and_where_but_not_which_way() -> None:
    picture, caption, shown = teacher.render_frame(5, seed=0, size=48, patch=8)
    assert picture.shape == (48, 48, 3)
    assert set(np.unique(shown)) <= {0, 1, teacher.FIRST_CAPTION + caption}
    assert not any(move in text for text in teacher.CAPTIONS for move in shapes.MOVES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart_shows_that_pretraining_helps(tmp_path: Path) -> None:
    """The front door as a newcomer opens it; 15 points are less than half of what three seeds gave."""
    command = ["bash", str(ROOT / "scripts" / "quickstart.sh"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {line[:12].strip(): line[12:].split() for line in done.stdout.splitlines()}
    merged = {name: float(rows[name][2]) for name in ("from scratch", "pretrained")}
    assert merged["pretrained"] - merged["from scratch"] > 15
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000
