"""Measures what reading a few frames of a video costs, with every decoder, and what sets that cost.

    python scripts/bench_decode.py [--part decoders|cost|memory] [--rounds 40] [--gpu_clips 100 400 1600]

Renders H.264 files of Kinetics' form (10 s, 30 frames/s, 340 x 256; and 1920 x 1080) with textures, a moving camera,
moving things and sensor noise. A read is: open, fetch, close. Times are CPU time of all threads of the process, so that
other programs on the machine do not count; readers take turns.
- decoders: 8 and 16 sparse frames (another draw each round) and the frames of 12 views, key frames every 12 and 250;
- cost: 8 sparse frames while one thing about the file, or the way of reading, is changed at a time;
- memory: the resident size of one process over --reads reads with each decoder.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from umt.data import sampling
from umt.data.video import h264
from umt.data.video.pyav_readers import PyAV
from umt.data.video.reader import ORDER, available, open_video
from umt.randomness import generator

LENGTH = 300
Read = Callable[[np.ndarray], object]


def pictures(width: int, height: int, count: int = LENGTH, noise: int = 2) -> Iterator[np.ndarray]:
    """A scene with detail at every scale, filmed by a hand-held camera, with six things that move through it."""
    rng = np.random.default_rng(0)
    side = 2 * max(width, height)
    scene = np.zeros((side, side, 3), np.float32)
    for octave in range(2, 8):
        cells = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        scene += cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC) * 2.0**-octave * 130
    scene = np.clip(128 + scene, 0, 255).astype(np.uint8)
    things = [cv2.resize(scene[i * 40 :: 7, i * 30 :: 5], (height // 4, height // 3)) for i in range(6)]
    grain = rng.integers(-noise, noise + 1, (8, height, width, 1), dtype=np.int16)
    for number in range(count):
        t = number / 30
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), 3 * np.sin(t), 1 + 0.1 * np.sin(0.7 * t))
        turn[:, 2] += (
            width / 2 - side / 2 + 0.2 * width * np.sin(0.9 * t),
            height / 2 - side / 2 + 0.1 * height * np.cos(1.3 * t),
        )
        image = cv2.warpAffine(scene, turn, (width, height))
        for i, thing in enumerate(things):
            h, w = thing.shape[:2]
            x = int((width - w) * (0.5 + 0.5 * np.sin((0.5 + 0.3 * i) * t + i)))
            y = int((height - h) * (0.5 + 0.5 * np.cos((0.8 - 0.1 * i) * t + 2 * i)))
            image[y : y + h, x : x + w] = 255 - thing
        yield np.clip(image + grain[number % 8], 0, 255).astype(np.uint8)


def render(
    path: Path, width: int = 340, height: int = 256, noise: int = 2, preset: str = "medium", **x264: object
) -> Path:
    """A file with the encoder settings `x264`, over key frames every 12, no more, closed groups."""
    settings: dict[str, object] = {"keyint": 12, "min-keyint": 1, "scenecut": 0, "open-gop": 0, "crf": 23, **x264}
    params = ":".join(f"{name.replace('_', '-')}={value}" for name, value in settings.items())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": preset, "x264-params": params})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, image in enumerate(pictures(width, height, noise=noise)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def reader(path: Path, decoder: str) -> Read:
    """Opens, fetches, closes."""

    def read(indices: np.ndarray) -> object:
        with open_video(path, decoder) as video:
            return video.frames(indices)

    return read


def in_turns(reads: dict[str, Read], draws: list[np.ndarray]) -> dict[str, np.ndarray]:
    """CPU milliseconds of every reader for every draw; the first draw is read once before."""
    times: dict[str, list[float]] = {name: [] for name in reads}
    for number, draw in enumerate([draws[0], *draws]):
        for name in sorted(reads, reverse=bool(number % 2)):
            start = time.process_time()
            reads[name](draw)
            times[name].append(1e3 * (time.process_time() - start))
    return {name: np.array(values[1:]) for name, values in times.items()}


def sparse(frames: int, rounds: int) -> list[np.ndarray]:
    """What training asks for: one random frame of each segment."""
    return [sampling.sparse_train(LENGTH, frames, generator(0, n, 0, "frames")) for n in range(rounds)]


def decoders(folder: Path, rounds: int, gpu_clips: list[int]) -> None:
    best: dict[str, float] = {}
    for width, height in ((340, 256), (1920, 1080)):
        for gop in (12, 250):
            few = max(rounds // 8, 3)
            path = render(folder / "a.mp4", width, height, keyint=gop, preset="medium" if height < 1000 else "veryfast")
            print(f"\n{width} x {height}, key frame every {gop}, {path.stat().st_size >> 10} KiB; CPU ms: p50 p95 p99")
            for what, draws in (
                ("8 frames", sparse(8, rounds if height < 1000 else few)),
                ("16 frames", sparse(16, rounds // 2 if height < 1000 else few)),
                ("12 views", [np.unique(sampling.sparse_test(LENGTH, 8, num_clips=4))] * few),
                ("all", [np.arange(LENGTH)] * few if height < 1000 else []),
            ):
                if not draws:
                    continue
                times = in_turns({n: reader(path, n) for n in ORDER if available(n)}, draws)
                for name, values in times.items():
                    p50, p95, p99 = np.percentile(values, (50, 95, 99))
                    print(
                        f"  {what:<10}{name:<12}{p50:8.1f}{p95:8.1f}{p99:8.1f}   {1e3 / values.mean():7.1f}/s per core"
                    )
                    if (what, width, gop) == ("8 frames", 340, 12):
                        best[name] = 1e3 / values.mean()
    print("\ncores that decoding alone needs for one GPU, 8 frames of 340 x 256, key frame every 12")
    for clips in gpu_clips:
        print(f"  {clips:5} clips/s: " + ", ".join(f"{name} {clips / rate:.1f}" for name, rate in best.items()))


def everything_decoded(read: Read) -> Read:
    """`read` without leaving out the frames that no other one needs."""

    def whole(indices: np.ndarray) -> object:
        needed, h264.needed = h264.needed, lambda packet, prefix: True
        try:
            return read(indices)
        finally:
            h264.needed = needed

    return whole


def cost(folder: Path, rounds: int) -> None:
    as_transcoded: dict[str, object] = {"bframes": 3, "b_adapt": 0, "b_pyramid": "none", "cabac": 0}
    files: dict[str, dict[str, object]] = {
        "as it is": {},
        **{f"key frame every {gop}": {"keyint": gop} for gop in (1, 4, 8, 30, 60, 250)},
        "no B-frames": {"bframes": 0},
        "3 B-frames always": {"bframes": 3, "b_adapt": 0},
        "3 B-frames always, none a reference": {"bframes": 3, "b_adapt": 0, "b_pyramid": "none"},
        "7 B-frames always, none a reference": {"bframes": 7, "b_adapt": 0, "b_pyramid": "none"},
        "11 B-frames always, none a reference": {"bframes": 11, "b_adapt": 0, "b_pyramid": "none"},
        "no deblocking": {"no_deblock": 1},
        "CAVLC for CABAC": {"cabac": 0},
        "one reference frame": {"ref": 1},
        "no weighted prediction": {"weightp": 0, "weightb": 0},
        "tune fastdecode": {"no_deblock": 1, "cabac": 0, "weightp": 0, "weightb": 0},
        **{f"transcode --gop {gop}": {**as_transcoded, "keyint": gop} for gop in (4, 8, 12, 16)},
        "transcode --tune fastdecode": {**as_transcoded, "keyint": 8, "no_deblock": 1, "weightp": 0, "weightb": 0},
        **{f"crf {crf}": {"crf": crf} for crf in (18, 20, 28, 33)},
        "no sensor noise": {"noise": 0},
        "strong sensor noise": {"noise": 6},
        **{f"{w} x {h}": {"width": w, "height": h} for w, h in ((170, 128), (426, 320), (680, 512))},
    }
    draws = sparse(8, rounds)
    base = render(folder / "base.mp4")
    reads = {"as it is": reader(base, "auto")}
    reads["no frame left out"] = everything_decoded(reads["as it is"])
    reads["the demuxer seeks"] = lambda indices: PyAV(str(base)).frames(indices)
    reads["decoding on from frame to frame"] = lambda indices: from_the_start(base, indices)
    print("\n8 sparse frames of one file, the way of reading changed: CPU ms p50, against the first")
    times = in_turns(reads, draws)
    for name, values in times.items():
        print(f"  {name:<38}{np.median(values):8.1f}{np.median(values / times['as it is']):8.2f}")
    print("\n8 sparse frames, the file changed: CPU ms p50, against the first, KiB, PSNR against what was filmed")
    first, size = np.median(times["as it is"]), base.stat().st_size >> 10
    print(f"  {'as it is':<38}{first:8.1f}{1:8.2f}{size:8}{quality(base, 2):8.2f}")
    for name, changed in list(files.items())[1:]:
        path = render(folder / "b.mp4", **changed)  # type: ignore[arg-type]
        times = in_turns({"base": reader(base, "auto"), "other": reader(path, "auto")}, draws)
        ratio = float(np.median(times["other"]) / np.median(times["base"]))
        decibels = "" if "width" in changed else f"{quality(path, int(str(changed.get('noise', 2)))):8.2f}"
        size = path.stat().st_size >> 10
        print(f"  {name:<38}{np.median(times['other']):8.1f}{ratio:8.2f}{size:8}{decibels}", flush=True)


def quality(path: Path, noise: int) -> float:
    """Mean peak signal-to-noise ratio in dB of every tenth frame of 340 x 256."""
    with open_video(path) as video:
        frames = video.frames(range(0, LENGTH, 10)).astype(np.float32)
    filmed = [image for number, image in enumerate(pictures(340, 256, noise=noise)) if number % 10 == 0]
    errors = ((frames - np.stack(filmed)) ** 2).mean((1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / errors)))


def from_the_start(path: Path, indices: np.ndarray) -> np.ndarray:
    """The frames from one pass over all packets, as most programs read."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        images = []
        for number, frame in enumerate(container.decode(video=0)):
            if number in indices:
                images.append(frame.to_ndarray(format="rgb24"))
            if number == indices.max():
                break
        return np.stack(images)


