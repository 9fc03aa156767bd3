"""`umt predict`: what it says, and what it draws."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.inference.tiny import NAMES, checkpoint, tiny
from tests.videos import played
from tests.videos import render as film
from umt.errors import ConfigError, OutputError, UserError, VideoError
from umt.tasks.base.predictor import Part
from umt.tasks.classify.predictor import ClassPredictor
from umt.tools.predict.command import main, parse
from umt.tools.predict.output import clock, opened
from umt.tools.predict.render import render
from umt.tools.recognizer_flags import unread


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.mp4 and b.mp4, and a checkpoint."""
    made = tmp_path_factory.mktemp("predict")
    film(made / "a.mp4", frames=30, fps=10, width=96, height=72, audio=True)
    film(made / "b.mp4", frames=20, fps=10, width=96, height=72, label=2)
    checkpoint(made)
    return made


def run(folder: Path, *words: str) -> int:
    usual = ["--checkpoint", str(folder / "checkpoint-best.pth"), "--device", "cpu", "--precision", "fp32"]
    return main([*words, *usual, "--batch_size", "4"])


def draw(source: Path, target: Path, parts: Sequence[Part]) -> None:
    render(str(source), str(target), parts, ClassPredictor(tiny()))


def expected(folder: Path, name: str) -> list[tuple[float, str]]:
    model = tiny(labels=NAMES)
    predicted = model.predict(model.transform(folder / name, 2, 3)).tolist()
    return sorted(zip(predicted, NAMES, strict=True), reverse=True)


def test_the_table_has_the_likeliest_classes_of_a_tests_views(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, str(folder / "a.mp4"), str(folder / "b.mp4"), "--topk", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines[::3]] == [str(folder / "a.mp4"), str(folder / "b.mp4")]
    for name, told in (("a.mp4", lines[1:3]), ("b.mp4", lines[4:6])):
        assert [line.split("%  ") for line in told] == [
            [f"  {100 * p:5.1f} ", k] for p, k in expected(folder, name)[:2]
        ]


