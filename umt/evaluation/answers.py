"""The two ways in which videos are labelled, and what follows for merging views and for the numbers of a test.

A video has one class (a softmax over classes, top-k accuracy), or a yes or no for each class (a sigmoid for each,
average precision).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.evaluation.multi_label import merge_sigmoids, summarise_multi_label
from umt.evaluation.multiview import merge
from umt.evaluation.scores import ViewScores
from umt.evaluation.summary import summarise


@dataclass(frozen=True)
class Answers:
    """What differs between the two.

    Attributes:
        best_metric: by which checkpoints are compared; greater is better.
        merge: logits (R, S, C, K) of all views -> probabilities (R, K) float64.
        summarise: complete scores -> their summary. Raises ScoresError.
    """

    best_metric: str
    merge: Callable[[NDArray[np.floating]], NDArray[np.float64]]
    summarise: Callable[[ViewScores], Any]


_ONE_CLASS = Answers("acc1", merge, summarise)
_EACH_CLASS = Answers("map", merge_sigmoids, summarise_multi_label)


def answers(multi_label: bool) -> Answers:
    """`multi_label`: whether a video may have several classes, or none."""
    return _EACH_CLASS if multi_label else _ONE_CLASS
