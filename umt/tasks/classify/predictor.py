"""`umt predict` for classifiers: the likeliest classes of a video, and how they are written and drawn."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from umt.flags.command_line import COUNT, Number

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from umt.inference.recognizer import Recognizer

Classes = tuple[tuple[int, str, float], ...]
"""(class, name, probability), the likeliest first."""


class ClassPredictor:
    """The classes of a video that are reported: the `topk` likeliest (5), or those of at least `threshold`, or both.

    `labels`: where the class names come from, if the user says so.
    """

    @staticmethod
    def add_flags(add: Callable[..., object]) -> None:
        """--topk and --threshold."""
        probability = Number(float, at_least=0, at_most=1, rule="is a probability, from 0 to 1")
        add("--topk", type=COUNT, metavar="K", help="classes of each video or window (5)")
        add(
            "--threshold", type=probability, metavar="P", help="only classes of at least this probability, however many"
        )

    @classmethod
    def of(cls, model: Recognizer, words: Namespace) -> ClassPredictor:
        """See `Predictor`."""
        return cls(model, topk=words.topk, threshold=words.threshold, labels=words.labels)

    columns = ("rank", "class", "label", "probability")

    def __init__(
        self, model: Recognizer, *, topk: int | None = None, threshold: float | None = None, labels: str | None = None
    ) -> None:
        self.model, self.threshold, self.labels = model, threshold, labels
        self.topk = 5 if topk is None and threshold is None else topk

    def outputs(self, views: Tensor) -> Tensor:
        """views (V, T, H, W, 3) uint8 -> logits (V, K)."""
        return self.model.logits(views)

    def answer(self, outputs: Tensor) -> Classes:
        """Logits (V, K) -> the classes that are reported, by the mean of the views' probabilities."""
        values, order = self.model.merge(outputs).sort(descending=True, stable=True)
        classes = [(int(k), self.model.labels[int(k)], float(p)) for p, k in zip(values, order, strict=True)]
        if self.threshold is not None:
            classes = [entry for entry in classes if entry[2] >= self.threshold]
        return tuple(classes[: self.topk])

    def facts(self) -> dict[str, Any]:
        about = self.model.description
        return {"labels": self.labels or about.labels_source or None, "multi_label": about.multi_label}

    def lines(self, answer: Classes) -> list[str]:
        return [f"{100 * p:5.1f} %  {name}" for _, name, p in answer] or ["nothing"]

    def line(self, answer: Classes) -> str:
        return "".join(f" {100 * p:5.1f} % {name:<24}" for _, name, p in answer).rstrip() or " -"

    def rows(self, answer: Classes) -> Iterator[tuple[object, ...]]:
        for rank, (k, name, p) in enumerate(answer, 1):
            yield rank, k, name, f"{p:.6f}"

    def described(self, answer: Classes) -> list[dict[str, Any]]:
        return [{"class": k, "label": name, "probability": round(p, 6)} for k, name, p in answer]

    def drawn(self, answer: Classes, width: int, height: int) -> Image.Image:
        """The names on a dark ground, each with a bar of its probability."""
        from PIL import Image, ImageDraw, ImageFont

        from umt import drawing

        size = max(min(min(height, width) // 24, 40), 12)
        font = ImageFont.load_default(size)
        line, margin = round(size * 1.5), size // 2
        classes = answer[: max((height // 2 - 2 * margin) // line, 1)]
        image = Image.new("RGBA", (width, line * max(len(classes), 1) + 2 * margin), (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        names = [(drawing.fitted(name, width - 7 * size, font), p) for _, name, p in classes] or [("-", 0.0)]
        longest = max(font.getlength(name) for name, _ in names)
        right = min(round(longest + 6 * size), width)
        draw.rectangle((0, 0, right, image.height), fill=(0, 0, 0, 175))
        white = (255, 255, 255, 255)
        for number, (name, p) in enumerate(names):
            top = margin + number * line
            filled = round((right - 2 * margin) * p)
            if filled:
                draw.rectangle((margin, top, margin + filled, top + line - 3), fill=(42, 120, 214, 200))
            middle = top + (line - 3) // 2
            draw.text((margin + size // 3, middle), name, font=font, fill=white, anchor="lm")
            if name != "-":
                share = f"{100 * p:.0f} %"
                draw.text((right - margin - size // 3, middle), share, font=font, fill=white, anchor="rm")
        return image
