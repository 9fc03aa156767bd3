"""How much each class counts in the loss, from how many training videos it has.

  balanced   n / (K n_k): every class counts the same, as scikit-learn's `class_weight="balanced"`
             (King and Zeng, Logistic Regression in Rare Events Data, 2001).
  sqrt       the root of that, half the way.
  effective  one over the effective number of videos (1 - b^n_k) / (1 - b), b = 0.999: the thousandth video of a class
             adds less than the first (https://arxiv.org/abs/1901.05555).

They are scaled to a mean of 1 over the training videos, so that loss and learning rate keep their size. A multi-label
class is a yes or no of its own: its weight is that of a yes, the ratio of (effective) noes and yeses.
Shapes: K classes, n videos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umt.data.lists.lines import SEPARATORS, whole_number
from umt.errors import AnnotationError, ConfigError

_BETA = 0.999

Weights = NDArray[np.float64]


def class_weights(kind: str, counts: Sequence[int]) -> Weights:
    """counts (K,) of training videos -> weights (K,) with sum n_k w_k = n. A class without videos counts as with one.

    Raises ConfigError for an unknown kind.
    """
    n_k = np.maximum(np.asarray(counts, np.float64), 1)
    raw = _weights(kind, n_k)
    return raw * n_k.sum() / (raw * n_k).sum()


def positive_weights(kind: str, counts: Sequence[int], videos: int) -> Weights:
    """counts (K,) of the yeses of each class among `videos` -> weights (K,) of a yes, that of a no being 1."""
    yes = np.maximum(np.asarray(counts, np.float64), 1)
    no = np.maximum(videos - yes, 1)
    return _weights(kind, yes) / _weights(kind, no)


_KINDS: dict[str, Callable[[Weights], Weights]] = {
    "balanced": lambda number: 1 / number,
    "sqrt": lambda number: 1 / np.sqrt(number),
    "effective": lambda number: (1 - _BETA) / (1 - _BETA**number),
}


def _weights(kind: str, number: Weights) -> Weights:
    if kind not in _KINDS:
        raise ConfigError(f"--class_weights ({kind}) is neither a file nor one of none, {', '.join(_KINDS)}.")
    return _KINDS[kind](number)


def read_weights(file: Path, classes: int, names: Sequence[str] | None) -> Weights:
    """The weights of a file: a line `class,weight` for each class, by name or label, or K lines of a weight each.

    Raises AnnotationError naming file:line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"--class_weights ({file}) cannot be read: {error}.") from None
    place = {name: i for i, name in enumerate(names or ())}
    found: dict[int, float] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, weight = _line(line)
        if weight is None or not weight > 0 or not np.isfinite(weight):
            raise AnnotationError(
                f"{file}:{number}: `{line}` does not end in a weight above 0. A line is class,weight."
            )
        label = len(found) if name is None else place.get(name, whole_number(name))
        if label is None or not 0 <= label < classes:
            raise AnnotationError(f"{file}:{number}: '{name}' is none of the {classes} classes. Mend the line.")
        if label in found:
            raise AnnotationError(f"{file}:{number}: class '{name}' has a weight already. Give each class one.")
        found[label] = weight
    if len(found) != classes:
        raise AnnotationError(f"{file} has weights of {len(found)} of {classes} classes. Give each class one.")
    return np.array([found[label] for label in range(classes)])


def _line(line: str) -> tuple[str | None, float | None]:
    for separator in SEPARATORS:
        name, _, last = line.strip().rpartition(separator)
        if name:
            try:
                return name.strip(), float(last)
            except ValueError:
                continue
    try:
        return None, float(line)
    except ValueError:
        return None, None
