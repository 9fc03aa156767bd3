"""One probe of one model: settings are chosen without the test, then the test is looked at once.

Letters: R videos, V views, H settings, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from umt.errors import AnnotationError
from umt.evaluation.metrics import label_rank, top_k
from umt.evaluation.scores import ViewScores
from umt.evaluation.summary import Summary, summarise
from umt.tools.probe import attentive, knn, linear
from umt.tools.probe.features import HERE, Store, Views
from umt.tools.probe.heads import Curve, Setting, fit, predict
from umt.tools.probe.lists import Lists
from umt.tools.probe.table import Table

PROBES = ("knn", "linear", "attentive")


@dataclass(frozen=True)
class Plan:
    """What is tried."""

    probes: tuple[str, ...] = PROBES
    neighbours: tuple[int, ...] = knn.NEIGHBOURS
    temperatures: tuple[float, ...] = knn.TEMPERATURES
    linear_settings: tuple[Setting, ...] = tuple(linear.grid(linear.LRS, linear.WEIGHT_DECAYS))
    linear_epochs: int | None = None
    attentive_settings: tuple[Setting, ...] = tuple(linear.grid(attentive.LRS, attentive.WEIGHT_DECAYS))
    attentive_epochs: int | None = None
    seed: int = 0


@dataclass
class Outcome:
    """What became of one probe: every setting that was tried on the videos of the choice, and the test of one."""

    probe: str
    tried: list[dict[str, Any]]  # setting, top1 and loss on the videos of the choice
    chosen: int  # place in `tried`
    summary: Summary
    scores: ViewScores
    seconds: float
    curve: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "probe": self.probe,
            "top1": self.summary.merged.top1,
            "top5": self.summary.merged.top5,
            "interval": list(self.summary.interval),
            "per_view": [self.summary.per_view.top1, self.summary.per_view.top5],
            "videos": self.summary.videos,
            "chosen": self.tried[self.chosen],
            "tried": self.tried,
            "curve": [
                {"epoch": c.epoch, "top1": [round(x, 3) for x in c.top1], "loss": [round(x, 5) for x in c.loss]}
                for c in self.curve
            ],
            "seconds": round(self.seconds, 2),
            "notes": self.notes,
        }


@dataclass(frozen=True)
class _Samples:
    """Clips of some rows of a list: places in the flattened features, and their labels."""

    places: NDArray[np.int64]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, rows: NDArray[np.int64], labels: NDArray[np.int64], views: int) -> _Samples:
        places = rows[:, None] * views + np.arange(views)
        return cls(places.ravel(), np.repeat(labels[rows], views))


class Experiment:
    """The features of one model and the lists that they are of."""

    def __init__(self, store: Store, lists: Lists, views: dict[str, Views], plan: Plan, device: torch.device) -> None:
        self.store, self.lists, self.views, self.plan, self.device = store, lists, views, plan, device
        labels = {name: videos.labels for name, videos in lists.videos.items()}
        there = {name: np.flatnonzero(store.get(name, "marks") == HERE) for name in labels}
        train = there["train"]
        held = np.zeros(len(labels["train"]), np.bool_) if lists.chooses is None else lists.chooses
        own = self._samples(train[~held[train]], "train")
        self.choice = ("train", self._samples(train[held[train]], "train"))
        if lists.chooses is None:
            self.choice = ("val", self._samples(there["val"], "val"))
        self.fitted, self.all = own, self._samples(train, "train")
        for what, samples in (("training", own), ("choice", self.choice[1])):
            if not len(samples.places):
                raise AnnotationError(f"no video is left for the {what}: all were unreadable. Check --prefix.")

    def _samples(self, rows: NDArray[np.int64], split: str) -> _Samples:
        return _Samples.of(rows, self.lists.videos[split].labels, self.views[split].count)

    def _table(self, split: str, kind: str) -> Table:
        return Table(rearrange(self.store.get(split, kind), "r v ... -> (r v) ..."), device=self.device)

    def run(self, probe: str) -> Outcome:
        """`probe`: "knn", "linear" or "attentive"."""
        started = time.perf_counter()
        kind = "tokens" if probe == "attentive" else "pooled"
        tables = {split: self._table(split, kind) for split in self.lists.videos}
        if probe == "knn":
            tried, chosen, logits = self._nearest(tables)
            curve: list[Curve] = []
        else:
            tried, chosen, logits, curve = self._trained(probe, tables)
        scores = self._scores(probe, logits)
        made = Outcome(probe, tried, chosen, summarise(scores), scores, time.perf_counter() - started, curve)
        made.notes = self._at_the_edge(made)
        return made

    def _nearest(self, tables: dict[str, Table]) -> tuple[list[dict[str, Any]], int, NDArray[np.float32]]:
        plan, classes = self.plan, self.lists.classes
        split, asked = self.choice
        bank = tables["train"].take(self.fitted.places)
        neighbours = sorted({min(k, len(bank)) for k in plan.neighbours})
        similarity, rows = knn.nearest(tables[split].take(asked.places), bank, neighbours[-1])
        labels = torch.from_numpy(self.fitted.labels)[rows]
        tried: list[dict[str, Any]] = []
        for k in neighbours:
            for temperature in plan.temperatures:
                shares = knn.vote(similarity, labels, classes, k, temperature).numpy()
                own = shares[np.arange(len(shares)), asked.labels]
                top1, loss = top_k(label_rank(shares, asked.labels), 1), float(-np.log(own + 1e-3).mean())
                tried.append({"k": k, "temperature": temperature, "top1": top1, "loss": loss})
        chosen = best(tried)
        bank = tables["train"].take(self.all.places)
        count = int(tried[chosen]["k"])
        similarity, rows = knn.nearest(tables["test"], bank, count)
        labels = torch.from_numpy(self.all.labels)[rows]
        votes = knn.vote(similarity, labels, classes, count, tried[chosen]["temperature"])
        return tried, chosen, (votes + 1e-12).log().numpy()  # the softmax of a test gives the votes back

    def _trained(
        self, probe: str, tables: dict[str, Table]
    ) -> tuple[list[dict[str, Any]], int, NDArray[np.float32], list[Curve]]:
        plan = self.plan
        settings = plan.linear_settings if probe == "linear" else plan.attentive_settings
        split, asked = self.choice
        own = tables["train"].take(self.fitted.places)
        validation = (tables[split].take(asked.places), asked.labels)
        heads, curve = self._fit(probe, own, self.fitted.labels, settings, validation)
        last = curve[-1]
        tried = [
            {"lr": one.lr, "weight_decay": one.weight_decay, "top1": top1, "loss": loss}
            for one, top1, loss in zip(settings, last.top1, last.loss, strict=True)
        ]
        chosen = head = best(tried)
        if len(self.all.places) > len(self.fitted.places):  # the test gets a probe of all training videos
            everything = tables["train"].take(self.all.places)
            heads, _ = self._fit(probe, everything, self.all.labels, [settings[chosen]], None)
            head = 0
        return tried, chosen, predict(heads, tables["test"], head), curve

    def _fit(
        self, probe: str, rows: Table, labels: NDArray[np.int64], settings: Sequence[Setting],
        validation: tuple[Table, NDArray[np.int64]] | None,
    ) -> tuple[nn.Module, list[Curve]]:  # fmt: skip
        heads, classes, seed = len(settings), self.lists.classes, self.plan.seed
        if probe == "linear":
            made: nn.Module = linear.LinearHeads(rows, heads, classes)
            training = linear.training(len(rows), self.plan.linear_epochs)
        else:
            made = attentive.AttentiveHeads(rows.shape[-1], heads, classes, seed=seed, device=self.device)
            training = attentive.training(len(rows), self.plan.attentive_epochs)
        with tqdm(desc=f"{probe}, {heads} settings", unit="step", disable=None, leave=False) as bar:
            curve = fit(
                made, rows, labels, settings, training, seed=seed, validation=validation, progress=_progress(bar)
            )
        return made, curve

    def _scores(self, probe: str, logits: NDArray[np.float32]) -> ViewScores:
        videos, views = self.lists.videos["test"], self.views["test"]
        scores = ViewScores(
            rows=range(len(videos)),
            labels=videos.labels.tolist(),
            paths=[videos.path(row) for row in range(len(videos))],
            clips=views.clips,
            crops=views.crops,
            classes=self.lists.classes,
            provenance={"probe": probe, "weights": self.store.recipe["weights"], "features": self.store.digest},
            class_names=self.lists.names,
        )
        each = rearrange(logits, "(r clips crops) k -> r clips crops k", clips=views.clips, crops=views.crops)
        marks = self.store.get("test", "marks")
        for row in range(len(videos)):
            if marks[row] == HERE:
                scores.add_video(row, each[row])
            else:
                scores.count_as_wrong(row, "unreadable")
        return scores

    def _at_the_edge(self, made: Outcome) -> list[str]:
        """A choice at the border of what was tried: the best may lie beyond."""
        if made.probe == "knn":
            return []
        lrs = sorted({one["lr"] for one in made.tried})
        chosen = made.tried[made.chosen]["lr"]
        if len(lrs) > 1 and chosen in (lrs[0], lrs[-1]):
            side = "smallest" if chosen == lrs[0] else "largest"
            return [f"{made.probe}: the chosen learning rate ({chosen:g}) is the {side} that was tried; try others."]
        return []


def best(tried: Sequence[dict[str, Any]]) -> int:
    """The place of the highest top-1; among equals the lowest loss, then the first. Diverged ones come last."""

    def worth(place: int) -> tuple[float, float]:
        loss = tried[place]["loss"]
        return (tried[place]["top1"], -loss) if np.isfinite(loss) else (-1.0, 0.0)

    return max(range(len(tried)), key=lambda place: (*worth(place), -place))


def _progress(bar: Any) -> Callable[[int, int], None]:
    def told(step: int, total: int) -> None:
        bar.total = total
        bar.update(step - bar.n)

    return told
