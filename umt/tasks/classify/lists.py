"""The lists of a finetuning: which file serves as train, val and test, and their rows.

Numpy comes with rows, so what reads them imports it only then: a dry run does without where it can.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from umt.data import catalog
from umt.data.lists.split_files import SplitFile, list_file, lists_in, split_file
from umt.data.storage.urls import is_url
from umt.errors import ConfigError
from umt.tasks.video.sources import Source, sources

if TYPE_CHECKING:
    from umt.data.lists.lines import Form
    from umt.data.lists.reading import ListClasses
    from umt.data.lists.video_list import VideoList
    from umt.tasks.classify.recipe import ClassifyRecipe


def split_of(recipe: ClassifyRecipe, folder: str, split: str) -> SplitFile:
    """The list that serves as `split`. The user's own lists may lack val and test if the folder is local."""
    if recipe.data.data_set != "video_list" or is_url(folder):
        return SplitFile(list_file(folder, split))
    there = lists_in(folder)
    if not there or not os.path.basename(there[0]).startswith("train."):
        return SplitFile(list_file(folder, "train"))
    return split_file(folder, split, there)


def splits(recipe: ClassifyRecipe) -> list[tuple[str, Source]]:
    """What this run reads: train of each --data_path; val and test of the first, whatever else is trained on."""
    given, evaluation = sources(recipe.data), recipe.evaluation
    training = [] if evaluation.eval else [("train", source) for source in given]
    validation = [] if evaluation.eval or evaluation.disable_eval_during_finetuning else [("val", given[0])]
    return [*training, *validation, ("test", given[0])]


def list_files(recipe: ClassifyRecipe) -> list[tuple[str, Source]]:
    """All lists that this run reads."""
    return [(split_of(recipe, source.path, split).path, source) for split, source in splits(recipe)]


def training_files(recipe: ClassifyRecipe) -> list[str]:
    """The training list of each --data_path."""
    return [split_of(recipe, source.path, "train").path for source in sources(recipe.data)]


def read_split(recipe: ClassifyRecipe, split: str, source: Source) -> VideoList:
    """The rows that serve as train, val or test of the folder `source`. Raises AnnotationError, ConfigError."""
    from umt.data.lists.class_folders import read_folders
    from umt.data.lists.reading import read_list, read_named, words_form
    from umt.data.lists.subsets import few_shots, part_of

    data, classes = recipe.data, recipe.data.nb_classes
    if catalog.get(data.data_set).lists == "folders":
        videos = read_folders(source.path, split, num_classes=classes)
    else:
        file = split_of(recipe, source.path, split)
        if data.data_set == "video_list" or data.multi_label:
            form = words_form(source.separator, frame_folders=not data.use_decord, multi_label=data.multi_label)
            known = _classes(recipe, source, form)
            videos = read_named(file.path, known, form, prefix=source.prefix, multi_label=data.multi_label)
            videos = part_of(videos, file)
        else:
            videos = read_list(
                file.path,
                separator=source.separator,
                prefix=source.prefix,
                num_classes=classes,
                frame_folders=not data.use_decord,
            )
    if split == "train" and data.shots is not None:
        videos = few_shots(videos, data.shots, recipe.runtime.seed)
    return videos


def _classes(recipe: ClassifyRecipe, source: Source, form: Form) -> ListClasses:
    """The classes of the user's own lists; their number must be --nb_classes."""
    from umt.data.lists.reading import ListClasses, classes_of

    data = recipe.data
    if data.data_set != "video_list":
        names = catalog.get(data.data_set).class_names(data.nb_classes)
        return ListClasses(names, data.nb_classes, f"--data_set {data.data_set}")
    if is_url(source.path) and data.multi_label:  # the labels are not looked through twice over a network
        return ListClasses(None, data.nb_classes, "--nb_classes")
    classes = classes_of(split_of(recipe, source.path, "train").path, form, multi_label=data.multi_label)
    if classes.names is None:
        return ListClasses(None, data.nb_classes, f"--nb_classes {data.nb_classes}")
    if classes.count != data.nb_classes:
        raise ConfigError(
            f"--nb_classes ({data.nb_classes}) must be {classes.count}, the classes that {classes.source} names. "
            f"Try --nb_classes {classes.count}."
        )
    return classes
