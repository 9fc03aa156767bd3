"""Moving shapes: a small video data set of real H.264 files, whose classes depend on both appearance and motion.

A class is one of four shapes (what is seen) with one of four motions (how it moves over the whole clip): it stays up,
sinks, rises, or stays down. The first half of a clip shows only where the motion begins, the second half only where it
ends, and no frame shows both. Everything else varies: colour, size, tilt, sway, the textured background, a shaking
camera, and distractors of other shapes that stay or wander. A mirrored clip keeps its class.

Letters: T frames, H x W pixels. `python -m umt.tools.quickstart.shapes --output DIR` writes videos and lists.
"""

from __future__ import annotations

import argparse
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from umt.randomness import generator

Frames = NDArray[np.uint8]

SHAPES = ("bullseye", "chequer", "pyramid", "star")
MOVES = ("stays up", "sinks", "rises", "stays down")
CLASSES = tuple(f"{shape}: {move}" for shape in SHAPES for move in MOVES)
COLOURS = {
    "red": (220, 50, 40),
    "green": (60, 190, 70),
    "blue": (50, 90, 220),
    "yellow": (235, 205, 50),
    "pink": (235, 110, 190),
    "white": (240, 240, 240),
}
UP = {"bullseye": 0.0, "chequer": 0.0, "pyramid": 0.0, "star": -math.pi / 2}
DISTRACTORS = ("ring", "cross", "bar")

FRAMES, HEIGHT, WIDTH, FPS = 24, 48, 60, 12
_SHIFT = 4  # cv2 draws in 1/16 pixel
_MARGIN = 6  # pixels of scene beyond each edge of the picture, which the camera may show


@dataclass(frozen=True)
class Track:
    """One thing on the scene: centre (T, 2) as x, y in scene pixels, angle (T,) in radians, radius in pixels."""

    shape: str
    colour: tuple[int, int, int]
    radius: float
    centre: NDArray[np.float64]
    angle: NDArray[np.float64]


def _star(radius: float) -> NDArray[np.float64]:
    turns = np.arange(10) * (math.pi / 5)
    radii = np.tile([1.35, 0.6], 5) * radius
    return np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=1)


# Outlines and dark parts of things of radius 1: corners (n, 2) around the origin, y down. Discs and rings are circles.
_OUTLINE = {
    "chequer": np.array([(-0.95, -0.95), (0.95, -0.95), (0.95, 0.95), (-0.95, 0.95)]),
    "pyramid": np.array([(0.0, -1.2), (1.2, 0.95), (-1.2, 0.95)]),
    "star": _star(1.0),
    "cross": np.array(
        [
            (x * sx, y * sy)
            for sx, sy, flip in ((1, 1, 0), (-1, 1, 1), (-1, -1, 0), (1, -1, 1))
            for x, y in (((1, 0.3), (0.3, 0.3), (0.3, 1)) if not flip else ((0.3, 1), (0.3, 0.3), (1, 0.3)))
        ]
    ),
    "bar": np.array([(-1.2, -0.25), (1.2, -0.25), (1.2, 0.25), (-1.2, 0.25)]),
}
_DARK = {
    "chequer": [
        np.array([(-0.95, -0.95), (0, -0.95), (0, 0), (-0.95, 0)]),
        np.array([(0, 0), (0.95, 0), (0.95, 0.95), (0, 0.95)]),
    ],
    "pyramid": [np.array([(-0.36, -0.55), (0.36, -0.55), (0.72, 0.1), (-0.72, 0.1)])],
}


def _draw(
    picture: Frames, shape: str, colour: tuple[int, int, int], radius: float, x: float, y: float, angle: float
) -> None:
    """Draws one thing with a dark rim on (H, W, 3), antialiased, in place."""
    rim = tuple(int(c * 0.2) for c in colour)
    scale = 1 << _SHIFT
    if shape in ("bullseye", "ring"):
        centre = (round(x * scale), round(y * scale))
        if shape == "bullseye":
            for share, tone in ((1.0, colour), (0.7, rim), (0.38, colour)):
                cv2.circle(picture, centre, round(share * radius * scale), tone, -1, cv2.LINE_AA, _SHIFT)
            cv2.circle(picture, centre, round(radius * scale), rim, 1, cv2.LINE_AA, _SHIFT)
        else:
            cv2.circle(picture, centre, round(0.85 * radius * scale), colour, 2, cv2.LINE_AA, _SHIFT)
        return
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) * (radius * scale)
    shift = np.array([x, y]) * scale

    def corners(part: NDArray[np.float64]) -> list[NDArray[np.int32]]:
        return [np.rint(part @ turn + shift).astype(np.int32)]

    outline = corners(_OUTLINE[shape])
    cv2.fillPoly(picture, outline, colour, cv2.LINE_AA, _SHIFT)
    for part in _DARK.get(shape, []):
        cv2.fillPoly(picture, corners(part), rim, cv2.LINE_AA, _SHIFT)
    cv2.polylines(picture, outline, True, rim, 1, cv2.LINE_AA, _SHIFT)


