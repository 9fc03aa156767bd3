"""What transcoding gained, measured on a sample by reading originals and copies alternately, as a run would."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from umt.data import sampling
from umt.data.video.reader import open_video
from umt.errors import VideoError
from umt.randomness import generator
from umt.tools.data.transcode.crew import Job

ROUNDS = 3


def measure(jobs: Sequence[Job], sample: int, frames: int = 8) -> tuple[float, float, int]:
    """Mean CPU milliseconds of `frames` sparse frames of the originals and of the copies, and of how many videos."""
    spread = np.unique(np.linspace(0, len(jobs) - 1, min(sample, len(jobs))).round().astype(int))
    pairs = []
    for number in spread.tolist():
        job = jobs[number]
        try:
            times = [
                (_read(job.source, number, frames, i), _read(job.target, number, frames, i)) for i in range(ROUNDS)
            ]
        except VideoError:
            continue
        pairs.append(np.min(times, axis=0))
    if not pairs:
        return 0.0, 0.0, 0
    before, after = np.mean(pairs, axis=0)
    return float(before), float(after), len(pairs)


def _read(path: str, number: int, frames: int, turn: int) -> float:
    start = time.process_time()
    with open_video(path) as video:
        video.frames(sampling.sparse_train(len(video), frames, generator(0, number, turn, "frames")))
    return 1e3 * (time.process_time() - start)
