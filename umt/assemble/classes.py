"""What a run numbers its classes by: lists, weights and checkpoints are held against each other before any training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umt.config.lists import sources
from umt.config.recipe_flags import CLASS_WEIGHTS
from umt.config.schema import FinetuneConfig
from umt.data import labels
from umt.data.labels import label_order
from umt.data.labels.label_order import Order, Settled
from umt.data.lists.balance import balance_of
from umt.data.lists.video_list import VideoList
from umt.data.loading.mixing import MixedList
from umt.engine import checkpoints
from umt.engine.runtime import Runtime
from umt.models.files.weights import read_head
from umt.tasks.class_weights import class_weights, positive_weights, read_weights

log = logging.getLogger(__name__)


def listed(config: FinetuneConfig, videos: VideoList) -> Order:
    """The order of the lists. Raises AnnotationError or ConfigError where what says it contradicts itself."""
    data = config.data
    parts = videos.parts if isinstance(videos, MixedList) else (videos,)
    return label_order.agreed(
        [
            label_order.of_list(
                source.path, data_set=data.data_set, classes=data.nb_classes, flag=data.label_order, videos=part
            )
            # Validation and test have lists of the first source only.
            for source, part in zip(sources(data), parts, strict=False)
        ]
    )


def loss_weights(
    config: FinetuneConfig, videos: VideoList, names: Sequence[str] | None, start: Path | None = None
) -> tuple[float, ...] | None:
    """How much each class counts in the loss (--class_weights), by the training list or a file. None: all alike.

    A run that goes on from the checkpoint `start` keeps what it had, whatever videos have come or gone.
    """
    data = config.data
    if data.class_weights == "none":
        return None
    then = checkpoints.load(start, lazily=True)["config"].get("loss_weights") if start is not None else None
    if then is not None and len(then) == data.nb_classes:
        return tuple(then)
    balance = balance_of(videos, data.nb_classes)
    if data.class_weights not in CLASS_WEIGHTS:
        return tuple(read_weights(Path(data.class_weights), data.nb_classes, names or balance.names).tolist())
    if data.multi_label:
        return tuple(positive_weights(data.class_weights, balance.counts, balance.videos).tolist())
    return tuple(class_weights(data.class_weights, balance.counts).tolist())


def settle(config: FinetuneConfig, lists: Order, *, test: bool = False) -> Settled:
    """Lists and the head of --finetune. Raises CheckpointError where the one numbers classes as the other does not."""
    model, data = config.model, config.data
    if not model.finetune or model.delete_head:
        return Settled(lists.names)
    rows, names, may_be_published = read_head(model.finetune, model_key=model.model_key)
    if not rows:
        return Settled(lists.names)
    head = label_order.of_head(
        model.finetune, rows, names, data_set=data.data_set, flag=data.head_label_order,
        may_be_published=may_be_published,
    )  # fmt: skip
    settled = label_order.settle(
        model.finetune, lists, head, rows=rows, classes=data.nb_classes, data_set=data.data_set, test=test
    )
    if settled.warning:
        log.warning(settled.warning)
    if settled.note:
        log.info(settled.note)
    return settled


def settle_with_checkpoint(path: Path | str, config: Mapping[str, Any], lists: Order) -> Settled:
    """Lists and a training checkpoint of the configuration `config`. Raises CheckpointError where they are at odds."""
    names = config.get("class_names")
    if names is None:  # of a run whose lists did not say it
        return Settled(lists.names)
    head = Order(tuple(names), str(path))
    settled = label_order.settle(
        str(path), lists, head, rows=len(names), classes=len(lists.names or names), data_set="image_folder", test=True,
        may_take_rows=False,
    )  # fmt: skip
    if settled.warning:
        log.warning(settled.warning)
    return settled


def write(folder: Path, settled: Settled, run: Runtime) -> None:
    """labels.txt beside a run's results, where the names are known."""
    if settled.names is not None and run.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        with checkpoints.replacing(folder / labels.LABELS_FILE) as file:
            file.write(labels.text_of(settled.names).encode("utf-8", "surrogateescape"))
