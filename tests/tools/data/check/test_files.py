"""What a check finds on the disk and in videos: real files, damaged as copies and downloads damage them."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import damaged
from tests.tools.data.check.conftest import Check
from tests.videos import render
from umt.data.video.reader import open_video
from umt.errors import UserError
from umt.tools.data import shard
from umt.tools.data.check import command
from umt.tools.data.check.findings import OF_FILES
from umt.tools.data.check.looking import Facts, Task, look_at


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole videos, and what becomes of them."""
    folder = tmp_path_factory.mktemp("videos")
    whole = render(folder / "whole.mp4", frames=20).read_bytes()
    render(folder / "other.mp4", frames=20, label=1)
    render(folder / "short.mp4", frames=5)
    render(folder / "odd.mp4", frames=9, width=65, height=49, pix_fmt="yuv444p")
    render(folder / "early.mp4", frames=20, options={"crf": "1"}, muxer={"movflags": "faststart"})
    (folder / "early.mp4").write_bytes((folder / "early.mp4").read_bytes()[:-3000])
    (folder / "late.mp4").write_bytes(whole[:-100])  # its index comes last and is gone
    mkv = render(folder / "whole.mkv", frames=20).read_bytes()
    (folder / "early.mkv").write_bytes(mkv[: len(mkv) * 6 // 10])
    flipped = bytearray(whole)
    start = flipped.index(b"mdat") + 2000
    flipped[start : start + 600 : 40] = bytes(15)
    (folder / "flipped.mp4").write_bytes(bytes(flipped))
    more = bytearray(render(folder / "more.avi", frames=20, codec="mpeg4").read_bytes())
    at = more.index(b"strh") + 8 + 32  # frames, in the header of the stream
    assert struct.unpack_from("<I", more, at) == (20,)
    struct.pack_into("<I", more, at, 25)
    (folder / "more.avi").write_bytes(bytes(more))
    (folder / "tail.mp4").write_bytes(whole + b"\0\0\7\7more")  # rubbish behind the end
    (folder / "empty.mp4").touch()
    (folder / "page.mp4").write_text("<html>404</html>")
    shutil.copy(folder / "whole.mp4", folder / "copy.mp4")
    os.link(folder / "other.mp4", folder / "link.mp4")
    (folder / "dir.mp4").mkdir()
    return folder


def listed(folder: Path, tmp_path: Path, *names: str, split: str = "train") -> Path:
    file = tmp_path / f"{split}.csv"
    file.write_text("".join(f"{folder / name},0\n" for name in names))
    return file


def names(found: list[tuple[str, int, str]]) -> dict[str, str]:
    return {Path(path).name: kind for kind, _, path in found}


def test_files_are_looked_for_without_decoding(check: Check, videos: Path, tmp_path: Path) -> None:
    done = check(
        listed(videos, tmp_path, "whole.mp4", "gone.mp4", "empty.mp4", "dir.mp4", "page.mp4", "whole.mp4/x.mp4")
    )
    assert done.code == 1
    assert names(done.found()) == {
        "gone.mp4": "missing", "empty.mp4": "empty", "dir.mp4": "wrong_type", "x.mp4": "missing",
    }  # fmt: skip


def test_decoding_finds_what_is_truncated_undecodable_short_odd_or_damaged(
    check: Check, videos: Path, tmp_path: Path
) -> None:
    file = listed(videos, tmp_path, "whole.mp4", "early.mp4", "late.mp4", "early.mkv", "whole.mkv", "page.mp4",
                  "short.mp4", "odd.mp4", "flipped.mp4", "tail.mp4")  # fmt: skip
    done = check(file, "--decode")
    assert names(done.found()) == {
        "early.mp4": "truncated", "late.mp4": "truncated", "early.mkv": "truncated", "page.mp4": "undecodable",
        "short.mp4": "short", "odd.mp4": "odd_size", "flipped.mp4": "damaged",
    }  # fmt: skip
    assert done.detail("short") == "5 frames, a clip spans 8"
    assert done.detail("odd_size") == "65 x 49"
    assert "errors from the decoder, first: " in done.detail("damaged")
    assert (done.code, done.report["files"]["decoded"]) == (1, 10)


@pytest.mark.slow
def test_what_passes_the_check_is_read_by_a_run_whatever_the_damage(
    check: Check, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = damaged.sources(tmp_path_factory.mktemp("sources"))
    files = []
    for number in range(200):
        made = damaged.variant(whole, 4, number)
        files.append(tmp_path / f"{number}{made.ending}")
        files[-1].write_bytes(made.data)
    done = check(listed(tmp_path, tmp_path, *(file.name for file in files)), "--decode")
    refused = {path for kind, _, path in done.found(*OF_FILES)}
    assert 50 < len(refused) < 150
    for file in files:
        if str(file) not in refused:
            with open_video(file) as video:
                assert len(video.frames(np.linspace(0, len(video) - 1, 8).astype(int))) == 8


def test_another_number_of_frames_than_the_container_announces_is_a_warning(
    check: Check, videos: Path, tmp_path: Path
) -> None:
    done = check(listed(videos, tmp_path, "more.avi"), "--decode")
    assert (done.code, done.found()) == (0, [("frame_count", 1, str(videos / "more.avi"))])
    assert done.detail("frame_count") == "25 announced, 20 decoded"


def test_a_dense_clip_spans_its_frames_times_their_distance(check: Check, videos: Path, tmp_path: Path) -> None:
    words = ("--decode", "--data_set", "Kinetics", "--num_frames", 8, "--sampling_rate", 4)
    assert check(listed(videos, tmp_path, "whole.mp4"), *words).detail("short") == "20 frames, a clip spans 32"


def test_where_there_is_no_terminal_progress_is_said_in_lines(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_EVERY", -1)
    command.main([str(listed(videos, tmp_path, "whole.mp4", "short.mp4")), "--decode", "--no_cache"])
    assert capsys.readouterr().err.splitlines()[-2:] == ["decoding: 1 of 2 files", "decoding: 2 of 2 files"]


def test_a_second_check_decodes_nothing_and_finds_the_same(check: Check, videos: Path, tmp_path: Path) -> None:
    file = listed(videos, tmp_path, "whole.mp4", "copy.mp4", "early.mkv")
    first, second = check(file, "--decode"), check(file, "--decode")
    assert (first.report["files"]["known"], second.report["files"]["known"]) == (0, 3)
    assert first.report["findings"] == second.report["findings"]
    assert check(file, "--decode", "--no_cache").report["files"]["known"] == 0


def test_a_file_that_changed_is_decoded_again(check: Check, videos: Path, tmp_path: Path) -> None:
    shutil.copy(videos / "whole.mp4", tmp_path / "a.mp4")
    file = listed(tmp_path, tmp_path, "a.mp4")
    assert check(file, "--decode").found() == []
    shutil.copy(videos / "short.mp4", tmp_path / "a.mp4")
    assert check(file, "--decode").found("short") == [("short", 1, str(tmp_path / "a.mp4"))]


def test_another_decoder_is_another_check(check: Check, videos: Path, tmp_path: Path) -> None:
    file = listed(videos, tmp_path, "whole.mp4")
    check(file, "--decode")
    assert check(file, "--decode", "--decoder", "pyav").report["files"]["known"] == 0


def test_a_cache_that_cannot_be_used_is_done_without(
    check: Check, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "check.sqlite").write_text("no data base at all, but long enough to be taken for one" * 9)
    file = listed(videos, tmp_path, "whole.mp4")
    assert check(file, "--decode", "--cache", tmp_path / "broken").code == 0
    assert "cannot be used" in caplog.text
    assert check(file, "--decode", "--cache", file / "no_folder").code == 0


def test_a_link_in_train_and_validation_is_found_without_reading(check: Check, videos: Path, tmp_path: Path) -> None:
    listed(videos, tmp_path, "whole.mp4", "link.mp4")
    listed(videos, tmp_path, "other.mp4", "copy.mp4", split="val")
    done = check(tmp_path)
    assert done.found("leaked") == [("leaked", 2, str(videos / "link.mp4"))]
    assert "a link to the file of val.csv:1" in done.detail("leaked")


def test_equal_content_in_train_and_validation_is_found_by_hash(check: Check, videos: Path, tmp_path: Path) -> None:
    listed(videos, tmp_path, "whole.mp4", "short.mp4")
    listed(videos, tmp_path, "other.mp4", "copy.mp4", split="val")
    done = check(tmp_path, "--hash")
    assert done.found("leaked") == [("leaked", 1, str(videos / "whole.mp4"))]
    assert "the content of val.csv:2" in done.detail("leaked")
    assert check(tmp_path).code == 0


def test_equal_content_within_a_list_is_a_warning(check: Check, videos: Path, tmp_path: Path) -> None:
    done = check(listed(videos, tmp_path, "whole.mp4", "copy.mp4"), "--hash")
    assert (done.code, done.found()) == (0, [("copy", 2, str(videos / "copy.mp4"))])


def test_a_share_of_the_training_files_may_be_unreadable(check: Check, videos: Path, tmp_path: Path) -> None:
    file = listed(videos, tmp_path, "gone.mp4", "whole.mp4", "other.mp4", "short.mp4")
    assert check(file, "--max_failures", 0.2).code == 1
    assert check(file, "--max_failures", 0.25).code == 0
    assert check(listed(videos, tmp_path, "gone.mp4", "whole.mp4", split="val"), "--max_failures", 1).code == 1


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for name, images in {"whole": 9, "more": 10, "less": 8, "none": 0, "sizes": 9}.items():
        folder = tmp_path / name
        folder.mkdir()
        for i in range(1, images + 1):
            width = 8 if name == "sizes" and i > 5 else 16
            cv2.imwrite(str(folder / f"img_{i:05}.jpg"), np.full((16, width, 3), i, np.uint8))
    (tmp_path / "broken").mkdir()
    for i in range(1, 10):
        (tmp_path / "broken" / f"img_{i:05}.jpg").write_bytes(b"no image")
    (tmp_path / "train.csv").write_text(
        "".join(f"{n} 9 0\n" for n in ("whole", "more", "less", "none", "sizes", "broken"))
    )
    return tmp_path


def test_frame_folders_are_counted_against_the_list(check: Check, frames: Path) -> None:
    done = check(frames / "train.csv", "--prefix", frames, "--use_decord", "False")
    assert done.found() == [("frame_count", 2, "more"), ("frames_missing", 3, "less"), ("empty", 4, "none")]
    assert done.detail("frame_count") == "9 listed, 10 images"
    assert done.detail("frames_missing") == "9 listed, 8 images; no img_00009.jpg"


def test_a_list_of_frame_folders_that_is_read_as_one_of_videos_is_told_so(check: Check, frames: Path) -> None:
    assert "--use_decord False?" in check(frames / "train.csv", "--prefix", frames).detail("missing")


def test_the_images_of_frame_folders_are_decoded(check: Check, frames: Path) -> None:
    done = check(frames / "train.csv", "--prefix", frames, "--use_decord", "False", "--decode")
    assert done.found("undecodable") == [("undecodable", 5, "sizes"), ("undecodable", 6, "broken")]


def test_a_folder_per_class_is_checked_too(check: Check, videos: Path, tmp_path: Path) -> None:
    for part, name, source in [("train", "jump", "whole"), ("train", "run", "page"), ("val", "jump", "copy")]:
        (tmp_path / "set" / part / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / f"{source}.mp4", tmp_path / "set" / part / name / f"{source}.mp4")
    done = check(tmp_path / "set", "--decode")
    assert sorted(done.found("undecodable", "leaked")) == [
        ("leaked", 1, "jump/whole.mp4"),
        ("undecodable", 2, "run/page.mp4"),
    ]


def test_files_by_url_are_looked_for_and_decoded(check: Check, videos: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    listed(Path(), tmp_path, "whole.mp4", "gone.mp4", "early.mkv", "copy.mp4", "empty.mp4")
    words = (f"file://{tmp_path}/train.csv", "--prefix", f"file://{videos}", "--decode")
    done = check(*words)
    assert names(done.found()) == {
        "gone.mp4": "missing", "early.mkv": "truncated", "copy.mp4": "copy", "empty.mp4": "empty",
    }  # fmt: skip
    assert check(*words).report["files"]["known"] == 3


def test_videos_in_tar_shards_are_looked_for_and_decoded(check: Check, videos: Path, tmp_path: Path) -> None:
    listed(Path(), tmp_path, "whole.mp4", "early.mkv", "other.mp4")
    listed(Path(), tmp_path, "copy.mp4", split="val")
    lists, out = [tmp_path / "train.csv", tmp_path / "val.csv"], tmp_path / "shards"
    shard.main([*map(str, lists), "--split", ",", "--prefix", str(videos), "--out", str(out)])
    (out / "train.csv").write_text((out / "train.csv").read_text() + "gone.mp4,0\n")
    for prefix in (str(out), f"file://{out}"):
        done = check(out, "--prefix", prefix, "--decode", "--cache", tmp_path / prefix.replace("/", "_"))
        assert names(done.found()) == {"gone.mp4": "missing", "early.mkv": "truncated", "whole.mp4": "leaked"}
        assert done.report["files"]["known"] == 0


def workers_of(pid: int) -> list[int]:
    """Processes of `pid` that look at files: not the helper that Python starts next to spawned ones."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A video that takes many seconds to decode."""
    file = tmp_path / "long.h264"
    file.write_bytes(render(tmp_path / "once.h264", frames=20).read_bytes() * 2500)
    return file


def look(*files: Path, limit: float = 60) -> list[Facts]:
    tasks = [Task(str(file)) for file in files]
    found = dict(look_at(tasks, workers=1, limit=limit, decoder="pyav"))
    return [found[number] for number in range(len(files))]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGSEGV, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_process_that_dies_takes_one_file_with_it_and_is_replaced(
    videos: Path, long: Path, number: signal.Signals
) -> None:
    def kill() -> None:
        """When the worker has decoded for a second."""
        while not (workers := workers_of(os.getpid())) or seconds_of(workers[0]) < 1.5:
            time.sleep(0.05)
        os.kill(workers[0], number)

    killer = threading.Thread(target=kill)
    killer.start()
    before, lost, after = look(videos / "whole.mp4", long, videos / "whole.mp4")
    killer.join()
    assert [before.problem, lost.problem, after.problem] == ["", "crashes", ""]
    assert lost.cause == f"decoding it ended with {number.name}"
    assert workers_of(os.getpid()) == []


def seconds_of(pid: int) -> float:
    """Of the processor, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_file_that_takes_too_long_is_given_up_and_the_others_are_decoded(videos: Path, long: Path) -> None:
    hanging, other = look(long, videos / "short.mp4", limit=1.5)
    assert (hanging.problem, hanging.cause) == ("hangs", "no end after 1.5 s")
    assert (other.problem, other.frames) == ("", 5)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes in /proc")
def test_a_check_that_is_left_in_the_middle_leaves_no_process(videos: Path) -> None:
    looking = look_at([Task(str(videos / "whole.mp4"))] * 1000, workers=2, limit=60, decoder="auto")
    next(looking)
    looking.close()
    assert workers_of(os.getpid()) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_check_that_is_stopped_leaves_no_process(tmp_path: Path, long: Path, number: signal.Signals) -> None:
    words = [sys.executable, "-m", "umt", "data", "check", str(listed(tmp_path, tmp_path, long.name)), "--decode"]
    run = subprocess.Popen([*words, "--no_cache", "--num_workers", "2"], stderr=subprocess.DEVNULL)
    while not (workers := workers_of(run.pid)) or seconds_of(workers[0]) < 1.5:
        time.sleep(0.05)
    run.send_signal(number)
    run.wait(timeout=20)
    end = time.monotonic() + 15
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.2)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_a_process_that_does_not_start_is_said(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec.so.99: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"A worker process cannot start: ImportError: libavcodec\.so\.99.*Mend that"):
        look(videos / "whole.mp4")


@pytest.mark.parametrize(("name", "code"), [("whole.mp4", 0), ("page.mp4", 1), (None, 2)])
def test_the_exit_code_says_whether_it_may_be_trained_on(
    videos: Path, tmp_path: Path, name: str | None, code: int
) -> None:
    file = listed(videos, tmp_path, name) if name else tmp_path / "train.csv"
    command = [sys.executable, "-m", "umt", "data", "check", str(file), "--decode", "--cache", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
