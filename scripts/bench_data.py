"""Measures the data pipeline against the bare decode of the frames it needs, in one thread, on 10-second videos.

    python scripts/bench_data.py [--decoder decord|torchcodec|pyav] [--rounds 9]

Renders two H.264 videos (340 x 256, 300 frames, key frames every 12 and every 250) and times, in turns:
- test: the 4 clips x 3 crops of a test video, against decoding that video once from start to end;
- pretrain: one sample (multi-scale crop, flip, mask noise), against decoding its 8 frames;
- finetune: one sample of 2 copies (RandAugment, random resized crop, erasing), against decoding its 8 frames.
A ratio is the median of the ratios of neighbours in time, so that a machine that changes its pace does not count. The
ratio of CPU time counts all threads (decord decodes in one and converts colours in another) and ignores other programs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from umt.data import clips, sampling
from umt.data.annotations import VideoList
from umt.data.decoders import DECODERS
from umt.data.loaders import collate
from umt.data.reader import choose
from umt.data.transforms.erasing import draw_erase_box
from umt.data.transforms.pipelines import FinetuneTransform, PretrainTransform, TestTransform
from umt.randomness import generator


def render(path: Path, gop: int) -> None:
    """A drifting texture with noise, which costs about as much to decode as filmed video at Kinetics' bit rates."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (512, 680, 3), dtype=np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    params = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0"
    with av.open(str(path), "w") as container:
        options = {"preset": "medium", "crf": "23", "threads": "2", "x264-params": params}
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
        for number in range(300):
            x, y = int(100 + 90 * np.sin(number / 23)), int(100 + 90 * np.cos(number / 31))
            image = texture[y : y + 256, x : x + 340].astype(np.int16) + rng.integers(-3, 4, (256, 340, 1))
            frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode(decoder: str, path: str, indices: np.ndarray) -> None:
    """The bare decode: open, fetch, close; no look at the packets, no transform."""
    with DECODERS[decoder](path, None) as video:
        video.frames(indices)


def compare(work: Callable[[], object], bare: Callable[[], object], rounds: int) -> list[float]:
    """Medians, in turns: wall milliseconds of `work` and of `bare`, their wall ratio, their ratio of CPU time."""
    times = []
    for turn in range(rounds + 1):
        pair = []
        for call in (work, bare) if turn % 2 else (bare, work):
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            pair.append((1e3 * (time.perf_counter() - wall), time.process_time() - cpu))
        times.append(pair if turn % 2 else pair[::-1])
    times = times[1:]  # the first round warms up
    columns = zip(
        *((ours[0], theirs[0], ours[0] / theirs[0], ours[1] / theirs[1]) for ours, theirs in times), strict=True
    )
    return [statistics.median(column) for column in columns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoder", default="auto")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    decoder = choose(options.decoder)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    print(f"command: python {' '.join(sys.argv)}")
    print(
        f"machine: {cpu}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, OpenCV {cv2.__version__}, PyAV {av.__version__}, decoder {decoder}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for gop in (12, 250):
            path = str(Path(folder) / f"gop{gop}.mp4")
            render(Path(path), gop)
            print(f"\n10 s, 340 x 256, 30 frames/s, key frame every {gop}, {os.path.getsize(path) // 1024} KiB")
            for line in measure(path, decoder, options.rounds):
                print(line)


def measure(path: str, decoder: str, rounds: int) -> list[str]:
    """One line per kind of sample."""
    videos = clips.Videos(VideoList(path, [path], [0]), decoder)
    length = 300
    pretrain = clips.TrainClips(
        videos, clips.training_sampler("pretrain_sparse", 8), PretrainTransform(224, flip=True), noise_shape=(8, 196)
    )
    finetune = clips.TrainClips(
        videos,
        clips.training_sampler("sparse", 8),
        FinetuneTransform(224),
        copies=2,
        erase=partial(draw_erase_box, probability=0.25),
    )
    test = clips.ViewClips(videos, clips.views_sampler("sparse", 8, 4), TestTransform(224, 3))
    lines = []
    whole = np.arange(length)
    cases = [
        (
            "test 4 x 3 views / whole video",
            lambda: collate(*test.read(0, 0)),
            lambda: decode(decoder, path, whole),
            1.3,
        ),
        (
            "pretrain sample / its 8 frames",
            lambda: collate(*pretrain.read(0, 0)),
            lambda: decode(decoder, path, sampling.pretrain_sparse(length, 8, generator(0, 0, 0, "frames"))),
            1.2,
        ),
        (
            "finetune sample (2 copies) / its 8 frames",
            lambda: collate(*finetune.read(0, 0)),
            lambda: decode(decoder, path, sampling.sparse_train(length, 8, generator(0, 0, 0, "frames"))),
            None,
        ),
    ]
    for name, work, bare, target in cases:
        ours, theirs, ratio, cpu = compare(work, bare, rounds)
        aim = "" if target is None else f"  target {target}: {'met' if ratio <= target else 'MISSED'}"
        lines.append(f"{name:<44}{ours:8.1f} ms /{theirs:8.1f} ms = {ratio:5.2f}, CPU time {cpu:5.2f}{aim}")
    return lines


if __name__ == "__main__":
    main()
