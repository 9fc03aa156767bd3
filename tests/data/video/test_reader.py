"""Readers: every file gives the frames that a player shows, in any order, whichever decoder is asked for.

The truth is a full decode from start to end, in order (`tests.videos.played`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.videos import cut, picture, played, render, rotate
from umt.data.video.decoders import Decord, TorchCodec
from umt.data.video.mp4 import plain_index
from umt.data.video.probe import probe
from umt.data.video.pyav_readers import Direct, PyAV
from umt.data.video.reader import ORDER, available, choose, open_folder, open_video
from umt.errors import ConfigError, VideoError

WORKING = [
    pytest.param(n, marks=[] if available(n) else pytest.mark.skip(reason=f"{n} does not work on this machine"))
    for n in ORDER
]
BROKEN_BY_SOME = {
    "edit_list": lambda d: cut(render(d / "a.mp4", frames=30), d / "b.mp4", start=7),
    "open_gop": lambda d: render(d / "a.mp4", frames=40, open_gop=True),
    "cut_open_gop": lambda d: cut(render(d / "a.mp4", frames=40, open_gop=True), d / "b.mp4", start=17),
    "10_bit": lambda d: render(d / "a.mp4", pix_fmt="yuv420p10le"),
    "422": lambda d: render(d / "a.mp4", pix_fmt="yuv422p"),
    "odd_size": lambda d: render(d / "a.webm", width=65, height=49, codec="libvpx-vp9", options={"cpu-used": "8"}),
    "rotated_90": lambda d: rotate(render(d / "a.mp4"), 90),
    "rotated_270": lambda d: rotate(render(d / "a.mp4"), 270),
    "avi_b_frames": lambda d: render(d / "a.avi"),
    "mpeg_ts": lambda d: render(d / "a.ts"),
    "mpeg_ps": lambda d: render(d / "a.mpg", codec="mpeg2video", options={"bf": "2"}),
}
PLAIN = {
    "b_frames": lambda d: render(d / "a.mp4", b_frames=2),
    "no_b_frames": lambda d: render(d / "a.mp4", b_frames=0),
    "long_gop": lambda d: render(d / "a.mp4", gop=250),
    "cut_at_a_key_frame": lambda d: cut(render(d / "a.mp4"), d / "b.mp4", start=12),
    "late_start": lambda d: render(d / "a.mp4", pts=[i + 20 for i in range(30)]),
    "variable_rate": lambda d: render(d / "a.mp4", pts=[i + 3 * (i // 5) for i in range(30)]),
    "with_sound": lambda d: render(d / "a.mp4", audio=True),
    "matroska": lambda d: render(d / "a.mkv"),
}
Make = Callable[[Path], Path]


def shuffled(path: Path, decoder: str) -> np.ndarray:
    """Every frame, fetched one by one in a random order."""
    with open_video(path, decoder) as video:
        order = np.random.default_rng(0).permutation(len(video))
        return np.concatenate([video.frames([i]) for i in order])[np.argsort(order)]


@pytest.mark.parametrize("decoder", WORKING)
@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_a_plain_file_is_read_by_the_decoder_asked_for_bit_for_bit(tmp_path: Path, make: Make, decoder: str) -> None:
    path = make(tmp_path)
    assert probe(str(path)).quirks == ()
    truth = played(path)
    index = plain_index(str(path))
    assert index is None or len(index) == len(truth)
    with open_video(path, decoder) as video:
        pyav = PyAV if index is None else Direct
        assert type(video) is {"decord": Decord, "torchcodec": TorchCodec, "pyav": pyav}[decoder]
        np.testing.assert_array_equal(video.frames(range(len(video))), truth)
        np.testing.assert_array_equal(video.frames(range(0, len(video), 9)), truth[::9])
    np.testing.assert_array_equal(shuffled(path, decoder), truth)


@pytest.mark.parametrize("make", BROKEN_BY_SOME.values(), ids=BROKEN_BY_SOME)
def test_a_file_that_fast_decoders_get_wrong_is_found_and_read_right(tmp_path: Path, make: Make) -> None:
    path = make(tmp_path)
    assert probe(str(path)).quirks
    assert plain_index(str(path)) is None
    truth = played(path)
    for decoder in ("auto", "decord") if available("decord") else ("auto",):
        np.testing.assert_array_equal(shuffled(path, decoder), truth)
    with open_video(path) as video:
        np.testing.assert_array_equal(video.frames(range(0, len(video), 9)), truth[::9])


@pytest.mark.skipif(not available("decord"), reason="decord does not work on this machine")
def test_decord_alone_would_show_the_frames_that_an_edit_list_hides(tmp_path: Path) -> None:
    path = cut(render(tmp_path / "a.mp4", frames=30), tmp_path / "b.mp4", start=7)
    with Decord(str(path)) as wrong:
        assert (len(wrong), len(played(path))) == (30, 23)


@pytest.mark.skipif(not available("decord"), reason="decord does not work on this machine")
def test_decord_alone_would_give_other_frames_of_open_groups(tmp_path: Path) -> None:
    path, order = render(tmp_path / "a.mp4", frames=40, open_gop=True), np.random.default_rng(0).permutation(40)
    with Decord(str(path)) as wrong:
        assert not np.array_equal(np.concatenate([wrong.frames([i]) for i in order]), played(path)[order])


@pytest.mark.parametrize("options", [{"b_frames": 2}, {"b_frames": 0}, {"audio": True}])
def test_an_ordinary_file_is_known_as_such_from_its_index_alone(tmp_path: Path, options: dict[str, int]) -> None:
    index = plain_index(str(render(tmp_path / "a.mp4", frames=17, **options)))  # type: ignore[arg-type]
    assert index is not None
    assert len(index) == 17


def test_a_rotated_video_stands_upright(tmp_path: Path) -> None:
    plain = render(tmp_path / "a.mp4", width=64, height=48)
    turned = rotate(Path(shutil.copy(plain, tmp_path / "b.mp4")), 90)
    with open_video(turned) as video, open_video(plain) as original:
        np.testing.assert_array_equal(video.frames([3])[0], np.rot90(original.frames([3])[0], -1))


def test_the_frames_are_those_that_were_rendered(tmp_path: Path) -> None:
    with open_video(render(tmp_path / "a.mp4", frames=9, options={"crf": "1"})) as video:
        for number, frame in enumerate(video.frames(range(9))):
            errors = [np.abs(frame.astype(int) - picture(other, 64, 48)).mean() for other in range(9)]
            assert int(np.argmin(errors)) == number


def test_indices_may_repeat_and_come_in_any_order(tmp_path: Path) -> None:
    path = render(tmp_path / "a.mp4")
    for decoder in (d for d in ORDER if available(d)):
        with open_video(path, decoder) as video:
            np.testing.assert_array_equal(video.frames([7, 2, 7]), played(path)[[7, 2, 7]])


def test_an_index_outside_the_video_is_an_error(tmp_path: Path) -> None:
    with open_video(render(tmp_path / "a.mp4", frames=5)) as video, pytest.raises(IndexError, match="of 5"):
        video.frames([5])


def test_a_file_that_a_decoder_cannot_open_is_read_by_pyav(tmp_path: Path) -> None:
    if not available("decord"):
        pytest.skip("decord does not work on this machine")
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this PyAV cannot write AV1, which decord cannot read")
    path = render(tmp_path / "a.mp4", codec="libsvtav1", frames=5, options={"preset": "12"})
    with open_video(path, "decord") as video:
        assert isinstance(video, PyAV)
        np.testing.assert_array_equal(video.frames(range(5)), played(path))


def faststart(path: Path) -> bytes:
    """The file with its index in front, so that what is cut off is frames."""
    moved = path.with_name("front.mp4")
    with av.open(str(path)) as old, av.open(str(moved), "w", options={"movflags": "+faststart"}) as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    return moved.read_bytes()


def scrambled(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(255 - b for b in content[middle : middle + 1500]) + content[middle + 1500 :]


UNREADABLE = {
    "missing": (lambda d: None, "no such file; is --prefix right"),
    "empty": (lambda d: (d / "x.mp4").write_bytes(b""), "0 bytes"),
    "web_page": (lambda d: (d / "x.mp4").write_text("<html>404</html>" * 99), "Invalid data"),
    "folder": (lambda d: (d / "x.mp4").mkdir(), "a folder, not a file"),
    "no_index": (lambda d: (d / "x.mp4").write_bytes(render(d / "a.mp4").read_bytes()[:9000]), "Invalid data"),
    "truncated": (lambda d: (d / "x.mp4").write_bytes(faststart(render(d / "a.mp4"))[:-3000]), "truncated"),
    "last_bytes_missing": (lambda d: (d / "x.mp4").write_bytes(faststart(render(d / "a.mp4"))[:-3]), "truncated"),
    "damaged": (lambda d: (d / "x.mp4").write_bytes(scrambled(faststart(render(d / "a.mp4")))), "damaged"),
}


@pytest.mark.parametrize("decoder", WORKING)
@pytest.mark.parametrize(("make", "cause"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_named_with_its_cause(
    tmp_path: Path, make: Callable[[Path], object], cause: str, decoder: str
) -> None:
    make(tmp_path)
    with pytest.raises(VideoError, match=rf"x\.mp4: cannot be read as a video \({cause}"):  # noqa: SIM117
        with open_video(tmp_path / "x.mp4", decoder) as video:
            video.frames(range(len(video)))


def test_a_file_with_sound_only_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="it has no video stream"):
        open_video(path)


def test_an_unknown_decoder_is_refused() -> None:
    known = "auto, pyav, torchcodec, decord, torchcodec-cuda"
    with pytest.raises(ConfigError, match=rf"--decoder \(opencv\) must be one of {known}"):
        choose("opencv")


def test_auto_takes_the_first_decoder_that_works() -> None:
    assert choose("auto") == next(name for name in ORDER if available(name))


def frame_folder(folder: Path, count: int, size: tuple[int, int] = (20, 24)) -> Path:
    for number in range(1, count + 1):
        cv2.imwrite(str(folder / f"img_{number:05}.jpg"), np.full((*size, 3), (10 * number, 0, 0), np.uint8))  # blue
    return folder


def test_frame_folders_count_from_one_and_give_rgb(tmp_path: Path) -> None:
    with open_folder(frame_folder(tmp_path, 5), length=5) as video:
        frames = video.frames([0, 4])
    assert frames.shape == (2, 20, 24, 3)
    np.testing.assert_allclose(frames[:, 0, 0], [[0, 0, 10], [0, 0, 50]], atol=2)


def test_frame_folders_without_a_known_length_take_all_images_by_name(tmp_path: Path) -> None:
    (frame_folder(tmp_path, 3) / "img_00002.jpg").unlink()
    with open_folder(tmp_path, template=None) as video:
        assert len(video) == 2
        np.testing.assert_allclose(video.frames([1])[0, 0, 0], [0, 0, 30], atol=2)


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    with open_folder(frame_folder(tmp_path, 3), length=4) as video:  # noqa: SIM117
        with pytest.raises(VideoError, match=r"img_00004\.jpg: cannot be read"):
            video.frames([3])


def test_a_missing_frame_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        VideoError, match=r"nowhere: cannot be read as a folder of frames \(no such folder; is --prefix"
    ):
        open_folder(tmp_path / "nowhere", 3)


def test_frames_of_different_sizes_are_no_video(tmp_path: Path) -> None:
    frame_folder(tmp_path, 2)
    cv2.imwrite(str(tmp_path / "img_00002.jpg"), np.zeros((8, 8, 3), np.uint8))
    with open_folder(tmp_path, 2) as video, pytest.raises(VideoError, match="differ in size"):
        video.frames([0, 1])
