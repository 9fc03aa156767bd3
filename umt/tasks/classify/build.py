"""The parts of a finetuning: the classifier and what it starts from, its classes, its clips, what a test collects."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from umt import randomness
from umt.data import catalog, labels
from umt.data.labels.label_order import Settled
from umt.data.lists.balance import balance_of
from umt.data.lists.video_list import VideoList
from umt.data.transforms.mixup import ClipMixup
from umt.errors import CheckpointError
from umt.evaluation.answers import answers
from umt.evaluation.scores import ViewScores
from umt.evaluation.validation import ValidationScores
from umt.evaluation.view_results import ViewResults
from umt.models import LoadReport, create_model, load_weights
from umt.models.files.weights import read_head
from umt.models.vit.freezing import freeze_blocks
from umt.optim.param_groups import param_groups
from umt.tasks.base import EvaluationSet, Parts, Place, Start
from umt.tasks.classify import classes, report
from umt.tasks.classify.data import evaluation_list, test_loader, train_loader, training_list, validation_loader
from umt.tasks.classify.task import Classify

if TYPE_CHECKING:
    from umt.tasks.classify.recipe import ClassifyRecipe

log = logging.getLogger(__name__)


def build_parts(recipe: ClassifyRecipe, place: Place, start: Start | None) -> Parts:
    """See `ClassifyRecipe.build`."""
    if recipe.only_tests:
        return _to_test(recipe, place, start)
    evaluation = recipe.evaluation
    videos = training_list(recipe)
    settled = classes.settle(recipe, classes.listed(recipe, videos), start)
    weights = classes.loss_weights(recipe, videos, settled.names, start)
    task = make_task(recipe, weights=start is None, classes=settled, loss_weights=weights)
    task.to(place.device)
    test = evaluation_list(recipe, "test", place)  # a faulty list is found before the training, not after it
    val = None if evaluation.disable_eval_during_finetuning else evaluation_list(recipe, "val", place)
    is_own = recipe.is_own
    return Parts(
        task,
        record_of(recipe, settled.names, weights),
        train=train_loader(recipe, videos, place),
        validation=None if val is None else _validation(recipe, val, place),
        test=_test(recipe, test, place, settled.names),
        parameter_groups=param_groups(
            task.model, weight_decay=recipe.optim.weight_decay, layer_decay=recipe.optim.layer_decay
        ),
        best_metric=answers(recipe.data.multi_label).best_metric,
        ema_decay=recipe.model.model_ema_decay if recipe.model.model_ema else None,
        files=_files(settled.names),
        notes=balance_of(videos, recipe.data.nb_classes).lines() if is_own else (),
        report=functools.partial(report.write, recipe, task, videos=videos, validation=val, test=test)
        if is_own
        else None,
    )


def _to_test(recipe: ClassifyRecipe, place: Place, start: Start | None) -> Parts:
    videos = evaluation_list(recipe, "test", place)
    settled = classes.settle(recipe, classes.listed(recipe, videos), start)
    task = make_task(recipe, weights=False)
    if start is None:
        loaded = load_finetuned(recipe, task.model, settled)
        if {"head.weight", "head.bias"} & set(loaded.new):
            raise CheckpointError(
                f"--finetune ({recipe.model.finetune}) has no head for {recipe.data.nb_classes} classes, so --eval "
                "would test a random one. Name a finetuned checkpoint."
            )
    task.to(place.device)
    return Parts(task, record_of(recipe, settled.names), test=_test(recipe, videos, place, settled.names))


def record_of(
    recipe: ClassifyRecipe, names: Sequence[str] | None = None, loss_weights: Sequence[float] | None = None
) -> dict[str, object]:
    """Every flag, class names and class weights: what the task can be made of again (`task_from_record`)."""
    return {
        **recipe.record(),
        **({"class_names": list(names)} if names else {}),
        **({"loss_weights": list(loss_weights)} if loss_weights else {}),
    }


def _files(names: Sequence[str] | None) -> dict[str, str]:
    """labels.txt next to a run's results, where the names are known."""
    return {} if names is None else {labels.LABELS_FILE: labels.text_of(names)}


