"""Every random draw is a function of what it is drawn for, never of what was drawn before it.

A sample draws from `generator(seed, epoch, row, copy)`, a training step from `key(seed, step, micro_step, rank)`. So
the number of workers, ranks or restarts changes nothing, and resuming in mid-epoch is skipping to a sample number.
"""

import zlib

import numpy as np


def _words(parts: tuple[int | str, ...]) -> list[int]:
    return [zlib.crc32(p.encode()) if isinstance(p, str) else int(p) & 0xFFFFFFFFFFFFFFFF for p in parts]


def generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator seeded by `parts`: non-negative integers, or words that name a stream (`"augment"`)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(_words(parts))))


def key(*parts: int | str) -> int:
    """A 63-bit seed made of `parts`, for generators that take one integer (torch's)."""
    high, low = np.random.SeedSequence(_words(parts)).generate_state(2, np.uint32)
    return ((int(high) << 32) | int(low)) & 0x7FFFFFFFFFFFFFFF
