"""Late fusion: the views of each member become one answer a video, and the members' answers one answer of all.

How that is done, and what the result is worth, follows from the way in which videos are labelled (`answers.py`).
Shapes: M members, R videos, V views, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from umt.errors import ScoresError
from umt.evaluation.answers import Answers, answers
from umt.evaluation.metrics import bootstrap_interval, label_rank, top_k
from umt.evaluation.multi_label import YES, MultiLabelScores, sigmoid
from umt.evaluation.multiview import softmax
from umt.evaluation.paired_bootstrap import Interval, accuracy_gain, drawn_precision, interval
from umt.evaluation.summary import Accuracy

Values = NDArray[np.float64]
Mode = Literal["mean", "logits", "geometric"]
MODES: tuple[Mode, ...] = get_args(Mode)
TINY = 1e-30  # a probability of 0 would be a logarithm that nothing can outweigh


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one way of answering is worth. `right` (R,): whether a video's answer is wholly right."""

    accuracy: Accuracy | MultiLabelScores
    cross_entropy: float
    right: NDArray[np.bool_]
    probability: Values  # (R, K)


class Fusing(ABC):
    """What fusing needs to know of the way in which videos are labelled.

    Attributes:
        columns: heading and field of `Outcome.accuracy`, for tables; the first is the number to report.
        probabilities: what they must be, for a sentence.
    """

    answers: Answers
    columns: tuple[tuple[str, str], ...]
    probabilities: str

    @abstractmethod
    def are_probabilities(self, scores: NDArray[np.floating]) -> bool:
        """Whether scores (..., K) could be probabilities, to within rounding."""

    @abstractmethod
    def logits(self, probability: Values) -> Values:
        """(R, K) -> finite logits of which `probability` makes the same again."""

    @abstractmethod
    def probability(self, logits: Values) -> Values:
        """(R, K) -> probabilities."""

    @abstractmethod
    def normalised(self, logits: Values) -> Values:
        """(R, K) -> the same probabilities on a scale that all members share. May change `logits`."""

    @abstractmethod
    def without_vote(self, classes: int) -> float:
        """The probability of each class of a video on which no member has a vote."""

    @abstractmethod
    def answer(self, probability: Values) -> NDArray[np.integer] | NDArray[np.bool_]:
        """(R, K) -> what is predicted: (R, 1) the class, or (R, K) which of them."""

    @abstractmethod
    def outcome(self, probability: Values, voted: NDArray[np.bool_], labels: NDArray[np.int64]) -> Outcome:
        """A video without a vote is wrong."""

    @abstractmethod
    def intervals(self, outcome: Outcome, best: Outcome, labels: NDArray[np.int64]) -> tuple[Interval, Interval]:
        """95 %: of the number to report, and of its gain over `best`, paired over videos."""

    def headline(self, outcome: Outcome) -> float:
        """The number to report, in percent."""
        return float(getattr(outcome.accuracy, self.columns[0][1]))

    def values(self, logits: NDArray[np.floating], mode: Mode, temperature: float = 1.0) -> Values:
        """logits (R, V, K) -> what `fuse` averages (R, K).

        mean: the views' probabilities averaged; geometric: the logits of these; logits: the views' logits averaged, and
        `normalised`, so that members of different scales meet on the same.
        """
        if temperature != 1:
            logits = logits.astype(np.float64) / temperature
        if mode == "logits":
            return self.normalised(logits.mean(axis=1, dtype=np.float64))
        probability = self.answers.merge(logits[:, :, None, :])
        return probability if mode == "mean" else self.logits(probability)

    def fuse(
        self, parts: Sequence[Values], weights: Sequence[float] | Values | None, mode: Mode, read: NDArray[np.bool_]
    ) -> tuple[Values, NDArray[np.bool_]]:
        """parts M x (R, K), read (M, R) -> probabilities (R, K), and (R,) whether any member had a vote.

        A member that could not read a video has no vote there; the others share its weight.
        """
        share = normal(weights, len(parts))[:, None] * read
        mass = share.sum(axis=0)
        voted = mass > 0
        total = np.zeros_like(parts[0])
        for weight, part in zip(share, parts, strict=True):
            if weight.any():
                total += weight[:, None] * part
        total[voted] /= mass[voted, None]
        probability = total if mode == "mean" else self.probability(total)
        probability[~voted] = self.without_vote(total.shape[1])
        return probability, voted


