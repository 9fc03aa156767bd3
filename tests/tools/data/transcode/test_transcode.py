"""`umt data transcode`: the copies hold the same frames, smaller; originals, folders and lists come out as promised."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.videos import cut, picture, render, rotate
from umt.data.lists.reading import read_list
from umt.data.video import h264
from umt.data.video.mp4 import plain_index
from umt.data.video.reader import open_video
from umt.errors import ConfigError, VideoError
from umt.tools.data.transcode import main
from umt.tools.data.transcode.encode import Settings, new_size, transcode

SMALL = Settings(short_side=32, crf=12, preset="ultrafast")
FAST = ["--preset", "ultrafast", "--workers", "1", "--sample", "0", "--short_side", "32"]


def frames_of(path: Path) -> np.ndarray:
    with open_video(path) as video:
        return video.frames(range(len(video)))


def differences(original: Path, copy: Path) -> np.ndarray:
    """(L, L): mean absolute difference of each frame of the copy and each of the original, made as small."""
    small = frames_of(copy)
    size = (small.shape[2], small.shape[1])
    shrunk = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames_of(original)])
    return np.abs(small[:, None].astype(int) - shrunk[None]).mean((2, 3, 4))


SOURCES = {
    "b_frames": lambda d: render(d / "a.mp4", frames=20),
    "matroska": lambda d: render(d / "a.mkv", frames=20),
    "variable_rate": lambda d: render(d / "a.mp4", frames=20, pts=[i + 3 * (i // 5) for i in range(20)]),
    "cut": lambda d: cut(render(d / "a.mp4", frames=30, open_gop=True), d / "b.mp4", start=7),
    "avi": lambda d: render(d / "a.avi", frames=20),
    "10_bit": lambda d: render(d / "a.mp4", frames=20, pix_fmt="yuv420p10le"),
    "odd_size": lambda d: render(d / "a.webm", frames=20, width=65, height=49, codec="libvpx-vp9"),
    "rotated": lambda d: rotate(render(d / "a.mp4", frames=20), 90),
    "rotated_back": lambda d: rotate(render(d / "a.mp4", frames=20), 270),
    "with_sound": lambda d: render(d / "a.mp4", frames=20, audio=True),
    "full_range": lambda d: render(d / "a.mp4", frames=20, pix_fmt="yuvj420p"),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_frame_of_the_copy_is_the_originals(tmp_path: Path, make: object) -> None:
    original = make(tmp_path)  # type: ignore[operator]
    written = transcode(str(original), str(tmp_path / "copy.mp4"), SMALL)
    error = differences(original, tmp_path / "copy.mp4")
    assert error.shape[0] == error.shape[1] == written.frames
    assert (error.argmin(1) == np.arange(written.frames)).all()
    assert np.diag(error).max() < 8
    assert min(written.width, written.height) == 32


def test_times_stay_those_of_the_original(tmp_path: Path) -> None:
    original = render(tmp_path / "a.mp4", pts=[i + 3 * (i // 5) for i in range(30)])
    transcode(str(original), str(tmp_path / "copy.mp4"), SMALL)

    def times(path: Path) -> list[float]:
        with av.open(str(path)) as container:
            return [round(frame.time - container.streams.video[0].start_time * frame.time_base, 3)
                    for frame in container.decode(video=0)]  # fmt: skip

    assert times(tmp_path / "copy.mp4") == pytest.approx(times(original), abs=2e-3)


def test_a_copy_has_no_sound_and_short_closed_groups_whose_b_frames_nothing_needs(tmp_path: Path) -> None:
    original = render(tmp_path / "a.mp4", frames=40, gop=250, audio=True)
    transcode(str(original), str(tmp_path / "copy.mp4"), Settings(short_side=32, gop=8))
    index = plain_index(str(tmp_path / "copy.mp4"))
    assert index is not None
    assert np.diff(index.keys).max() <= 8
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        needed = [h264.needed(bytes(packet), index.prefix) for packet in container.demux(video=0) if packet.size]
    assert needed.count(False) >= 20


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1920, 1080), 256, (456, 256)),
        ((1080, 1920), 320, (320, 568)),
        ((340, 256), 256, (340, 256)),
        ((160, 120), 256, (160, 120)),
        ((161, 121), 256, (160, 120)),
        ((5000, 20), 256, (5000, 20)),
    ],
)
def test_the_short_side_is_as_asked_even_and_never_enlarged(
    size: tuple[int, int], short_side: int, expected: tuple[int, int]
) -> None:
    assert new_size(*size, short_side) == expected


def test_a_damaged_original_leaves_nothing_behind(tmp_path: Path) -> None:
    content = render(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[:3000] + bytes(255 - b for b in content[3000:6000]) + content[6000:])
    with pytest.raises(VideoError, match=r"b\.mp4: cannot be read as a video \(damaged"):
        transcode(str(tmp_path / "b.mp4"), str(tmp_path / "out" / "b.mp4"), SMALL)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """Four videos in two folders, one of them damaged, and the lists train.csv and val.csv."""
    folder = tmp_path / "videos"
    for name, label in (("a/one.mp4", 0), ("b c/two.webm", 1), ("b c/three.mp4", 1)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
        render(folder / name, label=label, codec=codec, frames=12)
    (folder / "a/broken.mp4").write_text("<html>")
    (tmp_path / "train.csv").write_text("a/one.mp4,0\nb c/two.webm,1\na/broken.mp4,0\n")
    (tmp_path / "val.csv").write_text("b c/three,1\na/one.mp4,0\n")
    return tmp_path


def test_a_folder_is_copied_with_its_structure_and_failures_are_listed(
    data_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (data_set / "videos").rglob("*.*")}
    out = data_set / "out"
    assert main(["--videos", str(data_set / "videos"), "--out", str(out), *FAST]) == 0
    assert {str(p.relative_to(out)) for p in out.rglob("*.*")} == {
        "a/one.mp4", "b c/two.mp4", "b c/three.mp4", "transcoded.jsonl", "failed.jsonl",
    }  # fmt: skip
    (failure,) = map(json.loads, (out / "failed.jsonl").read_text().splitlines())
    assert failure["path"].endswith("a/broken.mp4")
    assert "Invalid data" in failure["cause"]
    assert "1 video failed" in capsys.readouterr().out
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before


def test_lists_are_written_for_the_copies(data_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data_set / "out"
    lists = [str(data_set / "train.csv"), str(data_set / "val.csv")]
    main(["--videos", *lists, "--prefix", str(data_set / "videos"), "--split", ",", "--out", str(out), *FAST[:-3],
          "1", "--short_side", "32"])  # fmt: skip
    assert (out / "train.csv").read_text() == "a/one.mp4,0\nb c/two.mp4,1\n"
    assert (out / "val.csv").read_text() == "b c/three.mp4,1\na/one.mp4,0\n"
    videos = read_list(out / "val.csv", separator=",", prefix=str(out), num_classes=2)
    assert [Path(videos.file(row)).is_file() for row in range(2)] == [True, True]
    said = capsys.readouterr().out
    assert "train.csv: 2 of 3 rows" in said
    assert "ms of CPU time" in said
    assert "of the size" in said


def test_class_names_go_along_with_the_lists(data_set: Path) -> None:
    (data_set / "labels.txt").write_text("yoga\nzumba\n")
    lists = [str(data_set / "train.csv"), str(data_set / "val.csv")]
    words = ["--videos", *lists, "--prefix", str(data_set / "videos"), "--split", ",", "--out", str(data_set / "out")]
    main([*words, *FAST])
    assert (data_set / "out/labels.txt").read_text() == "yoga\nzumba\n"


def test_a_second_run_does_only_what_is_missing_or_has_changed(
    data_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = data_set / "out", ["--videos", str(data_set / "videos"), "--out", str(data_set / "out"), *FAST]
    main(command)
    (out / "a/one.mp4").unlink()
    render(data_set / "videos/b c/three.mp4", frames=14)
    with open(out / "transcoded.jsonl", "a") as manifest:
        manifest.write('{"path": "half of a li')
    untouched = (out / "b c/two.mp4").stat().st_mtime_ns
    capsys.readouterr()
    main(command)
    assert "1 of 4 videos are there already" in capsys.readouterr().out
    assert (out / "b c/two.mp4").stat().st_mtime_ns == untouched
    assert (out / "a/one.mp4").exists()
    assert len(frames_of(out / "b c/three.mp4")) == 14


def test_copies_of_other_settings_are_not_mixed(data_set: Path) -> None:
    command = ["--videos", str(data_set / "videos/a"), "--out", str(data_set / "out"), *FAST]
    main(command)
    with pytest.raises(ConfigError, match=r"holds copies made with --crf 23"):
        main([*command, "--crf", "30"])


def test_nothing_that_is_there_is_written_over(data_set: Path) -> None:
    videos = str(data_set / "videos")
    with pytest.raises(ConfigError, match="would write over the original"):
        main(["--videos", videos, "--out", videos, *FAST])
    (data_set / "mine/a").mkdir(parents=True)
    (data_set / "mine/a/one.mp4").write_text("precious")
    with pytest.raises(ConfigError, match=r"one\.mp4, which this command did not write"):
        main(["--videos", videos, "--out", str(data_set / "mine"), *FAST])
    assert (data_set / "mine/a/one.mp4").read_text() == "precious"


def test_two_originals_that_differ_in_their_ending_get_two_copies(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        (tmp_path / "v").mkdir(exist_ok=True)
        render(tmp_path / "v" / name, frames=5 if name == "a.mp4" else 7)
    main(["--videos", str(tmp_path / "v"), "--out", str(tmp_path / "out"), *FAST])
    assert len(frames_of(tmp_path / "out/a.mp4.mp4")) == 5
    assert len(frames_of(tmp_path / "out/a.mkv.mp4")) == 7


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "takes --videos and --out"),
        (["--videos", "nowhere.csv", "--out", "o"], "nowhere.csv does not exist"),
        (["--videos", ".", "--out", "o", "--short_side", "255"], r"--short_side \(255\) must be even. Try 256"),
        (["--videos", ".", "--out", "o", "--crf", "60"], r"--crf \(60\) must lie in 0..51"),
        (["--videos", ".", "--out", "o", "--gop", "0"], r"--gop \(0\) must be at least 1"),
        (["--videos", ".", "--out", "o", "--bframe", "0"], "Did you mean --bframes"),
        (["--videos", ".", "--out", "o"], "holds no video"),
    ],
)
def test_a_wrong_flag_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        main(flags)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(pid: int) -> list[int]:
    """Processes that transcode: not the helper that Python starts beside spawned ones."""
    return [p for p in children(pid) if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_worker_that_dies_costs_one_video_and_a_run_that_dies_goes_on(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    for number in range(3):
        render(tmp_path / "v" / f"{number}.mp4", frames=150, width=640, height=480)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "umt", "data", "transcode", "--videos", str(tmp_path / "v"), "--out", str(out),
               "--workers", "1", "--preset", "veryslow", "--sample", "0"]  # fmt: skip

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not list(out.glob("*.part")):
            assert process.poll() is None
            time.sleep(0.01)
        return process

    process = begin()
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert "1 video failed" in said
    assert "transcoding it ended with SIGKILL" in said
    assert sorted(p.name for p in out.glob("*.mp4*")) == ["1.mp4", "2.mp4"]

    process = begin()
    process.kill()
    process.communicate()
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "2 of 3 videos are there already" in said
    assert sorted(p.name for p in out.iterdir()) == ["0.mp4", "1.mp4", "2.mp4", "transcoded.jsonl"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "v").mkdir()
    render(tmp_path / "v/a.mp4", frames=600, width=640, height=480)
    out = tmp_path / "out"
    words = [sys.executable, "-m", "umt", "data", "transcode", "--videos", str(tmp_path / "v"), "--out", str(out)]
    process = subprocess.Popen([*words, "--workers", "1", "--preset", "veryslow"], stderr=subprocess.DEVNULL)
    while not list(out.glob("*.part")):
        assert process.poll() is None
        time.sleep(0.01)
    left = workers(process.pid)
    process.send_signal(number)
    process.wait(timeout=20)
    end = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
    assert (number == signal.SIGTERM) == bool(list(out.glob("*.part")))  # which the same command replaces


def test_a_video_that_takes_too_long_has_failed_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    render(tmp_path / "v/long.mp4", frames=250, width=640, height=480)
    render(tmp_path / "v/short.mp4", frames=5)
    words = ["--videos", str(tmp_path / "v"), "--out", str(tmp_path / "out"), "--workers", "1", "--sample", "0"]
    main([*words, "--preset", "veryslow", "--time_limit", "1"])
    (failure,) = map(json.loads, (tmp_path / "out/failed.jsonl").read_text().splitlines())
    assert failure["cause"] == "no end after 1 s (--time_limit)"
    assert sorted(p.name for p in (tmp_path / "out").glob("*.mp4*")) == ["short.mp4"]


def test_the_picture_is_the_one_that_was_rendered(tmp_path: Path) -> None:
    original = render(tmp_path / "a.mp4", frames=5, width=128, height=96)
    transcode(str(original), str(tmp_path / "copy.mp4"), Settings(short_side=96, crf=10))
    for number, frame in enumerate(frames_of(tmp_path / "copy.mp4")):
        assert np.abs(frame.astype(int) - picture(number, 128, 96)).mean() < 8


def test_where_nothing_can_be_transcoded_the_run_fails(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v/a.mp4").write_text("<html>")
    with pytest.raises(ConfigError, match=r"No video could be transcoded; .*failed\.jsonl has the causes"):
        main(["--videos", str(tmp_path / "v"), "--out", str(tmp_path / "out"), *FAST])
    assert "Invalid data" in (tmp_path / "out/failed.jsonl").read_text()
