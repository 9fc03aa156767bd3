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
from umt.tools.probe import PROBES, attentive, knn, linear
from umt.tools.probe.features import Kept, Views
from umt.tools.probe.heads import Curve, Setting, fit, predict
from umt.tools.probe.lists import Lists
from umt.tools.probe.table import Table


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
    """The result of a probe: every setting that was tried on the videos of the choice, and the test of the best."""

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

    def __init__(self, kept: Kept, lists: Lists, views: dict[str, Views], plan: Plan, device: torch.device) -> None:
        self.kept, self.lists, self.views, self.plan, self.device = kept, lists, views, plan, device
        self._loaded: tuple[str, dict[str, Table]] = ("", {})
        labels = {name: videos.labels for name, videos in lists.videos.items()}
        self.present = {name: kept.present(name) for name in labels}
        train = self.present["train"]
        held = np.zeros(len(labels["train"]), np.bool_) if lists.chooses is None else lists.chooses
        self.fitted, self.all = self._samples(train[~held[train]], "train"), self._samples(train, "train")
        self.choice = ("train", self._samples(train[held[train]], "train"))
        if lists.chooses is None:
            self.choice = ("val", self._samples(self.present["val"], "val"))
        for what, samples in (("training", self.fitted), ("choice", self.choice[1])):
            if not len(samples.places):
                raise AnnotationError(f"no video is left for the {what}: all were unreadable. Check --prefix.")

    def _samples(self, rows: NDArray[np.int64], split: str) -> _Samples:
        return _Samples.of(rows, self.lists.videos[split].labels, self.views[split].count)

    def _tables(self, kind: str) -> dict[str, Table]:
        """The features of all lists; those of the last kind stay loaded for the next probe."""
        if self._loaded[0] != kind:
            self._loaded = ("", {})  # frees the others first
            tables = {split: Table(self.kept.array(split, kind), device=self.device) for split in self.lists.videos}
            self._loaded = (kind, tables)
        return self._loaded[1]

    def run(self, probe: str) -> Outcome:
        """`probe`: "knn", "linear" or "attentive"."""
        started = time.perf_counter()
        tables = self._tables("tokens" if probe == "attentive" else "pooled")
        if probe == "knn":
            tried, chosen, logits = self._nearest(tables)
            curve: list[Curve] = []
        else:
            tried, chosen, logits, curve = self._trained(probe, tables)
        scores = self._scores(probe, logits)
        outcome = Outcome(probe, tried, chosen, summarise(scores), scores, time.perf_counter() - started, curve)
        outcome.notes = self._at_the_edge(outcome)
        return outcome

    def _nearest(self, tables: dict[str, Table]) -> tuple[list[dict[str, Any]], int, NDArray[np.float32]]:
        plan, classes = self.plan, self.lists.classes
        split, samples = self.choice
        bank = tables["train"].take(self.fitted.places)
        neighbours = sorted({min(k, len(bank)) for k in plan.neighbours})
        similarity, rows = knn.nearest(tables[split].take(samples.places), bank, neighbours[-1])
        labels = torch.from_numpy(self.fitted.labels)[rows]
        tried: list[dict[str, Any]] = []
        for k in neighbours:
            for temperature in plan.temperatures:
                shares = knn.vote(similarity, labels, classes, k, temperature).numpy()
                correct = shares[np.arange(len(shares)), samples.labels]
                top1, loss = top_k(label_rank(shares, samples.labels), 1), float(-np.log(correct + 1e-3).mean())
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
        split, samples = self.choice
        training = tables["train"].take(self.fitted.places)
        validation = (tables[split].take(samples.places), samples.labels)
        heads, curve = self._fit(probe, training, self.fitted.labels, settings, validation)
        last = curve[-1]
        tried = [
            {"lr": setting.lr, "weight_decay": setting.weight_decay, "top1": top1, "loss": loss}
            for setting, top1, loss in zip(settings, last.top1, last.loss, strict=True)
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
            model: nn.Module = linear.LinearHeads(rows, heads, classes)
            training = linear.training(len(rows), self.plan.linear_epochs)
        else:
            model = attentive.AttentiveHeads(rows.shape[-1], heads, classes, seed=seed, device=self.device)
            training = attentive.training(len(rows), self.plan.attentive_epochs)
        with tqdm(desc=f"{probe}, {heads} settings", unit="step", disable=None, leave=False) as bar:
            curve = fit(
                model, rows, labels, settings, training, seed=seed, validation=validation, progress=_progress(bar)
            )
        return model, curve

    def _scores(self, probe: str, logits: NDArray[np.float32]) -> ViewScores:
        videos, views = self.lists.videos["test"], self.views["test"]
        scores = ViewScores(
            rows=range(len(videos)),
            labels=videos.labels.tolist(),
            paths=[videos.path(row) for row in range(len(videos))],
            clips=views.clips,
            crops=views.crops,
            classes=self.lists.classes,
            provenance={"probe": probe, "weights": self.kept.recipe["weights"], "features": self.kept.digest},
            class_names=self.lists.names,
        )
        each = rearrange(logits, "(r clips crops) k -> r clips crops k", clips=views.clips, crops=views.crops)
        present = set(self.present["test"].tolist())
        for row in range(len(videos)):
            if row in present:
                scores.add_video(row, each[row])
            else:
                scores.count_as_wrong(row, "unreadable")
        return scores

    def _at_the_edge(self, outcome: Outcome) -> list[str]:
        """A choice at the border of what was tried: the best may lie beyond."""
        if outcome.probe == "knn":
            return []
        lrs = sorted({entry["lr"] for entry in outcome.tried})
        chosen = outcome.tried[outcome.chosen]["lr"]
        if len(lrs) > 1 and chosen in (lrs[0], lrs[-1]):
            side = "smallest" if chosen == lrs[0] else "largest"
            return [f"{outcome.probe}: the chosen learning rate ({chosen:g}) is the {side} that was tried; try others."]
        return []


def best(tried: Sequence[dict[str, Any]]) -> int:
    """The place of the highest top-1; among equals the lowest loss, then the first. Diverged ones come last."""

    def worth(place: int) -> tuple[float, float]:
        loss = tried[place]["loss"]
        return (tried[place]["top1"], -loss) if np.isfinite(loss) else (-1.0, 0.0)

    return max(range(len(tried)), key=lambda place: (*worth(place), -place))


def _progress(bar: Any) -> Callable[[int, int], None]:
    def update(step: int, total: int) -> None:
        bar.total = total
        bar.update(step - bar.n)

    return update
