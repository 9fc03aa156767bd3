"""Values of a finetuning held against each other and against its files, before torch or a GPU is touched.

`check` needs nothing but the flags; `check_files` looks at lists and weights. Each raises one sentence that names the
flag, its value and the remedy.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from umt.data import catalog
from umt.data.labels import label_order
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, ConfigError
from umt.models.files import fetch, published
from umt.models.specs import SPECS
from umt.tasks.classify import lists, own_data
from umt.tasks.classify.flags import CLASS_WEIGHTS
from umt.tasks.video.model_facts import check_recomputation
from umt.tasks.video.sources import check_data, check_prefixes, require_path, sources

if TYPE_CHECKING:
    from umt.tasks.classify.recipe import ClassifyRecipe

log = logging.getLogger("umt")


def check(recipe: ClassifyRecipe) -> None:
    """Raises ConfigError for the first contradiction between flags."""
    _check_model(recipe)
    _check_mixing(recipe)
    _check_testing(recipe)
    _check_classes(recipe)
    check_data(recipe.data)
    check_recomputation(recipe.model)


def _check_model(recipe: ClassifyRecipe) -> None:
    model, depth = recipe.model, recipe.sizes.depth
    recipe.grid  # noqa: B018  (raises where frames or pixels do not divide into tokens)
    if model.checkpoint_num > depth:
        raise ConfigError(
            f"--checkpoint_num ({model.checkpoint_num}) exceeds the {depth} blocks of {model.model}. "
            f"Try --checkpoint_num {depth}."
        )


def _check_mixing(recipe: ClassifyRecipe) -> None:
    augment, batch_size, copies = recipe.augment, recipe.optim.batch_size, recipe.data.num_sample
    if recipe.mixes and batch_size * copies % 2:
        raise ConfigError(
            f"--batch_size ({batch_size}) x --num_sample ({copies}) must be even for mixup and cutmix. "
            f"Try --batch_size {batch_size + 1}, or --mixup 0 --cutmix 0."
        )
    for flag, shares in (("crop_scale", augment.crop_scale), ("cutmix_minmax", augment.cutmix_minmax)):
        if shares is not None and shares[0] > shares[1]:
            least, most = shares
            raise ConfigError(f"--{flag} ({least:g} {most:g}) must be ascending. Try --{flag} {most:g} {least:g}.")


def _check_testing(recipe: ClassifyRecipe) -> None:
    evaluation, side = recipe.evaluation, recipe.augment.short_side_size
    if evaluation.test_best and evaluation.disable_eval_during_finetuning:
        raise ConfigError(
            "--test_best needs the validation that --disable_eval_during_finetuning turns off. Leave out one of them."
        )
    # A test crop is a square of the short side, so the model would get another size than it was built for.
    if side is not None and side != recipe.model.input_size:
        raise ConfigError(
            f"--short_side_size ({side}) must equal --input_size ({recipe.model.input_size}), the side that the model "
            f"takes. Try --short_side_size {recipe.model.input_size}."
        )


def _check_classes(recipe: ClassifyRecipe) -> None:
    data, model = recipe.data, recipe.model
    facts = catalog.get(data.data_set)
    if facts.classes not in (None, data.nb_classes):
        raise ConfigError(
            f"--nb_classes ({data.nb_classes}) must be {facts.classes} for --data_set {data.data_set}. "
            f"Try --nb_classes {facts.classes}."
        )
    if data.multi_label and facts.lists == "folders":
        raise ConfigError(
            f"--multi_label needs lists, `path,3|17`: in --data_set {data.data_set} a video is in one folder. Leave it "
            "out, or write train.csv."
        )
    if data.class_weights not in CLASS_WEIGHTS and not os.path.isfile(data.class_weights):
        raise ConfigError(
            f"--class_weights ({data.class_weights}) is neither a file of lines `class,weight` nor one of "
            f"{', '.join(CLASS_WEIGHTS)}. Try --class_weights balanced."
        )
    if data.shots is not None and not isinstance(data.data_path, str):
        raise ConfigError(f"--shots ({data.shots}) takes videos of one list. Give one --data_path.")
    depth = recipe.sizes.depth
    if model.freeze_blocks > depth:
        raise ConfigError(
            f"--freeze_blocks ({model.freeze_blocks}) exceeds the {depth} blocks of {model.model}. "
            f"Try --freeze_blocks {depth}, which trains the head alone."
        )
    if model.freeze_blocks and not model.finetune:
        log.warning("--freeze_blocks (%d) keeps random weights without --finetune.", model.freeze_blocks)


# ---- files


def check_files(recipe: ClassifyRecipe) -> None:
    """Raises AnnotationError for lists that do not serve, ConfigError for published weights of another size."""
    data = recipe.data
    if not data.data_path:
        raise AnnotationError("--data_path is missing. Give the folder of train.csv, val.csv and test.csv.")
    for source in sources(data):
        if not is_url(source.path):  # what a store has is found when it is read
            require_path(source.path)
            if not os.path.isdir(source.path):
                raise own_data.file_for_folder(source.path)
    of_files = catalog.get(data.data_set).lists == "csv"
    if of_files:
        _require_lists(recipe)
    order = {"data_set": data.data_set, "classes": data.nb_classes, "flag": data.label_order}
    label_order.agreed([label_order.of_list(source.path, **order) for source in sources(data)])  # type: ignore[arg-type]
    if of_files:
        # Read before torch is imported, and before a launcher starts processes that would all say the same.
        rows = [(source, lists.read_split(recipe, split, source)) for split, source in lists.splits(recipe)]
        label_order.agreed([label_order.of_list(source.path, **order, videos=videos) for source, videos in rows])  # type: ignore[arg-type]
    if recipe.choices and not recipe.evaluation.eval:
        from umt.data.lists.own_folder import require_readable  # numpy comes with it

        require_readable(lists.read_split(recipe, "train", sources(data)[0]), data.decoder)
    check_prefixes(data)
    _check_published_size(recipe)


def _require_lists(recipe: ClassifyRecipe) -> None:
    for path, source in lists.list_files(recipe):
        if not is_url(path) and not os.path.isfile(path):
            split = os.path.splitext(os.path.basename(path))[0]
            folders = split == "train" and any(entry.is_dir() for entry in Path(source.path).iterdir())
            raise AnnotationError(
                f"{path} does not exist: --data_path ({source.path}) must hold the {split} list."
                + (" If its folders are the classes, give --data_set image_folder." if folders else "")
            )


def _check_published_size(recipe: ClassifyRecipe) -> None:
    """A published name says which size it is, before more than a gigabyte of it is fetched."""
    source, name = recipe.model.finetune, recipe.model.model
    row = published.find(Path(source.split("#sha256=")[0]).name) if source else None
    if row is None or not fetch.is_remote(source) or SPECS[row.model].width == SPECS[name].width:
        return
    near = row.model if SPECS[row.model].kind == "classifier" else f"vit_{row.model.removeprefix('pretrain_umt_')}"
    raise ConfigError(f"--finetune ({source}) is of another size than --model ({name}). Try --model {near}.")