def _background(rng: np.random.Generator, height: int, width: int) -> Frames:
    """A texture (height, width, 3): two colours mixed by noise of three grains or by stripes, and fine grain."""
    tones = rng.uniform(40, 190, size=(2, 3))
    if rng.random() < 0.5:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        turn, period = rng.uniform(0, math.pi), rng.uniform(5, 15)
        mix = 0.5 + 0.5 * np.sin((x * math.cos(turn) + y * math.sin(turn)) * (2 * math.pi / period))
    else:
        mix = np.zeros((height, width), np.float32)
        for cell, weight in ((18, 0.5), (9, 0.3), (4, 0.2)):
            grid = rng.random((height // cell + 2, width // cell + 2)).astype(np.float32)
            mix += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        mix = np.clip((mix - 0.5) * 2 + 0.5, 0, 1)
    picture = tones[0] + (tones[1] - tones[0]) * mix[..., None] + rng.normal(0, 3, size=(height, width, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _wander(rng: np.random.Generator, frames: int, reach: float) -> NDArray[np.float64]:
    """A smooth random path (T,) within about +-reach: three sines of random phase."""
    t = np.linspace(0, 1, frames)
    waves = [rng.normal() * np.sin(2 * math.pi * (rng.uniform(0.3, 1.2) * t + rng.random())) for _ in range(3)]
    return np.asarray(reach * np.sum(waves, axis=0) / 1.7)


def _way(move: str, rng: np.random.Generator, frames: int) -> NDArray[np.float64]:
    """Height (T,) around the middle in pixels, y down: on one side, from about half-time on the same or the other."""
    begin, end = {"stays up": (-1, -1), "sinks": (-1, 1), "rises": (1, -1), "stays down": (1, 1)}[move]
    time = np.linspace(0, 1, frames)
    crossed = 1 / (1 + np.exp((rng.uniform(0.38, 0.62) - time) / 0.06))
    sway = np.clip(_wander(rng, frames, 2.5), -5, 5)
    return np.asarray(rng.uniform(9, 12) * (begin + (end - begin) * crossed) + sway)


def _colours(rng: np.random.Generator, count: int) -> list[tuple[int, int, int]]:
    names = rng.permutation(list(COLOURS))[:count]
    return [tuple(int(np.clip(c + rng.normal(0, 12), 0, 255)) for c in COLOURS[name]) for name in names]  # type: ignore[misc]


def _target(shape: str, move: str, colour: tuple[int, int, int], rng: np.random.Generator, frames: int) -> Track:
    """The thing that decides the class."""
    radius = rng.uniform(7, 8.5)
    y = HEIGHT / 2 + _MARGIN + rng.uniform(-2, 2) + _way(move, rng, frames)
    # Within the middle 48 columns, so that each of the three test crops sees it.
    x = np.clip(WIDTH / 2 + rng.uniform(-15, 15) + _wander(rng, frames, 2.0), 13, WIDTH - 13) + _MARGIN
    angle = UP[shape] + rng.uniform(-0.25, 0.25) + rng.uniform(-0.3, 0.3) * np.linspace(-0.5, 0.5, frames)
    return Track(shape, colour, radius, np.stack([x, y], axis=1), angle)


def _distractor(colour: tuple[int, int, int], rng: np.random.Generator, frames: int) -> Track:
    """Another thing: half of them stay where they are, half wander at random."""
    reach = 0.0 if rng.random() < 0.5 else 10.0
    x = rng.uniform(6, WIDTH - 6) + _wander(rng, frames, reach) + _MARGIN
    y = rng.uniform(6, HEIGHT - 6) + _wander(rng, frames, reach) + _MARGIN
    angle = rng.uniform(0, 2 * math.pi) + rng.uniform(-1.5, 1.5) * np.linspace(0, 1, frames)
    return Track(str(rng.choice(DISTRACTORS)), colour, rng.uniform(4, 6), np.stack([x, y], axis=1), angle)


def scene(shape: str, move: str, rng: np.random.Generator, frames: int = FRAMES) -> tuple[list[Track], Frames]:
    """The things of a clip, the target last, and the background (H + 2 margins, W + 2 margins, 3)."""
    colours = _colours(rng, 4)
    things = [_distractor(colour, rng, frames) for colour in colours[1 : int(rng.integers(2, 5))]]
    things.append(_target(shape, move, colours[0], rng, frames))  # last, so nothing ever hides it
    return things, _background(rng, HEIGHT + 2 * _MARGIN, WIDTH + 2 * _MARGIN)


def draw(things: list[Track], background: Frames, t: int, left: int, top: int, width: int = WIDTH) -> Frames:
    """What the camera sees (H, width, 3) at frame `t` when its corner is at (left, top) of the scene."""
    picture = background.copy()
    for thing in things:
        x, y = thing.centre[t]
        _draw(picture, thing.shape, thing.colour, thing.radius, x, y, thing.angle[t])
    return picture[top : top + HEIGHT, left : left + width]


def render(shape: str, move: str, rng: np.random.Generator, frames: int = FRAMES) -> Frames:
    """A clip (T, H, W, 3) uint8 RGB of `shape` making `move`; `rng` draws everything else."""
    things, background = scene(shape, move, rng, frames)
    shake = np.stack([_wander(rng, frames, 1.5), _wander(rng, frames, 1.5)], axis=1) + rng.normal(0, 0.5, (frames, 2))
    shake = np.clip(np.rint(shake), -_MARGIN, _MARGIN).astype(int) + _MARGIN
    return np.stack([draw(things, background, t, *shake[t]) for t in range(frames)])


def write_video(path: Path, clip: Frames, fps: int = FPS) -> None:
    """Writes (T, H, W, 3) RGB as H.264 in MP4: closed GOPs, 8 bits, 4:2:0, one thread so that the bytes never vary."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "crf": "26", "g": "12", "x264-params": "open-gop=0"}
        for picture in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def class_of(row: int) -> int:
    """Class of a row of a list: classes alternate, so every list is balanced."""
    return row % len(CLASSES)


def _write(task: tuple[str, Path, int, int]) -> None:
    split, folder, row, seed = task
    shape, move = CLASSES[class_of(row)].split(": ")
    write_video(folder / f"{row:04}.mp4", render(shape, move, generator(seed, split, row)))


def write_data_set(folder: Path, *, counts: dict[str, int], seed: int = 0, processes: int | None = None) -> None:
    """Renders `counts` videos of each split into `folder`/videos, and writes the lists and labels.txt.

    The lists are `path,label`, relative to `folder`; pretraining does not read its labels. A video is a function of
    (seed, split, row).
    """
    tasks = []
    for split, count in counts.items():
        videos = folder / "videos" / split
        videos.mkdir(parents=True, exist_ok=True)
        tasks += [(split, videos, row, seed) for row in range(count)]
        lines = [f"videos/{split}/{row:04}.mp4,{class_of(row)}\n" for row in range(count)]
        (folder / f"{split}.csv").write_text("".join(lines), encoding="utf-8")
    cv2.setNumThreads(1)  # here, not in the children: a forked OpenCV would wait for threads that only the parent has
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        done = pool.map(_write, tasks, chunksize=16)
        for _ in tqdm(done, total=len(tasks), desc="rendering", unit="video"):
            pass
    # Last: if it exists, everything else does too.
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Render the moving-shapes data set.")
    parser.add_argument("--output", type=Path, required=True, help="folder of videos and lists")
    parser.add_argument("--seed", type=int, default=0)
    for split, count in (("pretrain", 800), ("train", 320), ("val", 64), ("test", 160)):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"videos of {split}.csv (default {count})")
    words = parser.parse_args()
    counts = {split: getattr(words, split) for split in ("pretrain", "train", "val", "test")}
    write_data_set(words.output, counts=counts, seed=words.seed)


if __name__ == "__main__":
    main()