def _validation(recipe: ClassifyRecipe, videos: VideoList, place: Place) -> EvaluationSet:
    loader = validation_loader(recipe, videos, place)
    return EvaluationSet(
        loader=lambda finished: loader,
        results=lambda provenance: ValidationScores(len(videos), multi_label=recipe.data.multi_label),
        unreadable_is_wrong=True,  # else the loader raises
        unit="clip",
    )


def _test(recipe: ClassifyRecipe, videos: VideoList, place: Place, names: Sequence[str] | None) -> EvaluationSet:
    evaluation = recipe.evaluation
    clips, crops = evaluation.test_num_segment, evaluation.test_num_crop

    def results(provenance: Mapping[str, str | int | float]) -> ViewResults:
        return ViewResults(
            ViewScores(
                rows=range(len(videos)),
                labels=videos.targets(),
                paths=[videos.path(row) for row in range(len(videos))],
                clips=clips,
                crops=crops,
                classes=recipe.data.nb_classes,
                class_names=names,
                provenance={
                    "model": recipe.model.model,
                    "list": videos.source,
                    "input_size": recipe.model.input_size,
                    "num_frames": recipe.data.num_frames,
                    "decoder": recipe.data.decoder,
                    **provenance,
                },
            )
        )

    return EvaluationSet(
        loader=functools.partial(test_loader, recipe, videos, place),
        results=results,
        about=f"{len(videos)} videos, {clips} clips x {crops} crops",
        batch_size=recipe.optim.batch_size,
        unreadable_is_wrong=evaluation.count_unreadable_as_wrong,
    )


def make_task(
    recipe: ClassifyRecipe,
    *,
    weights: bool = True,
    classes: Settled | None = None,
    loss_weights: Sequence[float] | None = None,
) -> Classify:
    """The classifier where torch makes tensors by default; initial weights are a function of --seed.

    `weights`: load those of --finetune, with the head that `classes` has settled. `loss_weights`: how much each class
    counts in the loss.
    """
    torch.manual_seed(randomness.key(recipe.runtime.seed, "weights"))
    model, data, augment = recipe.model, recipe.data, recipe.augment
    classifier = create_model(
        model.model,
        image_size=model.input_size,
        num_frames=data.num_frames,
        tubelet_size=model.tubelet_size,
        num_classes=data.nb_classes,
        use_mean_pooling=model.use_mean_pooling,
        fc_drop_rate=model.fc_drop_rate,
        drop_rate=model.drop,
        attn_drop_rate=model.attn_drop_rate,
        drop_path_rate=model.drop_path,
        checkpoint_num=model.checkpoint_num if model.use_checkpoint else 0,
        use_learnable_pos_emb=model.use_learnable_pos_emb,
        init_scale=model.init_scale,
    )
    if weights and model.finetune:
        log.info("%s", load_finetuned(recipe, classifier, classes))
    freeze_blocks(classifier, model.freeze_blocks)
    mixup = None
    if recipe.mixes and not recipe.only_tests:  # timm takes seconds to import: a test does without
        mixup = ClipMixup(
            num_classes=data.nb_classes,
            mixup_alpha=augment.mixup,
            cutmix_alpha=augment.cutmix,
            cutmix_minmax=augment.cutmix_minmax,
            prob=augment.mixup_prob,
            switch_prob=augment.mixup_switch_prob,
            mode=augment.mixup_mode,
            label_smoothing=augment.smoothing,
        )
    return Classify(
        classifier,
        smoothing=augment.smoothing,
        mixup=mixup,
        erase_mode=augment.remode,
        class_weights=None if loss_weights is None else torch.tensor(loss_weights, dtype=torch.float32),
        multi_label=data.multi_label,
    )


def load_finetuned(recipe: ClassifyRecipe, classifier: torch.nn.Module, classes: Settled | None = None) -> LoadReport:
    """--finetune into the classifier. A Kinetics-710 head serves the classes of a smaller Kinetics set by index."""
    model, data = recipe.model, recipe.data
    if classes is None:
        kinetics = data.data_set in ("Kinetics", "Kinetics_sparse") and data.nb_classes != 710
        within = kinetics and read_head(model.finetune, model_key=model.model_key).rows == 710
        classes = Settled(None, catalog.k710_head_rows(data.nb_classes) if within else None)
    return load_weights(
        classifier,
        model.finetune,
        new_head=model.delete_head,
        head_rows=classes.head_rows,
        model_key=model.model_key,
        model_prefix=model.model_prefix,
    )
