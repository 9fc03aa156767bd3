"""Which videos are meant: files, folders, patterns, URLs and lists, as one `VideoList`. No torch."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from umt.data.lists.lines import BETWEEN, SEPARATORS, separator_of
from umt.data.lists.reading import classes_of, read_list, read_named, rows_of, words_form
from umt.data.lists.video_list import VideoList
from umt.data.storage.urls import is_url
from umt.data.video.video_reader import IMAGE_ENDINGS, VIDEO_ENDINGS
from umt.errors import AnnotationError, ConfigError

LIST_ENDINGS = (".csv", ".txt", ".tsv", ".list", ".lst", ".parquet")


def find_videos(words: Sequence[str], *, split: str | None = None, prefix: str = "") -> VideoList:
    """The videos that `words` mean, in their order, each once.

    A folder stands for all videos below it, or is one video if it holds images; a pattern (`clips/**/*.mp4`) for its
    matches. A name that does not exist stays in the list, and fails when it is opened. Raises ConfigError for a word
    that means no video, AnnotationError for a faulty list. `split` and `prefix`: separator (None: detected) and folder
    of lists.
    """
    frame_counts: dict[str, int] = {}
    for word in words:
        for path, frames in _of(word, split, prefix):
            frame_counts.setdefault(path, frames)
    paths = list(frame_counts)
    return VideoList(" ".join(words), paths, [-1] * len(paths), list(frame_counts.values()))


def read_rows(source: str, *, split: str | None = None, prefix: str = "", frame_folders: bool = False) -> VideoList:
    """The rows of a list, labels where it has them, or of a folder: all videos below it, by name.

    In a folder whose videos all lie in a folder of their class, that is their label. `split`: None tries them all.
    Raises AnnotationError.
    """
    if source.lower().endswith((*VIDEO_ENDINGS, *IMAGE_ENDINGS)) and not os.path.isdir(source):
        kind = "a video" if source.lower().endswith(VIDEO_ENDINGS) else "an image"
        raise AnnotationError(
            f"{source} is {kind}, where a list of videos or a folder of them is wanted. Write a file with a path a "
            "line; umt predict takes videos themselves."
        )
    if is_url(source) or not os.path.isdir(source):
        return _list(source, split, prefix, frame_folders)
    videos = [os.path.relpath(path, source) for path, _ in _below(source)]
    parents = [os.path.dirname(path) for path in videos]
    flat = all(parent and os.sep not in parent for parent in parents)
    classes = {name: label for label, name in enumerate(sorted(set(parents)))} if flat else {}
    labels = [classes.get(parent, -1) for parent in parents]
    frames = [0 if os.path.isdir(os.path.join(source, path)) else -1 for path in videos]
    return VideoList(source, videos, labels, frames, prefix=source, class_names=list(classes) or None)


def _of(word: str, split: str | None, prefix: str) -> Iterator[tuple[str, int]]:
    if word.lower().endswith(LIST_ENDINGS) and (is_url(word) or os.path.exists(word)):
        videos = _list(word, split, prefix, frame_folders=False)
        for row in range(len(videos)):
            name = videos.file(row)
            yield name, 0 if os.path.isdir(name) else -1
    elif is_url(word) or os.path.isfile(word):
        yield word, -1
    elif os.path.isdir(word):
        yield from _below(word)
    elif glob.has_magic(word):
        matched = sorted(glob.glob(word, recursive=True))
        if not matched:
            raise ConfigError(f"{word} matches no file. Quote the pattern, and mind that ** stands for folders.")
        for path in matched:
            yield from _below(path) if os.path.isdir(path) else [(path, -1)]
    else:
        yield word, -1


def _below(folder: str) -> Iterator[tuple[str, int]]:
    """Videos and folders of frames in `folder`, or `folder` itself if it is one. Raises ConfigError for none."""
    none = True
    for path, folders, names in os.walk(folder):
        folders.sort()
        videos = [name for name in sorted(names) if name.lower().endswith(VIDEO_ENDINGS) and not name.startswith(".")]
        if not videos and any(name.lower().endswith(IMAGE_ENDINGS) for name in names):
            none = False
            yield path, 0
        for name in videos:
            none = False
            yield os.path.join(path, name), -1
    if none:
        raise ConfigError(
            f"{folder} holds no video ({', '.join(VIDEO_ENDINGS[:5])}, ...) and no folder of frames. Name the files."
        )


def _list(source: str, split: str | None, prefix: str, frame_folders: bool) -> VideoList:
    """A list; without `split` by the separator that parts its lines."""
    first: AnnotationError | None = None
    usual = [separator for separator in SEPARATORS if separator != BETWEEN]
    for separator in [separator_of(split)] if split is not None else usual:
        try:
            videos = read_list(
                source, separator=separator, prefix=prefix, frame_folders=frame_folders, labels_optional=True
            )
        except AnnotationError as error:
            first = first or error
            continue
        videos = videos if prefix or split is not None else _beside(source, videos)
        if not _is_of_words(videos):
            return videos
        break
    for separator in [separator_of(split)] if split is not None else usual:
        try:
            videos = _of_words(source, separator, prefix, frame_folders)
        except AnnotationError as error:
            first = first or error
            continue
        return videos if prefix else _beside(source, videos)
    assert first is not None
    raise first


def _is_of_words(videos: VideoList) -> bool:
    """Whether what was taken for paths alone may be paths and classes by name: `a.mp4,yoga`."""
    path = videos.path(0)
    bare = not videos.labelled and any(separator in path for separator in SEPARATORS)
    return bare and not is_url(videos.file(0)) and not os.path.exists(videos.file(0))


def _of_words(source: str, separator: str, prefix: str, frame_folders: bool) -> VideoList:
    """A list whose labels are names, or several a row (`VideoList.labels_of`), of which the lowest is the label."""
    form = words_form(separator, frame_folders=frame_folders)
    several = any(BETWEEN in row.text for _, row in itertools.islice(rows_of(source, form), 1000))
    return read_named(source, classes_of(source, form, multi_label=several), form, prefix=prefix, multi_label=several)


def _beside(source: str, videos: VideoList) -> VideoList:
    """Paths that are not there from here, but from the list's own folder, are meant from there."""
    folder = str(Path(source).parent) if not is_url(source) else ""
    here, there = videos.file(0), os.path.join(folder, videos.file(0))
    if folder not in ("", ".") and not is_url(here) and not os.path.exists(here) and os.path.exists(there):
        videos.prefix = folder
    return videos
