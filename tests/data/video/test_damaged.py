"""Whatever a file holds, a reader gives frames or a sentence: a sample of the fuzz, and what the whole has found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.damaged import boxes
from tests.end_to_end.conftest import environment
from tests.videos import picture, played, render
from umt.data.video import h264
from umt.data.video.reader import ORDER, available, open_video
from umt.errors import VideoError

ROOT = Path(__file__).parents[3]


def fuzz(*words: str) -> str:
    command = [sys.executable, "scripts/fuzz_videos.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_sample_of_damaged_files_is_decoded_or_named() -> None:
    output = fuzz("--files", "300", "--seed", "1", "--decoders", "auto")
    assert "300 files x 1 decoders" in output
    assert ": 0 neither decoded nor named" in output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_thousand_damaged_files_are_decoded_or_named_by_every_decoder() -> None:
    assert ": 0 neither decoded nor named" in fuzz("--files", "2000", "--seed", "2")


decoders = pytest.mark.parametrize("decoder", [name for name in ORDER if available(name)])


@decoders
def test_an_unknown_codec_is_named(decoder: str, tmp_path: Path) -> None:
    path = render(tmp_path / "v.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1"))
    with pytest.raises(VideoError, match=r"v\.mp4: cannot be read as a video \(its codec is not known\)"):
        open_video(path, decoder)


@decoders
def test_a_lost_codec_header_is_named(decoder: str, tmp_path: Path) -> None:
    path = render(tmp_path / "v.mp4")
    path.write_bytes(path.read_bytes().replace(b"avcC", b"xxxx"))
    with pytest.raises(VideoError, match=r"v\.mp4: cannot be read as a video"), open_video(path, decoder) as video:
        video.frames([0])


@pytest.fixture(scope="module")
def enormous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 kB that ask for 200 MB a frame."""
    return render(tmp_path_factory.mktemp("enormous") / "v.mp4", frames=1, width=8256, height=8256)


@decoders
@pytest.mark.slow
def test_a_small_file_of_enormous_frames_is_named(decoder: str, enormous: Path) -> None:
    with pytest.raises(VideoError, match=r"v\.mp4: .* \(its frames are 8256 x 8256, more than 64 Mi pixels\)"):
        open_video(enormous, decoder)


@decoders
@pytest.mark.slow
def test_enormous_frames_behind_a_small_size_are_not_made(decoder: str, enormous: Path, tmp_path: Path) -> None:
    data = bytearray(enormous.read_bytes())
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    assert data[at : at + 4] == bytes([0x20, 0x40, 0x20, 0x40])
    data[at : at + 4] = bytes([0, 64, 0, 64])
    (tmp_path / "v.mp4").write_bytes(bytes(data))
    with pytest.raises(VideoError, match=r"v\.mp4: cannot be read"), open_video(tmp_path / "v.mp4", decoder) as video:
        video.frames([0])


def test_a_packet_without_a_start_code_has_no_parts() -> None:
    assert list(h264.parts(b"\0\0\2\1 and so on", None)) == []
    assert not h264.is_intra(b"", None)


@decoders
def test_a_title_in_latin_1_is_no_damage(decoder: str, tmp_path: Path) -> None:
    # Matroska, whose probe reads all of it; a stream copy may bring such a title from anywhere.
    path = render(tmp_path / "v.mkv")
    with av.open(str(path)) as old, av.open(str(tmp_path / "titled.mkv"), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        new.metadata["title"] = "a-title-of-Andre"
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    data = (tmp_path / "titled.mkv").read_bytes()
    assert b"Andre" in data
    (tmp_path / "titled.mkv").write_bytes(data.replace(b"Andre", b"Andr\xe9"))
    with open_video(tmp_path / "titled.mkv", decoder) as video:
        np.testing.assert_array_equal(video.frames(range(len(video))), played(path))


@decoders
def test_an_index_that_claims_billions_of_frames_costs_no_memory(decoder: str, tmp_path: Path) -> None:
    path = render(tmp_path / "v.mp4")
    data = bytearray(path.read_bytes())
    (at,) = (at for kind, at, _ in boxes(bytes(data)) if kind == b"stts")
    data[at + 16 : at + 20] = (1 << 31).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    with open_video(path, decoder) as video:
        assert video.frames([0, len(video) - 1]).shape == (2, 48, 64, 3)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_a_picture_that_is_called_a_video_is_named(ending: str, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "v.mp4"
    path.write_bytes(cv2.imencode(ending, picture(0, 64, 48))[1].tobytes())
    with pytest.raises(VideoError, match=r"v\.mp4: cannot be read as a video \(a picture, not a video\)"):
        open_video(path)


@decoders
@pytest.mark.timeout(20)
def test_a_pipe_is_named_and_not_waited_for(decoder: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(VideoError, match="a pipe or device, not a file"):
        open_video(tmp_path / "v.mp4", decoder)


def test_a_list_of_other_files_is_not_followed(tmp_path: Path) -> None:
    render(tmp_path / "other.mp4")
    (tmp_path / "v.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/other.mp4'\n")
    with pytest.raises(VideoError, match=r"v\.mp4: cannot be read as a video"):
        open_video(tmp_path / "v.mp4")
