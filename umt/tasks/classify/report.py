"""The report at the end of a run on the user's own videos: gathered here, judged by `umt.evaluation.sanity`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from umt.data.lists.balance import Balance, balance_of
from umt.data.lists.video_list import VideoList
from umt.evaluation.multi_label import MultiLabelSummary
from umt.evaluation.multiview import merge
from umt.evaluation.sanity import ClassResult, Facts, confused, examine
from umt.evaluation.scores import ViewScores
from umt.evaluation.summary import Summary
from umt.evaluation.view_results import SCORES_FILE
from umt.tasks.base import Outcome
from umt.tasks.classify.task import Classify
from umt.writing import replacing

if TYPE_CHECKING:
    from umt.tasks.classify.recipe import ClassifyRecipe

log = logging.getLogger(__name__)


def write(
    recipe: ClassifyRecipe,
    task: Classify,
    outcome: Outcome,
    *,
    videos: VideoList,
    validation: VideoList | None,
    test: VideoList,
) -> None:
    """Writes sanity.txt and sanity.json into the output folder and logs the former. For the main process."""
    output = Path(recipe.checkpoint.output_dir)
    balance = balance_of(videos, recipe.data.nb_classes)
    scores = ViewScores.load(output / SCORES_FILE)
    line = _line(output / "log.txt", outcome.best_epoch if recipe.evaluation.test_best else None)
    summary = outcome.summary
    assert isinstance(summary, Summary | MultiLabelSummary)
    measured = _many(summary, balance) if isinstance(summary, MultiLabelSummary) else _one(summary, scores, balance)
    model = recipe.model
    facts = Facts(
        videos=(len(videos), len(validation) if validation is not None else 0, len(test)),
        multi_label=recipe.data.multi_label,
        train=(line.get("train_acc1"), line.get("train_loss")),
        val=(line.get("val_acc1"), line.get("val_loss")),
        epoch=int(line.get("epoch", -1)) + 1,
        epochs=recipe.optim.epochs,
        first_loss=task.first_loss,
        new_head=model.delete_head or not model.finetune,
        weighted=recipe.data.class_weights != "none",
        random_start=not model.finetune,
        frozen=model.freeze_blocks,
        mixes=recipe.augment.mixup > 0 or recipe.augment.cutmix > 0,
        unreadable=(len(outcome.failed_rows), len(summary.unreadable)),
        tested_on_validation=validation is not None and recipe.evaluation.test_best and _same(validation, test),
        **measured,
    )
    verdict = examine(facts)
    with replacing(output / "sanity.txt") as file:
        file.write(f"{verdict.text()}\n".encode())
    with replacing(output / "sanity.json") as file:
        file.write(json.dumps(verdict.to_json(), indent=1).encode())
    log.info("%s", verdict.text())


def _one(summary: Summary, scores: ViewScores, balance: Balance) -> dict[str, Any]:
    predicted = merge(scores.logits).argmax(-1)
    majority = int(np.argmax(balance.counts))
    return {
        "classes": tuple(
            ClassResult(balance.names[one.index], balance.counts[one.index], one.videos, one.top1)
            for one in summary.classes
        ),
        "score": summary.merged.top1,
        "baseline": 100 * float((scores.labels == majority).mean()),
        "interval": summary.interval,
        "mean_over_classes": summary.mean_class_top1,
        "pairs": tuple(confused(scores.labels, predicted, balance.names)),
    }


def _many(summary: MultiLabelSummary, balance: Balance) -> dict[str, Any]:
    there = [one.videos for one in summary.classes if one.videos]
    return {
        "classes": tuple(
            ClassResult(balance.names[one.index], balance.counts[one.index], one.videos, one.average_precision)
            for one in summary.classes
        ),
        "score": summary.merged.map,
        # All videos of one score: the precision of every class is its share of the videos.
        "baseline": 100 * sum(there) / max(len(there), 1) / max(summary.videos, 1),
    }


def _line(file: Path, epoch: int | None) -> Mapping[str, Any]:
    """The line of log.txt of `epoch`, counted from 0; None: the last."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    lines = [line for line in lines if "epoch" in line and epoch in (None, line["epoch"])]
    return lines[-1] if lines else {}


def _same(one: VideoList, other: VideoList) -> bool:
    return len(one) == len(other) and all(one.file(row) == other.file(row) for row in range(len(one)))