class _OneClass(Fusing):
    answers = answers(multi_label=False)
    columns = (("top-1", "top1"), ("top-5", "top5"))
    probabilities = "0 to 1 and sum to 1"

    def are_probabilities(self, scores: NDArray[np.floating]) -> bool:
        return bool((scores >= -1e-6).all() and (np.abs(scores.sum(axis=-1) - 1) < 1e-2).all())

    def logits(self, probability: Values) -> Values:
        return np.log(np.maximum(probability, TINY))

    def probability(self, logits: Values) -> Values:
        return softmax(logits)

    def normalised(self, logits: Values) -> Values:
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def without_vote(self, classes: int) -> float:
        return 1.0 / classes

    def answer(self, probability: Values) -> NDArray[np.integer]:
        return probability.argmax(axis=1)[:, None]

    def outcome(self, probability: Values, voted: NDArray[np.bool_], labels: NDArray[np.int64]) -> Outcome:
        rank = np.where(voted, label_rank(probability, labels), probability.shape[1])
        of_truth = np.take_along_axis(probability, labels[:, None], axis=1)
        entropy = float(-np.log(np.maximum(of_truth, TINY)).mean())
        return Outcome(Accuracy(top_k(rank, 1), top_k(rank, 5)), entropy, rank == 0, probability)

    def intervals(self, outcome: Outcome, best: Outcome, labels: NDArray[np.int64]) -> tuple[Interval, Interval]:
        return bootstrap_interval(outcome.right), accuracy_gain(outcome.right, best.right)


class _EachClass(Fusing):
    answers = answers(multi_label=True)
    columns = (("mAP", "map"), ("F1 micro", "f1_micro"))
    probabilities = "0 to 1"

    def are_probabilities(self, scores: NDArray[np.floating]) -> bool:
        return bool((scores >= -1e-6).all() and (scores <= 1 + 1e-6).all())

    def logits(self, probability: Values) -> Values:
        return np.log(np.maximum(probability, TINY)) - np.log(np.maximum(1 - probability, TINY))

    def probability(self, logits: Values) -> Values:
        return sigmoid(logits)

    def normalised(self, logits: Values) -> Values:
        return logits

    def without_vote(self, classes: int) -> float:
        return 0.0

    def answer(self, probability: Values) -> NDArray[np.bool_]:
        return probability >= YES

    def outcome(self, probability: Values, voted: NDArray[np.bool_], labels: NDArray[np.int64]) -> Outcome:
        truth = labels.astype(bool)
        of_truth = np.where(truth, probability, 1 - probability)
        entropy = float(-np.log(np.maximum(of_truth, TINY)).mean())
        right = voted & (self.answer(probability) == truth).all(axis=1)
        return Outcome(MultiLabelScores.of(probability, truth), entropy, right, probability)

    def intervals(self, outcome: Outcome, best: Outcome, labels: NDArray[np.int64]) -> tuple[Interval, Interval]:
        ours, theirs = (drawn_precision(one.probability, labels.astype(bool)) for one in (outcome, best))
        return interval(ours), interval(ours - theirs)


ONE_CLASS: Fusing = _OneClass()
_EACH_CLASS: Fusing = _EachClass()


def fusing(multi_label: bool) -> Fusing:
    """`multi_label`: whether a video may have several classes, or none."""
    return _EACH_CLASS if multi_label else ONE_CLASS


def normal(weights: Sequence[float] | NDArray[np.floating] | None, members: int) -> Values:
    """Weights (M,) that sum to 1; None: equal ones. Raises ScoresError for those that cannot be."""
    given = np.ones(members) if weights is None else np.asarray(weights, np.float64)
    if given.shape != (members,) or not np.isfinite(given).all() or (given < 0).any() or not given.sum() > 0:
        shown = " ".join(f"{weight:g}" for weight in given.ravel())
        raise ScoresError(
            f"--weights ({shown}) must be {members} numbers, one for each scores file, none below 0 and not all 0."
        )
    return given / given.sum()
