"""The rows of a run's lists, read as its flags say. Numpy comes with it: imported only where rows are wanted."""

from __future__ import annotations

from umt.config.lists import Source, split_of
from umt.config.schema import FinetuneConfig
from umt.data import catalog
from umt.data.lists.class_folders import read_folders
from umt.data.lists.lines import Form
from umt.data.lists.reading import ListClasses, classes_of, read_list, read_named, words_form
from umt.data.lists.subsets import few_shots, part_of
from umt.data.lists.video_list import VideoList
from umt.data.storage.urls import is_url
from umt.errors import ConfigError


def read_split(config: FinetuneConfig, split: str, source: Source) -> VideoList:
    """The rows that serve as train, val or test of the folder `source`. Raises AnnotationError, ConfigError."""
    data, classes = config.data, config.data.nb_classes
    if catalog.get(data.data_set).lists == "folders":
        videos = read_folders(source.path, split, num_classes=classes)
    else:
        file = split_of(config, source.path, split)
        if data.data_set == "video_list" or data.multi_label:
            form = words_form(source.separator, frame_folders=not data.use_decord, multi_label=data.multi_label)
            known = _classes(config, source, form)
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
        videos = few_shots(videos, data.shots, config.runtime.seed)
    return videos


def _classes(config: FinetuneConfig, source: Source, form: Form) -> ListClasses:
    """The classes of one's own lists; their number is held against --nb_classes."""
    data = config.data
    if data.data_set != "video_list":
        names = catalog.get(data.data_set).class_names(data.nb_classes)
        return ListClasses(names, data.nb_classes, f"--data_set {data.data_set}")
    if is_url(source.path) and data.multi_label:  # the labels are not looked through twice over a network
        return ListClasses(None, data.nb_classes, "--nb_classes")
    found = classes_of(split_of(config, source.path, "train").path, form, multi_label=data.multi_label)
    if found.names is None:
        return ListClasses(None, data.nb_classes, f"--nb_classes {data.nb_classes}")
    if found.count != data.nb_classes:
        raise ConfigError(
            f"--nb_classes ({data.nb_classes}) must be {found.count}, the classes that {found.source} names. "
            f"Try --nb_classes {found.count}."
        )
    return found
