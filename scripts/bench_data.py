"""Measures what a sample costs on one core, beside the bare decode of the frames that it needs.

    python scripts/bench_data.py [--decoder pyav|torchcodec|decord] [--samples 30] [--rounds 3] [--gpu_clips_per_s 200]
    python scripts/bench_data.py --video my.mp4

Renders H.264 files of Kinetics' form (340 x 256, 300 frames, 30 frames/s, key frames every 12 and every 250), or takes
yours, and makes samples as a loader's process does, collated, each with draws of its own:
- pretraining: 8 frames, multi-scale crop, flip, mask noise;
- finetuning: 8 frames, random resized crop, flip, erasing; and 2 copies of it with RandAugment;
- testing: 4 clips x 3 crops of 8 frames, against decoding the whole video once, and against decoding their frames.
The process is bound to one core. Times are CPU time of all its threads, so that other programs do not count. A sample
and its bare decode (open, fetch, close, by the same reader) are timed next to each other, `--rounds` times in turns; of
each the fastest counts. Ratios are of sums over all samples, in brackets of wall time; percentiles are of all times.
Where wall time is much longer than CPU time the process waited: for the disk, or for other programs. `--json FILE`
writes the same numbers for programs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from bench_decode import render

from umt.data import sampling
from umt.data.lists.video_list import VideoList
from umt.data.loading.clip_batch import collate
from umt.data.loading.clips import TrainClips, Videos, ViewClips
from umt.data.loading.memory import keep_freed_memory
from umt.data.transforms.erasing import draw_erase_box
from umt.data.transforms.pipelines import FinetuneTransform, PretrainTransform, TestTransform
from umt.data.video.reader import ORDER, available, choose, open_video
from umt.randomness import generator

HEADINGS = (
    "sample",
    "ms",
    "bare decode",
    "ratio (wall)",
    "aim",
    "p50 / p95 / p99 ms",
    "clips/s a core",
    "where time goes",
)


@dataclass
class Timed:
    """A transform that counts its seconds."""

    transform: Callable[..., Any]
    seconds: float = 0.0

    def __call__(self, *arguments: Any) -> Any:
        start = time.process_time()
        made = self.transform(*arguments)
        self.seconds += time.process_time() - start
        return made


@dataclass
class Case:
    """One kind of sample: `read(epoch)` makes it, `frames(epoch, length)` are the frame numbers that it decodes."""

    name: str
    read: Callable[[int], Any]
    frames: Callable[[int, int], np.ndarray]
    clips: int
    aim: float | None
    transform: Timed
    collating: float = 0.0

    def make(self, epoch: int) -> None:
        samples = self.read(epoch)
        start = time.process_time()
        collate(*samples)
        self.collating += time.process_time() - start


@dataclass
class Result:
    """Milliseconds of CPU time but for the ratios, shares (of the sample's time) and clips per second of one core."""

    video: str
    decoder: str
    sample: str
    milliseconds: float
    decode: float
    ratio: float
    wall_ratio: float
    aim: float | None
    percentiles: list[float]
    clips_per_s: float
    waited: float  # share of the wall time
    shares: dict[str, float]

    @property
    def limit(self) -> str:
        """What takes the most, and whether waiting takes more."""
        most = max(self.shares, key=lambda part: self.shares[part])
        return most if self.waited < 0.5 else f"{most}; waited {100 * self.waited:.0f} % of the time"

    def cells(self) -> list[str]:
        met = "" if self.aim is None else f"{self.aim} {'met' if self.ratio <= self.aim else 'MISSED'}"
        return [
            self.sample,
            f"{self.milliseconds:.1f}",
            f"{self.decode:.1f}",
            f"{self.ratio:.2f} ({self.wall_ratio:.2f})",
            met,
            " / ".join(f"{value:.1f}" for value in self.percentiles),
            f"{self.clips_per_s:.0f}",
            ", ".join(f"{part} {100 * share:.0f} %" for part, share in self.shares.items()),
        ]


def cases(path: str, decoder: str) -> list[Case]:
    """The five kinds of samples, of one video."""
    videos = Videos(VideoList(path, [path], [0]), decoder)
    pretraining, sparse = sampling.training_sampler("pretrain_sparse", 8), sampling.training_sampler("sparse", 8)
    views = sampling.views_sampler("sparse", 8, 4)
    made = []

    def drawn(sampler: Callable[..., np.ndarray], epoch: int, length: int) -> np.ndarray:
        return sampler(length, rng=generator(0, epoch, 0, "frames"))

    for name, sampler, transform, copies, aim, more in (
        ("pretraining", pretraining, PretrainTransform(224, flip=True), 1, 1.15, {"noise_shape": (8, 196)}),
        ("finetuning, no RandAugment", sparse, FinetuneTransform(224, auto_augment=""), 1, 1.25, {}),
        ("finetuning, RandAugment, 2 copies", sparse, FinetuneTransform(224), 2, 1.5, {}),
    ):
        timed = Timed(transform)
        options: dict[str, Any] = {"erase": partial(draw_erase_box, probability=0.25), **more}
        if more:
            options["erase"] = None
        data = TrainClips(videos, sampler, timed, copies=copies, **options)
        made.append(Case(name, partial(data.read, row=0), partial(drawn, sampler), copies, aim, timed))
    for name, frames, goal in (
        ("12 test views / whole video", lambda epoch, length: np.arange(length), 1.2),
        ("12 test views / their frames", lambda epoch, length: np.unique(views(length)), None),
    ):
        timed = Timed(TestTransform(224, 3))
        made.append(Case(name, partial(ViewClips(videos, views, timed).read, row=0), frames, 12, goal, timed))
    return made


def decode(path: str, decoder: str, frames: Callable[[int], np.ndarray]) -> None:
    """Open, fetch, close; `frames` of the video's length."""
    with open_video(path, decoder) as video:
        video.frames(frames(len(video)))


def measure(case: Case, path: str, decoder: str, samples: int, rounds: int) -> Result:
    """Times `samples` samples, with other draws each, and their bare decodes."""
    wall, cpu = np.empty((2, samples, rounds)), np.empty((2, samples, rounds))
    works: list[Callable[[int], None]] = [
        case.make,
        lambda epoch: decode(path, decoder, partial(case.frames, epoch)),
    ]
    for work in works:
        work(samples)  # warms up: imports timm, for one
    case.transform.seconds = case.collating = 0.0
    for epoch in range(samples):
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 else (1, 0):
                start = time.perf_counter(), time.process_time()
                works[which](epoch)
                wall[which, epoch, turn] = time.perf_counter() - start[0]
                cpu[which, epoch, turn] = time.process_time() - start[1]
    total, best, best_wall = cpu[0].sum(), 1e3 * cpu.min(-1).sum(-1), wall.min(-1).sum(-1)
    shares = {"augmenting": case.transform.seconds / total, "collating": case.collating / total}
    return Result(
        video=Path(path).stem,
        decoder=decoder,
        sample=case.name,
        milliseconds=best[0] / samples,
        decode=best[1] / samples,
        ratio=best[0] / best[1],
        wall_ratio=best_wall[0] / best_wall[1],
        aim=case.aim,
        percentiles=np.percentile(1e3 * cpu[0], (50, 95, 99)).tolist(),
        clips_per_s=1e3 * case.clips * samples / best[0],
        waited=max(1 - total / wall[0].sum(), 0),
        shares={"decoding": 1 - sum(shares.values()), **shares},
    )


def one_core() -> None:
    """Binds this process to one core, decoders' threads included, and sets it up as a worker."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    keep_freed_memory()


def about() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    names = {"torch": torch.__version__, "OpenCV": cv2.__version__}
    names |= {name: version(package) for name, package in (("PyAV", "av"), ("Pillow", "pillow"), ("timm", "timm"))}
    names |= {name: version(name) for name in ("torchcodec", "decord") if available(name)}
    return (
        f"{cpu}, one of {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
        + ", ".join(f"{name} {number}" for name, number in names.items())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoder", default="all")
    parser.add_argument("--video", action="append", default=[], help="a video of yours instead of the rendered ones")
    parser.add_argument("--gops", type=int, nargs="+", default=[12, 250], help="key frames of the rendered videos")
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu_clips_per_s", type=float, default=200, help="what one GPU takes: see the log of a run")
    parser.add_argument("--json")
    options = parser.parse_args()
    one_core()
    decoders = [d for d in ORDER if available(d)] if options.decoder == "all" else [choose(options.decoder)]
    print(f"command: python {' '.join(sys.argv)}\nmachine: {about()}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        files = options.video or [
            str(render(Path(folder) / f"gop{gop}.mp4", keyint=gop, min_keyint=gop)) for gop in options.gops
        ]
        for path in files:
            for decoder in decoders:
                print(f"\n{Path(path).name}, {os.path.getsize(path) // 1024} KiB, {decoder}")
                print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
                for case in cases(path, decoder):
                    result = measure(case, path, decoder, options.samples, options.rounds)
                    results.append(result)
                    print(f"| {' | '.join(result.cells())} |", flush=True)
    print(f"\nCores that one GPU of {options.gpu_clips_per_s:g} clips/s needs, and what limits them:")
    print("| video | decoder | sample | cores | limited by |\n|---|---|---|---|---|")
    for result in results:
        cores = math.ceil(options.gpu_clips_per_s / result.clips_per_s)
        print(f"| {result.video} | {result.decoder} | {result.sample} | {cores} | {result.limit} |")
    if options.json:
        Path(options.json).write_text(json.dumps([dataclasses.asdict(result) for result in results], indent=1))


if __name__ == "__main__":
    main()
