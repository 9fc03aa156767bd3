"""Windows of a video: where they lie, and what is seen in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.videos import played, render
from umt.data.video.mp4 import plain_index
from umt.data.video.reader import open_video
from umt.errors import ConfigError
from umt.inference.views import Views
from umt.inference.windows import each, frame_times, spans, windows

VIEWS = Views(num_frames=4, input_size=32)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("videos") / "a.mp4", frames=50, fps=10)


@given(
    frames=st.integers(1, 200),
    fps=st.sampled_from([7.5, 10, 25, 29.97]),
    window=st.floats(0.05, 30),
    stride=st.floats(0.05, 30),
)
def test_windows_cover_a_video_once_and_stay_within_it(frames: int, fps: float, window: float, stride: float) -> None:
    times, duration = np.arange(frames) / fps, frames / fps
    found = spans(times, duration, window, stride)
    assert [span.start for span in found] == [round(i * stride, 6) for i in range(len(found))]
    for span in found:
        assert 0 <= span.first < span.stop <= frames
        assert span.end == pytest.approx(min(span.start + window, duration), abs=2e-6)
    if stride == window:
        own = [span for span in found if times[span.first] >= span.start - 1e-5]
        assert sum(span.stop - span.first for span in own) == frames
    last = found[-1]
    assert last.start + window >= duration - 1e-5 or last.start + stride >= duration - 1e-5


@pytest.mark.parametrize(("window", "stride"), [(1.0, None), (1.3, 0.4), (0.5, 2.0), (100.0, None)])
def test_views_of_a_window_are_those_of_its_frames_alone(video: Path, window: float, stride: float | None) -> None:
    frames, seen = played(video), list(windows(VIEWS, video, window, stride, crops=3))
    for part in seen:
        first, stop = round(part.start * 10 + 0.499), round(part.end * 10 + 0.499)
        alone = VIEWS.of(frames[first:stop], 1, 3)
        assert np.array_equal(part.views, alone)
    assert seen[-1].end == (5.0 if stride != 2.0 else 4.5)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_frames_come_one_by_one_as_they_come_together(tmp_path: Path, name: str) -> None:
    path = render(tmp_path / name, frames=40, gop=9)
    assert (plain_index(str(path)) is None) == (name != "a.mp4")
    with open_video(path) as reader:
        wanted = np.array([0, 1, 8, 9, 10, 26, 39])
        one_by_one = np.stack(list(each(reader, wanted)))
        assert np.array_equal(one_by_one, reader.frames(wanted))
        assert np.array_equal(one_by_one, played(path)[wanted])


def test_times_are_the_files_own(tmp_path: Path) -> None:
    path = render(tmp_path / "a.mp4", frames=4, fps=10, pts=[0, 5, 6, 20])
    times, duration = frame_times(str(path), 4)
    assert times == pytest.approx([0, 0.5, 0.6, 2.0])
    assert duration > 2.0


def test_frames_without_times_want_a_rate(video: Path) -> None:
    frames = played(video)
    with pytest.raises(ConfigError, match=r"fps \(--fps\)"):
        next(windows(VIEWS, frames, 1.0))
    assert [part.frames for part in windows(VIEWS, frames, 1.0, fps=10)] == [
        part.frames for part in windows(VIEWS, video, 1.0)
    ]


@settings(max_examples=20)
@given(window=st.sampled_from([0.0, -1.0, float("nan"), float("inf")]))
def test_a_window_is_some_seconds(video: Path, window: float) -> None:
    with pytest.raises(ConfigError, match="must be more than 0 seconds"):
        next(windows(VIEWS, video, window))
