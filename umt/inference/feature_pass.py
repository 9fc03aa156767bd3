"""Videos of a list through models, features into files: group by group, and a file is written when it is whole.

Groups are cut by rows, and batches are filled within a group, so what is in a file depends neither on the number of
processes nor on when one of them was killed.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from umt.data.loading.clip_batch import ClipBatch
from umt.data.loading.loaders import Work, Workers
from umt.inference import feature_files
from umt.inference.feature_files import FeaturesError, Row
from umt.inference.feature_folder import Group, Unread
from umt.inference.parts import ClipParts
from umt.inference.recognizer import Recognizer

log = logging.getLogger(__name__)

_AHEAD = 64  # rows that are read ahead together, at least: between two rounds nothing is

Layers = dict[tuple[int, str], Tensor]
"""Features (V, ...) by number of the extractor and layer."""


class Extractor(Protocol):
    """A model that gives features: views (V, T, H, W, 3) uint8 -> for each layer (V, ...) on the CPU."""

    recognizer: Recognizer

    def __call__(self, views: Tensor) -> dict[str, Tensor]: ...


def warn(failure: Unread) -> None:
    """Names a row that could not be read, at once."""
    log.warning("%s", failure.cause)


def extract(
    extractors: Sequence[Extractor],
    clips: ClipParts,
    todo: Sequence[Sequence[Group]],
    *,
    dtype: torch.dtype,
    workers: Workers,
    progress: Callable[[int], object],
    failed_before: frozenset[int] = frozenset(),
    on_failure: Callable[[Unread], None] = warn,
) -> list[Unread]:
    """Writes what is missing of the groups `todo`; the rows that could not be read. Raises OutputError, FeaturesError.

    A video is decoded once for all extractors, which take the same views. `todo`: of the same rows a group for each
    extractor. `progress` gets the number of rows that are done. `failed_before`: rows that an earlier run could not
    read. Errors of `on_failure` end the pass.
    """
    failures: list[Unread] = []
    for together in _rounds(todo):
        missing = [[set(group.missing()) for group in same] for same in together]
        plan: list[tuple[int, list[int]]] = []
        for number, same in enumerate(together):
            lacking = set[int]().union(*missing[number])
            # What was cut off is computed as a whole once more, so that batches are filled as they would have been.
            plan.append((number, [row for row in same[0].rows if row in lacking or not lacking <= failed_before]))
        progress(sum(len(same[0].rows) for same in together) - sum(len(rows) for _, rows in plan))
        writers = [
            [_Writer(group, lacking, rows) for group, lacking in zip(together[number], missing[number], strict=True)]
            for number, rows in plan
        ]
        for number, row, outcome in _features(_Together(extractors), clips, plan, dtype, workers):
            progress(1)
            if isinstance(outcome, Unread):
                on_failure(outcome)
                failures.append(outcome)
            for place, writer in enumerate(writers[number]):
                writer.settle(row, None if isinstance(outcome, Unread) else outcome[place])
    return failures


class _Together:
    """Several extractors as one."""

    def __init__(self, extractors: Sequence[Extractor]) -> None:
        self._extractors, self.batch_size = extractors, extractors[0].recognizer.batch_size

    def __call__(self, views: Tensor) -> Layers:
        return {
            (number, layer): values
            for number, extractor in enumerate(self._extractors)
            for layer, values in extractor(views).items()
        }

    def __len__(self) -> int:
        return len(self._extractors)


class _Writer:
    """Writes each file of a group as soon as all of its rows that are to be computed are settled."""

    def __init__(self, group: Group, missing: set[int], computed: Sequence[int]) -> None:
        self._group, self._missing = group, missing
        self._file = {row: number for number in range(len(group.files)) for row in group.rows_of(number)}
        self._left = {number: set(group.rows_of(number)) & set(computed) for number in range(len(group.files))}
        self._fresh: dict[int, list[Row]] = {}

    def settle(self, row: int, features: Row | None) -> None:
        """Takes a row; None: it cannot be read."""
        number = self._file[row]
        self._left[number].discard(row)
        if features is not None and row in self._missing:
            self._fresh.setdefault(number, []).append(features)
        if not self._left[number] and (fresh := self._fresh.pop(number, [])):
            path = self._group.files[number]
            present = feature_files.read(path) if path.exists() and path.stat().st_size else []
            feature_files.write(path, sorted([*present, *fresh], key=lambda entry: entry.row))


def _rounds(todo: Sequence[Sequence[Group]]) -> Iterator[list[Sequence[Group]]]:
    together: list[Sequence[Group]] = []
    for same in todo:
        together.append(same)
        if sum(len(groups[0].rows) for groups in together) >= _AHEAD:
            yield together
            together = []
    if together:
        yield together


def _features(
    extractors: _Together,
    clips: ClipParts,
    plan: Sequence[tuple[int, Sequence[int]]],
    dtype: torch.dtype,
    workers: Workers,
) -> Iterator[tuple[int, int, list[Row] | Unread]]:
    """Group, row and its features by extractor: first of the videos that come in one part, then of the long ones."""
    lengths: dict[int, int] = {}
    parts: dict[int, int] = {}  # of a row; 0: one of them cannot be read
    done: dict[int, list[Layers]] = {}
    group_of = {row: number for number, rows in plan for row in rows}
    more: list[Work] = [(0, (row,), ()) for row in group_of]

    def views_of(batches: Iterable[tuple[Work, ClipBatch]]) -> Iterator[tuple[int, Tensor | Unread]]:
        for (part, (row,), _), batch in batches:
            if batch.failures:
                if parts.get(row, 1):  # however many of its parts cannot be read, it fails once
                    parts[row] = 0
                    done.pop(row, None)
                    failure = batch.failures[0]
                    yield row, Unread(row, str(failure["path"]), str(failure["cause"]))
                continue
            if part == 0:
                lengths[row] = int(batch.seed[0])
                parts[row] = clips.parts(lengths[row])
                more.extend((later, (row,), ()) for later in range(1, parts[row]))
            yield row, rearrange(batch.video, "v c t h w -> v t h w c")

    while more:
        works, more = more, []
        batches = zip(works, workers.run(clips, works), strict=True)
        for number, of_group in itertools.groupby(batches, key=lambda pair: group_of[pair[0][1][0]]):
            for row, features in _filled(extractors, views_of(of_group)):
                if isinstance(features, Unread):
                    yield number, row, features
                elif parts[row]:
                    done.setdefault(row, []).append(features)
                    if len(done[row]) == parts[row]:
                        yield number, row, _rows(clips, row, lengths[row], done.pop(row), dtype, len(extractors))


def _filled(
    extractors: _Together, items: Iterable[tuple[int, Tensor | Unread]]
) -> Iterator[tuple[int, Layers | Unread]]:
    """Views (V, T, H, W, 3) of several rows through the extractors, in batches that are full but for the last."""
    owners: list[tuple[int, int]] = []  # (row, views) whose features are not complete
    waiting: list[Tensor] = []
    outputs: list[Layers] = []
    for row, views in itertools.chain(items, [(-1, None)]):
        if isinstance(views, Unread):
            yield row, views
            continue
        if views is not None:
            owners.append((row, len(views)))
            waiting.append(views)
        if waiting:
            together = torch.cat(waiting) if len(waiting) > 1 else waiting[0]
            full = len(together) if views is None else len(together) - len(together) % extractors.batch_size
            outputs += [extractors(together[:full])] if full else []
            waiting = [together[full:]] if full < len(together) else []
        if outputs:
            features = {layer: torch.cat([part[layer] for part in outputs]) for layer in outputs[0]}
            start, stop = 0, len(next(iter(features.values())))
            while owners and start + owners[0][1] <= stop:
                owner, count = owners.pop(0)
                yield owner, {layer: values[start : start + count] for layer, values in features.items()}
                start += count
            outputs = [{layer: values[start:] for layer, values in features.items()}] if start < stop else []


def _rows(
    clips: ClipParts, row: int, length: int, parts: list[Layers], dtype: torch.dtype, extractors: int
) -> list[Row]:
    """The features of a row by extractor."""
    videos, frames = clips.videos.list, clips.sample(length).astype(np.int32)
    rows = [Row(row, videos.path(row), int(videos.labels[row]), frames) for _ in range(extractors)]
    for number, layer in parts[0]:
        values = torch.cat([part[number, layer] for part in parts])
        rows[number].layers[layer] = values.to(dtype)
        if not torch.isfinite(rows[number].layers[layer]).all():
            what = "too large for fp16" if torch.isfinite(values).all() else "no numbers"
            raise FeaturesError(
                f"{videos.file(row)} (row {row}): features of layer {layer} are {what}. Take --dtype fp32, and if that "
                "does not help --precision fp32."
            )
    return rows
