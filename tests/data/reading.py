"""What the processes of `test_reading_side_by_side` do; apart, as a spawned one imports where its work is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from umt.data.video.reader import open_video


def read(path: Path, decoder: str, seed: int) -> tuple[list[int], np.ndarray]:
    with open_video(path, decoder) as video:
        indices = np.random.default_rng(seed).integers(0, len(video), 6).tolist()
        return indices, video.frames(indices)


def read_in_child(work: tuple[str, str, int]) -> tuple[list[int], np.ndarray]:
    path, decoder, seed = work
    return read(Path(path), decoder, seed)