def resident() -> float:
    """MiB of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(folder: Path, decoder: str, reads: int) -> None:
    """In a process of its own: reads clips of several files over and over."""
    paths = sorted(folder.glob("*.mp4"))
    seen = []
    for number in range(reads + 1):
        if number % (reads // 10) == 0:
            seen.append(resident())
        with open_video(paths[number % len(paths)], decoder) as video:
            video.frames(sampling.sparse_train(len(video), 8, generator(0, number, 0, "frames")))
    growth = 1024 * (seen[-1] - seen[1]) / (0.9 * reads)
    print(
        f"  {decoder:<12}"
        + " ".join(f"{size:6.0f}" for size in seen)
        + f"   {growth:+.2f} KiB a read after the first tenth"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("decoders", "cost", "memory"))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--gpu_clips", type=int, nargs="+", default=[100, 400, 1600], metavar="CLIPS_PER_SECOND")
    parser.add_argument("--reads", type=int, default=20_000)
    parser.add_argument("--memory_of", nargs=2, metavar=("DECODER", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.memory_of:
        return memory(Path(options.memory_of[1]), options.memory_of[0], options.reads)
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ORDER if available(name))
    print(f"command: python {' '.join(sys.argv)}")
    print(
        f"machine: {cpu}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, {versions}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.part in (None, "decoders"):
            decoders(folder, options.rounds, options.gpu_clips)
        if options.part in (None, "cost"):
            cost(folder, options.rounds)
        if options.part in (None, "memory"):
            for path in folder.glob("*.mp4"):
                path.unlink()
            for i, (gop, width) in enumerate(((12, 340), (250, 340), (30, 454), (12, 170))):
                render(folder / f"{i}.mp4", width, width * 3 // 8 * 2, keyint=gop, preset="veryfast")
            print(f"\nMiB resident at the start and after each tenth of {options.reads} reads of 8 frames")
            for decoder in (name for name in ORDER if available(name)):
                command = [sys.executable, __file__, "--memory_of", decoder, name, "--reads", str(options.reads)]
                subprocess.run(command, check=True)


def version(decoder: str) -> str:
    from importlib.metadata import version as installed

    return installed({"pyav": "av"}.get(decoder, decoder))


if __name__ == "__main__":
    main()
