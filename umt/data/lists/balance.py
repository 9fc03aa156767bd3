"""How many videos each class has: what a person should know before training on them."""

from __future__ import annotations

from dataclasses import dataclass

from umt.data.lists.video_list import VideoList

FEW = 5  # videos of a class, below which nothing reliable is learnt or measured of it
_SHOWN = 3


@dataclass(frozen=True)
class Balance:
    """Training videos of each class. Where videos have several labels, `videos` is less than the sum of `counts`."""

    counts: tuple[int, ...]
    names: tuple[str, ...]
    videos: int
    multi_label: bool = False

    @property
    def ratio(self) -> float:
        """Videos of the largest class per video of the smallest that has any."""
        there = [count for count in self.counts if count]
        return max(there) / min(there) if there else 1.0

    @property
    def few(self) -> list[str]:
        """Classes with fewer than five videos."""
        return [name for name, count in zip(self.names, self.counts, strict=True) if count < FEW]

    @property
    def majority(self) -> float:
        """Share of the largest class: the accuracy of always predicting it."""
        return max(self.counts) / max(self.videos, 1)

    def lines(self) -> list[str]:
        """A small table for a console."""
        order = sorted(range(len(self.counts)), key=lambda i: (self.counts[i], i))
        each = f"{len(self.counts)} classes, {self.videos} training videos"
        if self.multi_label:
            each += f", {sum(self.counts) / max(self.videos, 1):.3g} labels per video"
        lines = [f"class balance: {each}; largest to smallest {self.ratio:.3g} : 1"]
        if order:
            lines.append(f"  smallest     {self._some(order[:_SHOWN])}")
            lines.append(f"  largest      {self._some(order[::-1][:_SHOWN])}")
        if self.few:
            more = ", ..." if len(self.few) > 2 * _SHOWN else ""
            shown = ", ".join(self.few[: 2 * _SHOWN])
            lines.append(f"  below {FEW}      {len(self.few)} classes: {shown}{more}")
        if self.ratio >= 3:
            lines.append("  rare classes count more in the loss by --class_weights balanced, or less strongly sqrt")
        lines.append("  umt data check --hash finds files of the same content in training and validation")
        return lines

    def _some(self, labels: list[int]) -> str:
        return ", ".join(f"{self.names[label]} {self.counts[label]}" for label in labels)


def balance_of(videos: VideoList, classes: int) -> Balance:
    """The balance of a training list of `classes` classes."""
    counts = videos.counts(classes).tolist()
    names = videos.class_names or [str(label) for label in range(len(counts))]
    return Balance(tuple(counts), tuple(names), len(videos), videos.multi_label)
