"""--decoder torchcodec-cuda: the GPU's video decoder where there is one, and a sentence where there is none."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.videos import render
from umt.data.video.decoders import TorchCodecCuda
from umt.data.video.reader import available, choose, open_video
from umt.errors import ConfigError, VideoError

# The GPU converts colours in its own arithmetic: levels of 255 by which frames may differ from the CPU's.
MEAN, MOST = 2.0, 12.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--decoder \(torchcodec-cuda\): .* does not work on this machine. It needs"):
        choose("torchcodec-cuda")
    with pytest.raises(ConfigError, match="does not work on this machine"):
        open_video(render(tmp_path / "a.mp4"), "torchcodec-cuda")


@pytest.mark.skipif(torch.cuda.is_available() or not available("torchcodec"), reason="wants torchcodec and no GPU")
def test_a_process_that_cannot_use_the_gpu_says_so_instead_of_reading_otherwise(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not work in this process \(.*\)\. It needs workers"):
        TorchCodecCuda(str(render(tmp_path / "a.mp4")))
    (tmp_path / "b.mp4").write_text("<html>")
    with pytest.raises(VideoError, match=r"b\.mp4: cannot be read as a video"):
        TorchCodecCuda(str(tmp_path / "b.mp4"))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    if not available("torchcodec-cuda"):
        pytest.skip("torchcodec does not work on this machine")
    return render(tmp_path / "a.mp4", frames=40, width=320, height=256)


def read(path: str) -> np.ndarray:
    with open_video(path, "torchcodec-cuda") as opened:
        assert isinstance(opened, TorchCodecCuda)
        return opened.frames(range(0, 40, 3))


def read_into(pipe: object, path: str) -> None:
    try:
        pipe.send(read(path))  # type: ignore[attr-defined]
    except ConfigError as error:
        pipe.send(str(error))  # type: ignore[attr-defined]


@pytest.mark.gpu
def test_its_frames_are_the_cpus_within_the_tolerance(video: Path) -> None:
    with open_video(video, "pyav") as opened:
        truth = opened.frames(range(40)).astype(int)
    frames = read(str(video))
    errors = np.abs(frames[:, None] - truth[None]).mean((2, 3, 4))
    np.testing.assert_array_equal(errors.argmin(1), np.arange(0, 40, 3))
    difference = np.abs(frames - truth[::3])
    assert difference.mean() < MEAN
    assert np.percentile(difference, 99) < MOST


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_spawned_worker_decodes_on_the_gpu_and_a_forked_one_says_why_not(video: Path, method: str) -> None:
    torch.zeros(1, device="cuda")  # as a training process has done before it starts its workers
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    child = context.Process(target=read_into, args=(there, str(video)))
    child.start()
    assert here.poll(120)
    answer = here.recv()
    child.join()
    if method == "fork":
        assert "wants workers that are" in answer
    else:
        assert answer.shape == (14, 256, 320, 3)
