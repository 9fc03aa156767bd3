"""Tasks from the flags that concern them: models, the weights that they start from, and what is done to a batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from umt import randomness
from umt.config.schema import Config, FinetuneConfig, PretrainConfig, build, flatten
from umt.data import catalog
from umt.data.labels.label_order import Settled
from umt.data.transforms.mixup import ClipMixup
from umt.engine.runtime import Runtime
from umt.models import LoadReport, create_model, create_teacher, load_weights
from umt.models.files.weights import read_head
from umt.models.vit.freezing import freeze_blocks
from umt.tasks.base import Task
from umt.tasks.classify import Classify
from umt.tasks.distill import Distill

log = logging.getLogger(__name__)


def build_task(
    config: Config,
    run: Runtime,
    *,
    weights: bool = True,
    classes: Settled | None = None,
    loss_weights: Sequence[float] | None = None,
) -> Task:
    """The task on the run's device; initial weights are a function of --seed. `weights`: load those that flags name.

    `loss_weights`: how much each class counts in the loss, as `assemble.classes` has settled it.
    """
    task = make_task(config, weights=weights, classes=classes, loss_weights=loss_weights)
    task.to(run.device)
    return task


def make_task(
    config: Config,
    *,
    weights: bool = True,
    classes: Settled | None = None,
    loss_weights: Sequence[float] | None = None,
) -> Task:
    """The same where torch makes tensors by default; under a fake mode, without memory."""
    torch.manual_seed(randomness.key(config.runtime.seed, "weights"))
    if isinstance(config, PretrainConfig):
        return _distill(config, weights)
    return _classify(config, weights, classes, loss_weights)


def task_from_record(content: Mapping[str, Any]) -> Task:
    values = {name: value for name, value in content.items() if name not in ("class_names", "loss_weights")}
    config = build(values.pop("task"), values)
    return build_task(config, Runtime(), weights=True, loss_weights=content.get("loss_weights"))


def record_of(
    config: Config, names: Sequence[str] | None = None, loss_weights: Sequence[float] | None = None
) -> dict[str, Any]:
    """Every flag as a plain value, and the task, so that `task_from_record` can make the task again; class names."""
    return {
        "task": config.task,
        **flatten(config),
        **({"class_names": list(names)} if names else {}),
        **({"loss_weights": list(loss_weights)} if loss_weights else {}),
    }


def _distill(config: PretrainConfig, weights: bool) -> Distill:
    model, teacher, data = config.model, config.teacher, config.data
    image_teacher, origin = create_teacher(
        teacher.clip_teacher,
        image_size=teacher.clip_input_resolution,
        return_layers=teacher.clip_return_layer,
        return_interval=teacher.clip_return_interval,
        norm_type=teacher.clip_norm_type,
        weights=teacher.clip_teacher_weights,
        download=weights,
    )
    log.info("teacher: %s", origin)
    student = create_model(
        model.model,
        image_size=model.input_size,
        num_frames=data.num_frames,
        tubelet_size=model.tubelet_size,
        drop_path_rate=model.drop_path,
        checkpoint_num=model.checkpoint_num if model.use_checkpoint else 0,
        use_learnable_pos_emb=model.use_learnable_pos_emb,
        teacher_width=model.clip_output_dim or image_teacher.output_dim,
        decoder_embed_dim=model.clip_decoder_embed_dim,
        return_layers=teacher.clip_return_layer,
        return_interval=model.clip_student_return_interval,
        norm_type=teacher.clip_norm_type,
    )
    return Distill(
        student,
        image_teacher,
        mask_type=teacher.mask_type,
        mask_ratio=teacher.mask_ratio,
        loss=teacher.clip_loss_type,
        loss_weight=teacher.clip_loss_ratio,
    )


def _classify(
    config: FinetuneConfig, weights: bool, classes: Settled | None, loss_weights: Sequence[float] | None
) -> Classify:
    model, data, augment = config.model, config.data, config.augment
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
        log.info("%s", load_finetuned(config, classifier, classes))
    freeze_blocks(classifier, model.freeze_blocks)
    mixes = augment.mixup > 0 or augment.cutmix > 0 or augment.cutmix_minmax is not None
    mixup = None
    if mixes and not config.evaluation.eval:  # timm takes seconds to import: a test does without
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


def load_finetuned(config: FinetuneConfig, classifier: torch.nn.Module, classes: Settled | None = None) -> LoadReport:
    """--finetune into the classifier. A Kinetics-710 head serves the classes of a smaller Kinetics set by index."""
    model, data = config.model, config.data
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
