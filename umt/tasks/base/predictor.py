"""What a kind of work gives `umt predict`: answers from a model's outputs, and how they are shown. The rest is the same
for all kinds: finding videos, cutting windows, failures, and the files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Answer = Any
"""Of a predictor's own type."""


@dataclass(frozen=True)
class Part:
    """The answer for a whole video, or for `start` to `end` (seconds) of it."""

    answer: Answer
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Failure:
    """A video that could not be read."""

    path: str
    cause: str


class Predictor(Protocol):
    """A model with a meaning for its outputs. Shapes: V views of T frames of H x W pixels.

    A class of this protocol is what a `Kind` names as `predict`; `of` makes it.
    """

    @staticmethod
    def add_flags(add: Callable[..., object]) -> None:
        """Its own flags of `umt predict`; `add` is argparse's `add_argument`."""

    @classmethod
    def of(cls, model: Any, words: Namespace) -> Predictor:
        """For `model`, as `Kind.load` gave it, with the words of the command line."""

    @property
    def columns(self) -> Sequence[str]:
        """Of the CSV, after path, start and end."""

    def outputs(self, views: Tensor) -> Tensor:
        """views (V, T, H, W, 3) uint8 -> (V, ...) on the CPU. Raises ConfigError for a model that cannot answer."""

    def answer(self, outputs: Tensor) -> Answer:
        """The outputs (V, ...) of all views of one video or window -> their common answer."""

    def facts(self) -> dict[str, Any]:
        """What the JSON says about the answers of all videos."""

    def lines(self, answer: Answer) -> list[str]:
        """The answer for a whole video, for the table."""

    def line(self, answer: Answer) -> str:
        """The answer for a window, for the table."""

    def rows(self, answer: Answer) -> Iterable[Sequence[object]]:
        """Values of `columns`."""

    def described(self, answer: Answer) -> Any:
        """The answer in JSON."""

    def drawn(self, answer: Answer, width: int, height: int) -> Image.Image:
        """The answer as RGBA for the upper part of a frame of `width` x `height` pixels, as wide as the frame."""