def test_json_and_csv_tell_the_same(folder: Path, tmp_path: Path) -> None:
    run(folder, str(folder / "[ab].mp4"), "--json", str(tmp_path / "x.json"), "--csv", str(tmp_path / "new/x.csv"))
    told = json.loads((tmp_path / "x.json").read_text())
    with open(tmp_path / "new/x.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert told["failures"] == []
    for name, video in zip(("a.mp4", "b.mp4"), told["videos"], strict=True):
        own = [row for row in rows if row["path"] == video["path"]]
        assert [one["label"] for one in video["predictions"]] == [k for _, k in expected(folder, name)]
        assert [one["probability"] for one in video["predictions"]] == pytest.approx(
            [p for p, _ in expected(folder, name)], abs=1e-6
        )
        assert [row["label"] for row in own] == [one["label"] for one in video["predictions"]]
        assert [float(row["probability"]) for row in own] == [one["probability"] for one in video["predictions"]]


def test_files_are_whole_or_as_they_were(folder: Path, tmp_path: Path) -> None:
    predictor = ClassPredictor(tiny(labels=NAMES), topk=1)
    for name in ("x.json", "x.csv"):
        (tmp_path / name).write_text("old")
    words = parse(["a", "--checkpoint", "b", "--json", str(tmp_path / "x.json"), "--csv", str(tmp_path / "x.csv")])

    def write(*, stopped: bool) -> None:
        with opened(words, predictor) as output:
            output.video("a", [Part(predictor.answer(torch.tensor([[0.1, 0.2, 0.7, 0, 0]])))])
            if stopped:
                raise KeyboardInterrupt
            output.end([])

    with pytest.raises(KeyboardInterrupt):
        write(stopped=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.json": "old", "x.csv": "old"}
    write(stopped=False)
    assert json.loads((tmp_path / "x.json").read_text())["videos"][0]["predictions"][0]["class"] == 2
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"x.json", "x.csv"}


def test_a_pipe_is_written_to_as_it_is(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        run(folder, str(folder / "a.mp4"), "--clips", "1", "--crops", "1", "--json", str(tmp_path / "pipe"))
        assert json.loads(os.read(reader, 100_000))["failures"] == []
    finally:
        os.close(reader)


def test_a_link_stays_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").symlink_to(tmp_path / "there.json")
    run(folder, str(folder / "a.mp4"), "--clips", "1", "--crops", "1", "--json", str(tmp_path / "x.json"))
    assert (tmp_path / "x.json").is_symlink()
    assert json.loads((tmp_path / "there.json").read_text())["failures"] == []


@pytest.mark.parametrize("flag", ["--json", "--csv"])
def test_a_file_that_cannot_be_written_is_a_sentence(folder: Path, flag: str) -> None:
    for place in (str(folder), "/proc/x.json"):
        with pytest.raises(OutputError, match=rf"{flag} \({place}\) cannot be written: .*Give another place"):
            run(folder, str(folder / "a.mp4"), flag, place)


def test_windows_come_with_their_times(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, str(folder / "a.mp4"), "--window", "1", "--stride", "0.5", "--json", "-")
    (video,) = json.loads(capsys.readouterr().out)["videos"]
    assert [(one["start"], one["end"]) for one in video["windows"]] == [(i / 2, i / 2 + 1) for i in range(5)]
    model, frames = tiny(labels=NAMES), played(folder / "a.mp4")
    alone = model.predict(model.transform(frames[5:15]))
    assert video["windows"][1]["predictions"][0]["probability"] == pytest.approx(float(alone.max()), abs=1e-6)


def test_a_threshold_hides_the_unlikely(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    least = expected(folder, "a.mp4")[2][0]
    run(folder, str(folder / "a.mp4"), "--threshold", str(least - 1e-6))
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3


def test_a_name_that_is_no_text_is_told_all_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9.mp4")
    os.link(folder / "a.mp4", odd)
    run(folder, odd, "--json", str(tmp_path / "x.json"))
    assert "\ufffdt\ufffd.mp4" in capsys.readouterr().out
    assert json.loads((tmp_path / "x.json").read_text())["videos"][0]["path"] == odd
    run(folder, odd, "--csv", "-")
    assert capsys.readouterr().out.splitlines()[1].startswith(str(tmp_path) + "/\ufffdt\ufffd.mp4,,,1,")


def test_broken_files_are_named_and_the_others_go_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes((folder / "a.mp4").read_bytes()[:2000])
    words = [str(broken), str(tmp_path / "gone.mp4"), str(folder / "b.mp4"), "--json", str(tmp_path / "x.json")]
    for window in ([], ["--window", "1"]):
        with pytest.raises(UserError, match=r"2 of 3 videos could not be read, the first: .*broken\.mp4"):
            run(folder, *words, *window)
        told = json.loads((tmp_path / "x.json").read_text())
        assert [failure["path"] for failure in told["failures"]] == words[:2]
        assert [video["path"] for video in told["videos"]] == words[2:3]
        assert "gone.mp4: cannot be read as a video (no such file" in capsys.readouterr().err
    assert run(folder, *words, "--skip_unreadable") == 0


@pytest.mark.parametrize(
    ("failed", "videos", "said"),
    [
        (1, 1, "The video could not be read: x.mp4: why."),
        (2, 2, "None of 2 videos could be read, the first: x.mp4: why."),
        (1, 2, "1 of 2 videos could not be read, the first: x.mp4: why. The others are done."),
    ],
)
def test_others_are_done_where_there_are_others(failed: int, videos: int, said: str) -> None:
    assert unread(failed, videos, "x.mp4: why.") == said


def test_a_drawn_video_has_the_frames_times_and_sound_of_its_source(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn/out.mp4"
    run(folder, str(folder / "a.mp4"), "--window", "1", "--render", str(out))
    with av.open(str(out)) as new, av.open(str(folder / "a.mp4")) as old:
        times = [[round(float(frame.time), 3) for frame in c.decode(video=0)] for c in (new, old)]
        assert times[0] == times[1]
        assert new.streams.video[0].codec_context.name == "h264"
        assert [s.codec_context.name for s in new.streams.audio] == ["aac"]
        assert (new.streams.video[0].width, new.streams.video[0].height) == (320, 240)
    draw(folder / "a.mp4", tmp_path / "bare.mp4", [])
    changed = np.abs(played(out).astype(int) - played(tmp_path / "bare.mp4")).mean((0, 3))
    assert changed[10:50, 10:100].mean() > 20
    assert changed[130:].mean() < 3


@pytest.mark.parametrize(("width", "height"), [(97, 75), (641, 361)])
def test_a_drawn_video_has_even_sides(tmp_path: Path, width: int, height: int) -> None:
    source = film(tmp_path / "odd.mkv", frames=3, width=width, height=height, codec="mpeg4")
    draw(source, tmp_path / "out.mp4", [Part(((0, "yoga", 0.9),))])
    drawn = played(tmp_path / "out.mp4")
    assert len(drawn) == 3
    assert drawn.shape[1] % 2 == drawn.shape[2] % 2 == 0
    assert min(drawn.shape[1:3]) >= 240


def test_a_drawn_video_keeps_times_of_a_varying_rate(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", frames=4, fps=10, pts=[0, 5, 6, 20])
    draw(source, tmp_path / "out.mp4", [])
    with av.open(str(tmp_path / "out.mp4")) as drawn:
        assert [float(frame.time) for frame in drawn.decode(video=0)] == pytest.approx([0, 0.5, 0.6, 2.0])


def test_windows_are_drawn_at_their_times_in_a_video_that_begins_late(tmp_path: Path) -> None:
    early, late = (
        film(tmp_path / f"{start}.mkv", frames=20, fps=10, pts=list(range(start, start + 20))) for start in (0, 50)
    )
    parts = [Part(((0, "x" * 9 * second, 0.5),), second, second + 1) for second in (0, 1)]
    for source in (early, late):
        draw(source, source.with_suffix(".mp4"), parts)
    drawn = [played(source.with_suffix(".mp4")) for source in (early, late)]
    assert np.abs(drawn[0].astype(int) - drawn[1]).mean() < 1
    assert np.abs(drawn[0][9, :30, :60].astype(int) - drawn[0][11, :30, :60]).mean() > 10


def test_a_video_that_cannot_be_drawn_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing" * 500)
    with pytest.raises(VideoError, match=r"broken\.mp4: cannot be read"):
        draw(tmp_path / "broken.mp4", tmp_path / "out.mp4", [])
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "takes videos and --checkpoint"),
        (["--window", "0"], r"--window \(0\) must be above 0"),
        (["--stride", "1"], "give --window too"),
        (["--window", "1", "--clips", "4"], "Leave one of them out"),
        (["--threshold", "50"], r"--threshold \(50\) is a probability"),
        (["--topk", "0"], r"--topk \(0\) must be at least 1"),
        (["--num_workers", "-1"], r"--num_workers \(-1\) must be at least 0"),
        (["--decode_timeout", "-1"], r"--decode_timeout \(-1\) must be at least 0 seconds"),
        (["--windw", "1"], "Did you mean --window"),
    ],
)
def test_a_wrong_command_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(["a.mp4", "--checkpoint", "x.pth", *words] if words else [])


def test_drawing_over_the_video_itself_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"write over the video .*a\.mp4 itself"):
        run(folder, str(folder / "a.mp4"), "--render", str(folder / "a.mp4"))


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00.00"), (12.5, "0:12.50"), (59.999, "1:00.00"), (3725, "1:02:05.00")]
)
def test_times_are_said_as_clocks_do(seconds: float, said: str) -> None:
    assert clock(seconds) == said
