"""Any few frames of any H.264 that x264 writes are those of a full decode from start to end, to the bit.

The readers leave frames out on the way (`umt.data.video.pyav_readers`); these tests hold that nothing leans on them.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.videos import cut, played, render
from umt.data.video.mp4 import Index, plain_index
from umt.data.video.probe import probe
from umt.data.video.pyav_readers import Direct, PyAV
from umt.data.video.reader import ORDER, available, open_video
from umt.errors import VideoError

X264 = st.fixed_dictionaries(
    {
        "keyint": st.integers(1, 60),
        "min-keyint": st.just(1),
        "scenecut": st.sampled_from([0, 40]),
        "bframes": st.integers(0, 6),
        "b-adapt": st.integers(0, 2),
        "b-pyramid": st.sampled_from(["none", "strict", "normal"]),
        "ref": st.integers(1, 5),
        "weightp": st.integers(0, 2),
        "direct": st.sampled_from(["spatial", "temporal"]),
        "cabac": st.integers(0, 1),
        "slices": st.sampled_from([0, 3]),
        "open-gop": st.sampled_from([0, 0, 0, 1]),
        "intra-refresh": st.sampled_from([0, 0, 0, 1]),
        "interlaced": st.sampled_from([0, 0, 0, 1]),
        "repeat-headers": st.integers(0, 1),
        "aud": st.integers(0, 1),
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(x264=X264, start=st.integers(0, 15), data=st.data())
def test_sparse_frames_are_those_of_a_full_decode(x264: dict[str, object], start: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        params = ":".join(f"{name}={value}" for name, value in x264.items())
        path = render(Path(folder) / "a.mp4", frames=36, options={"preset": "fast", "x264-params": params})
        if start:  # a stream copy that begins anywhere
            path = cut(path, Path(folder) / "b.mp4", start)
        truth = played(path)
        indices = data.draw(st.lists(st.integers(0, len(truth) - 1), min_size=1, max_size=8))
        with open_video(path, "pyav") as video, PyAV(str(path)) as seeking:
            assert len(video) == len(truth)
            np.testing.assert_array_equal(video.frames(indices), truth[indices])
            np.testing.assert_array_equal(seeking.frames(indices), truth[indices])
            np.testing.assert_array_equal(video.frames(indices[:1]), truth[indices[:1]])


def plain(folder: Path, **settings: object) -> tuple[Path, Index, np.ndarray]:
    path = render(folder / "a.mp4", **settings)  # type: ignore[arg-type]
    index = plain_index(str(path))
    assert index is not None
    return path, index, played(path)


def test_frames_that_no_other_needs_are_left_out_on_the_way(tmp_path: Path) -> None:
    path, index, _ = plain(tmp_path, frames=24, gop=24, b_frames=3, options={"preset": "fast"})
    last = int(index.packets[23])
    with open(path, "rb", buffering=0) as file, Direct(str(path), index) as video:
        decoded = list(video._group(file, 0, {last: 23}))
    assert decoded[-1].pts == 23
    assert len(decoded) <= 24 // 2


def test_only_the_groups_of_the_wanted_frames_are_decoded(tmp_path: Path) -> None:
    path, index, truth = plain(tmp_path, frames=40, gop=10)
    content = bytearray(path.read_bytes())
    for packet in range(int(index.keys[1]), int(index.keys[2])):  # the second group is nothing but noise
        at, size = int(index.offsets[packet]), int(index.sizes[packet])
        content[at + 5 : at + size] = np.random.default_rng(0).integers(0, 256, size - 5, np.uint8).tobytes()
    path.write_bytes(content)
    with open_video(path, "pyav") as video:
        np.testing.assert_array_equal(video.frames([3, 25, 39]), truth[[3, 25, 39]])
        with pytest.raises(VideoError, match="damaged"):
            video.frames([12])


@pytest.mark.parametrize("decoder", [name for name in ORDER if available(name)])
def test_key_frames_that_lean_on_earlier_frames_are_not_taken_for_beginnings(tmp_path: Path, decoder: str) -> None:
    options = {"preset": "fast", "x264-params": "keyint=8:intra-refresh=1:bframes=0"}
    path, index, truth = plain(tmp_path, frames=40, options=options)
    assert len(index.keys) > 1
    assert probe(str(path)).quirks == ("false key frames",)
    with open_video(path, decoder) as video:
        for number in (30, 3, 17):
            np.testing.assert_array_equal(video.frames([number])[0], truth[number])


def test_an_index_that_calls_any_frame_a_key_frame_is_not_believed(tmp_path: Path) -> None:
    path, _, truth = plain(tmp_path, frames=40, gop=20, b_frames=0)
    content = path.read_bytes()
    at = content.index(b"stss") + 12
    assert struct.unpack_from(">2I", content, at) == (1, 21)
    path.write_bytes(content[:at] + struct.pack(">2I", 1, 15) + content[at + 8 :])
    with open_video(path, "pyav") as video:
        np.testing.assert_array_equal(video.frames([16, 25]), truth[[16, 25]])


def test_sound_between_the_frames_is_not_read_as_one(tmp_path: Path) -> None:
    path, _, truth = plain(tmp_path, frames=40, audio=True)
    with open_video(path, "pyav") as video:
        assert type(video) is Direct
        np.testing.assert_array_equal(video.frames(range(40)), truth)


def test_interlaced_files_are_read_by_pyav_whatever_is_asked_for(tmp_path: Path) -> None:
    options = {"preset": "fast", "x264-params": "keyint=8:interlaced=1"}
    path, _, truth = plain(tmp_path, frames=20, width=64, height=64, options=options)
    assert probe(str(path)).quirks == ("interlaced",)
    for decoder in (name for name in ORDER if available(name)):
        with open_video(path, decoder) as video:
            np.testing.assert_array_equal(video.frames([3, 11]), truth[[3, 11]])


def test_a_file_that_goes_while_it_is_open_is_named(tmp_path: Path) -> None:
    path, _, _ = plain(tmp_path)
    with open_video(path, "pyav") as video:
        path.unlink()
        with pytest.raises(VideoError, match=r"a\.mp4: cannot be read as a video \(No such file"):
            video.frames([3])
