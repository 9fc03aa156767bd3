"""Did a finished run on the user's own videos learn anything? Its score against free baselines, with advice.

Pure: facts in, sentences out. `umt.tasks.classify.report` gathers the facts. Accuracies are percent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORST, _PAIRS, _FEW = 5, 5, 5
_GAP = 20.0  # points between training and validation from which on it is called overfitting
_LOW = 60.0  # training accuracy below which a model has not learnt its own videos
_SMALL_TEST = 100


@dataclass(frozen=True)
class ClassResult:
    """One class: its training and test videos, and the percent of the latter that were right (or their precision)."""

    name: str
    training: int
    tested: int
    score: float | None


@dataclass(frozen=True)
class Facts:
    """What a run leaves. `score`: top-1, or mAP of a multi-label run; `baseline`: what a constant answer gets.

    `train` and `val`: (accuracy, loss) of the epoch that was tested, None where it has none; `epoch` counts from 1.
    """

    classes: tuple[ClassResult, ...]
    videos: tuple[int, int, int]  # training, validation, test
    score: float
    baseline: float
    interval: tuple[float, float] | None = None
    mean_over_classes: float | None = None
    pairs: tuple[tuple[str, str, int], ...] = ()  # (is, was taken for, videos)
    multi_label: bool = False
    train: tuple[float | None, float | None] = (None, None)
    val: tuple[float | None, float | None] = (None, None)
    epoch: int = 0
    epochs: int = 0
    first_loss: float | None = None
    new_head: bool = True
    weighted: bool = False
    random_start: bool = False
    frozen: int = 0
    mixes: bool = False
    unreadable: tuple[int, int] = (0, 0)  # in training, in the test
    tested_on_validation: bool = False

    @property
    def measure(self) -> str:
        return "mAP" if self.multi_label else "top-1"

    @property
    def expected_first_loss(self) -> float:
        """What a head that knows nothing starts from: ln K, and ln 2 for a yes or no."""
        return math.log(2 if self.multi_label else max(len(self.classes), 1))

    @property
    def ratio(self) -> float:
        counts = [one.training for one in self.classes if one.training]
        return max(counts) / min(counts) if counts else 1.0


@dataclass(frozen=True)
class Sanity:
    """The facts, and sentences of advice, the gravest first."""

    facts: Facts
    advice: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        content = dataclasses.asdict(self.facts)
        content |= {"measure": self.facts.measure, "expected_first_loss": self.facts.expected_first_loss}
        return {**content, "advice": self.advice}

    def text(self) -> str:
        """The report as text for a console."""
        facts = self.facts
        training, val, test = facts.videos
        interval = f" (95 % interval {facts.interval[0]:.1f} to {facts.interval[1]:.1f})" if facts.interval else ""
        lines = [
            f"sanity: {training} training, {val} validation and {test} test videos of {len(facts.classes)} classes",
            f"  {facts.measure:<12} {facts.score:.1f}{interval}; without looking at the video {facts.baseline:.1f}",
        ]
        if not facts.multi_label:
            lines.append(f"  {'chance':<12} {100 / max(len(facts.classes), 1):.1f}")
        if facts.mean_over_classes is not None:
            lines.append(f"  {'by class':<12} {facts.mean_over_classes:.1f}, the mean over classes")
        lines.append(f"  {'epoch':<12} {facts.epoch} of {facts.epochs} was tested: {_curve(facts)}")
        if facts.first_loss is not None:
            lines.append(
                f"  {'first loss':<12} {facts.first_loss:.3f}; a new head gives {facts.expected_first_loss:.3f}"
            )
        lines.append(f"  {'balance':<12} largest to smallest class {facts.ratio:.3g} : 1")
        worst = self._worst()
        if worst:
            lines.append(f"  {'worst':<12} " + ", ".join(f"{one.name} {one.score:.0f} ({one.tested})" for one in worst))
        if facts.pairs:
            shown = ", ".join(f"{true} taken for {said} ({count})" for true, said, count in facts.pairs)
            lines.append(f"  {'confused':<12} {shown}")
        if any(facts.unreadable):
            lines.append(f"  {'unreadable':<12} {facts.unreadable[0]} in training, {facts.unreadable[1]} in the test")
        return "\n".join([*lines, *(f"  - {sentence}" for sentence in self.advice)])

    def _worst(self) -> list[ClassResult]:
        known = [(one.score, one.name, one) for one in self.facts.classes if one.score is not None and one.score < 100]
        return [one for *_, one in sorted(known, key=lambda entry: entry[:2])[:_WORST]]


def _curve(facts: Facts) -> str:
    parts = []
    for name, (accuracy, loss) in (("training", facts.train), ("validation", facts.val)):
        numbers = ([f"{accuracy:.1f}"] if accuracy is not None else []) + (
            [f"loss {loss:.3f}"] if loss is not None else []
        )
        parts.append(f"{name} {', '.join(numbers) or 'unknown'}")
    return "; ".join(parts)


def examine(facts: Facts) -> Sanity:
    """The facts with advice."""
    advice = [*_worth(facts), *_fit(facts), *_first_loss(facts), *_data(facts)]
    return Sanity(facts, advice or ["Nothing looks wrong."])


def _worth(facts: Facts) -> list[str]:
    low = facts.interval[0] if facts.interval else facts.score
    better = facts.score > facts.baseline + 1e-6
    if better and low > facts.baseline + 1e-6:
        return []
    if facts.random_start:
        remedy = "It started from random weights: give --finetune, e.g. a name of the published zoo (MODEL_ZOO.md)."
    elif facts.train[0] is not None and facts.train[0] < _LOW:
        remedy = (
            "It has not learnt its training videos either: train longer, with a larger --lr, or fewer frozen blocks."
        )
    else:
        remedy = "Look at videos and labels with umt data show."
    doubt = "is no better than" if not better else "cannot be told, on so few videos, from"
    return [
        f"{facts.measure} {facts.score:.1f} {doubt} {facts.baseline:.1f}, what one answer for all videos gets. {remedy}"
    ]


def _fit(facts: Facts) -> list[str]:
    advice = []
    train, val = facts.train[0], facts.val[0]
    if train is not None and val is not None and train - val > _GAP:
        more = [] if facts.mixes else ["--mixup 0.8 --cutmix 1"]
        more += ["a larger --drop_path", "fewer --epochs"]
        more += [] if facts.frozen or facts.random_start else ["--freeze_blocks with half of the blocks"]
        advice.append(
            f"Training {train:.0f}, validation {val:.0f}: overfitting. More videos help most; else try "
            f"{', or '.join(more)}."
        )
    elif train is not None and train < _LOW and not facts.mixes and 2 * facts.epoch > facts.epochs:
        advice.append(
            f"Training {train:.0f} only: it has not learnt its own videos. Try twice the --epochs, or twice the --lr."
        )
    if facts.epochs >= 5 and facts.epoch >= facts.epochs and facts.score < 99:
        advice.append(f"The last epoch was the best: more than --epochs {facts.epochs} may give more.")
    elif facts.epochs >= 10 and facts.epoch <= facts.epochs // 4:
        advice.append(f"Epoch {facts.epoch} was the best: --epochs {max(2 * facts.epoch, 5)} would do.")
    return advice


def _first_loss(facts: Facts) -> list[str]:
    first, expected = facts.first_loss, facts.expected_first_loss
    if first is None or facts.weighted or not facts.new_head:
        return []
    if abs(first - expected) <= max(0.15 * expected, 0.1):
        return []
    side = "above" if first > expected else "below"
    return [
        f"The first loss ({first:.2f}) is {side} the {expected:.2f} of a head that knows nothing: are the labels those "
        "of --nb_classes, and did the head start from scratch (--delete_head)?"
    ]


def _data(facts: Facts) -> list[str]:
    advice = []
    few = [one.name for one in facts.classes if one.training < _FEW]
    if few:
        advice.append(f"{len(few)} classes have fewer than {_FEW} training videos ({', '.join(few[:5])}): add some.")
    rare = [one for one in facts.classes if 3 * one.training <= max(c.training for c in facts.classes)]
    scores = [one.score for one in rare if one.score is not None]
    if scores and facts.score - sum(scores) / len(scores) > 10 and not facts.weighted:
        advice.append(
            f"Rare classes do worse ({sum(scores) / len(scores):.0f}, e.g. {rare[0].name}): more videos of them, or "
            "--class_weights balanced."
        )
    never = [one.name for one in facts.classes if one.score == 0 and one.tested >= _FEW and one not in rare]
    if never and not facts.multi_label:
        advice.append(f"Never right: {', '.join(never[:5])}. Look at these videos, umt data show.")
    if facts.unreadable[0]:
        advice.append(f"{facts.unreadable[0]} training videos cannot be read and were replaced: umt data check.")
    if facts.tested_on_validation:
        advice.append(
            "The test videos are those by which the best epoch was chosen, so the result is somewhat too good. Keep "
            "some videos apart as test."
        )
    if facts.videos[2] < _SMALL_TEST:
        advice.append(f"{facts.videos[2]} test videos say little: differences within the interval mean nothing.")
    return advice


def confused(truth: NDArray[np.int64], said: NDArray[np.int64], names: Sequence[str]) -> list[tuple[str, str, int]]:
    """truth, said (R,) -> the pairs (is, was taken for, videos) that occur most."""
    wrong = truth != said
    pairs, counts = np.unique(np.stack([truth[wrong], said[wrong]], 1), axis=0, return_counts=True)
    order = sorted(range(len(counts)), key=lambda i: (-counts[i], *pairs[i]))[:_PAIRS]
    return [(names[pairs[i][0]], names[pairs[i][1]], int(counts[i])) for i in order]
