"""Whether a measured accuracy is the published one, as far as the number of videos allows to say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Word = Literal["agrees", "differs", "cannot say"]
EXIT_CODES: dict[Word, int] = {"agrees": 0, "differs": 1, "cannot say": 2}

DIGIT = 0.1  # points: a published number is rounded to it; decoders, copies of videos and precision move about as much
MAX_INTERVAL = 2.0  # points: a wider 95 % interval of the measured number says too little


@dataclass(frozen=True)
class Verdict:
    """`difference`: measured minus expected, in points. `allowance`: the part of the tolerance for missing videos."""

    word: Word
    difference: float
    tolerance: float
    allowance: float
    why: str


def missing_allowance(expected: float, videos: int, official: int | None) -> float:
    """Points by which the accuracy on `videos` of an official list may differ from that on all of it, 95 times in 100.

    As if the missing videos were a random sample: 1.96 standard errors of a sample without replacement.
    """
    if official is None or videos >= official or not videos:
        return 0.0
    p = min(max(expected / 100, 0.0), 1.0)
    return 100 * 1.96 * math.sqrt(p * (1 - p) * (1 / videos - 1 / official))


def wilson(percent: float, videos: int) -> tuple[float, float]:
    """95 % interval of an accuracy, of a width above 0 even if all videos are right, or wrong.

    (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.)
    """
    p, z2 = percent / 100, 1.96**2
    centre, scale = p + z2 / (2 * videos), 1 + z2 / videos
    half = 1.96 * math.sqrt(p * (1 - p) / videos + z2 / (4 * videos**2))
    return 100 * (centre - half) / scale, 100 * (centre + half) / scale


def judge(
    measured: float,
    expected: float,
    *,
    interval: tuple[float, float],
    videos: int,
    official: int | None,
    tolerance: float | None = None,
    max_interval: float = MAX_INTERVAL,
) -> Verdict:
    """Percents -> a verdict. `official`: videos of the list on which the expected number was measured; None: this list.

    `tolerance` None: `DIGIT` and the allowance for missing videos. The interval counts only where videos are missing:
    on the whole list two tests answer for the same videos.
    """
    allowance = missing_allowance(expected, videos, official) if tolerance is None else 0.0
    allowed = DIGIT + allowance if tolerance is None else tolerance
    difference = measured - expected
    close = abs(difference) <= allowed + 1e-9
    low, high = interval if interval[0] < interval[1] else wilson(measured, videos)
    sampled, wide = official is not None and videos < official, high - low > max_interval
    reaches = low <= expected + allowed and high >= expected - allowed
    word: Word = "agrees" if close else "differs"
    why = ""
    if sampled and wide and (close or reaches):
        word = "cannot say"
        why = (
            f"{videos} of {official} videos: the 95 % interval is {high - low:.1f} points wide, more than "
            f"{max_interval:g}. Test more videos."
        )
    return Verdict(word, difference, allowed, allowance, why)
