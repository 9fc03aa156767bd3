"""What a run numbers its classes by: lists, weights and checkpoints are held against each other before any training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from umt.data.labels import label_order
from umt.data.labels.label_order import Order, Settled
from umt.data.lists.balance import balance_of
from umt.data.lists.video_list import VideoList
from umt.data.loading.mixing import MixedList
from umt.models.files.weights import read_head
from umt.tasks.base import Start
from umt.tasks.classify.class_weights import class_weights, positive_weights, read_weights
from umt.tasks.classify.flags import CLASS_WEIGHTS
from umt.tasks.video.sources import sources

if TYPE_CHECKING:
    from umt.tasks.classify.recipe import ClassifyRecipe

log = logging.getLogger(__name__)


def listed(recipe: ClassifyRecipe, videos: VideoList) -> Order:
    """The order of the lists. Raises AnnotationError or ConfigError where what says it contradicts itself."""
    data = recipe.data
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


def settle(recipe: ClassifyRecipe, order: Order, start: Start | None = None) -> Settled:
    """The classes of a run on lists of `order` that begins with `start`, or with the weights of --finetune.

    Raises CheckpointError where the weights number classes as the lists do not.
    """
    settled = _with_head(recipe, order) if start is None else _with_checkpoint(start, order)
    if settled.warning:
        log.warning(settled.warning)
    if settled.note:
        log.info(settled.note)
    return settled


def _with_head(recipe: ClassifyRecipe, order: Order) -> Settled:
    model, data = recipe.model, recipe.data
    if not model.finetune or model.delete_head:
        return Settled(order.names)
    rows, names, may_be_published = read_head(model.finetune, model_key=model.model_key)
    if not rows:
        return Settled(order.names)
    head = label_order.of_head(
        model.finetune, rows, names, data_set=data.data_set, flag=data.head_label_order,
        may_be_published=may_be_published,
    )  # fmt: skip
    return label_order.settle(
        model.finetune, order, head, rows=rows, classes=data.nb_classes, data_set=data.data_set,
        test=recipe.evaluation.eval,
    )  # fmt: skip


def _with_checkpoint(start: Start, order: Order) -> Settled:
    names = start.record.get("class_names")
    if names is None:  # of a run whose lists did not say it
        return Settled(order.names)
    head = Order(tuple(names), str(start.path))
    settled = label_order.settle(
        str(start.path), order, head, rows=len(names), classes=len(order.names or names), data_set="image_folder",
        test=True, may_take_rows=False,
    )  # fmt: skip
    return Settled(settled.names, settled.head_rows, settled.warning)


def loss_weights(
    recipe: ClassifyRecipe, videos: VideoList, names: Sequence[str] | None, start: Start | None = None
) -> tuple[float, ...] | None:
    """How much each class counts in the loss (--class_weights), by the training list or a file. None: all alike.

    A run that goes on from a checkpoint keeps what it had, whatever videos have come or gone.
    """
    data = recipe.data
    if data.class_weights == "none":
        return None
    then = start.record.get("loss_weights") if start is not None else None
    if then is not None and len(then) == data.nb_classes:
        return tuple(then)
    balance = balance_of(videos, data.nb_classes)
    if data.class_weights not in CLASS_WEIGHTS:
        return tuple(read_weights(Path(data.class_weights), data.nb_classes, names or balance.names).tolist())
    if data.multi_label:
        return tuple(positive_weights(data.class_weights, balance.counts, balance.videos).tolist())
    return tuple(class_weights(data.class_weights, balance.counts).tolist())
