"""The videos of a list through an extractor, shard by shard; a shard is written when it is whole.

Shards are cut by rows, so what is in a file depends neither on the number of processes nor on who was killed when.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from umt.data.batch import Batch
from umt.data.loaders import Work, Workers
from umt.data.video_list import VideoList
from umt.inference import feature_files
from umt.inference.extraction import Extractor
from umt.inference.feature_files import FeaturesError, Row
from umt.inference.parts import ClipParts

log = logging.getLogger(__name__)

_ROUND = 64  # rows that are read ahead together, at least: between two rounds nothing is


@dataclass(frozen=True)
class Shard:
    """A file, and the rows of the list that belong into it."""

    path: Path
    rows: range


@dataclass(frozen=True)
class Unread:
    """A row that could not be read."""

    row: int
    path: str
    cause: str


def shards(folder: Path, form: str, rows: int, shard_size: int) -> list[Shard]:
    """All files of a list of `rows` rows."""
    size = 1 if form == "npz" else shard_size
    return [
        Shard(feature_files.file_of(folder, form, number, size), range(first, min(first + size, rows)))
        for number, first in enumerate(range(0, rows, size))
    ]


def unfinished(found: Sequence[Shard]) -> list[Shard]:
    """Those that are not there, or lack a row that could not be read before."""
    return [
        shard
        for shard in found
        # A file of one row is whole if there is anything in it: it was written beside its place.
        if not shard.path.exists()
        or not (shard.path.stat().st_size if len(shard.rows) == 1 else len(_rows(shard)) == len(shard.rows))
    ]


def _rows(shard: Shard) -> list[Row]:
    """What is in its file already, without the features."""
    return feature_files.read(shard.path, [])


def extract(
    extractor: Extractor,
    clips: ClipParts,
    todo: Sequence[Shard],
    *,
    dtype: torch.dtype,
    workers: Workers,
    progress: Callable[[int], None],
) -> list[Unread]:
    """Writes the shards `todo`; the rows that could not be read. Raises OutputError, FeaturesError.

    `progress` is told how many rows are done.
    """
    unread: list[Unread] = []
    for group in _rounds(todo):
        held = {shard.path: feature_files.read(shard.path) if shard.path.exists() else [] for shard in group}
        known = {row.row for rows in held.values() for row in rows}
        missing = [row for shard in group for row in shard.rows if row not in known]
        progress(len(known))
        made: dict[int, Row] = {}
        of = {row: shard for shard in group for row in shard.rows}
        waiting = {shard.path: sum(row not in known for row in shard.rows) for shard in group}
        for row, outcome in _features(extractor, clips, missing, dtype, workers):
            progress(1)
            shard = of[row]
            if isinstance(outcome, Unread):
                unread.append(outcome)
            else:
                made[row] = outcome
            waiting[shard.path] -= 1
            if not waiting[shard.path]:
                fresh = [made.pop(r) for r in shard.rows if r in made]
                if fresh:
                    whole = sorted([*held.pop(shard.path), *fresh], key=lambda one: one.row)
                    feature_files.write(shard.path, whole)
    return unread


def _rounds(todo: Sequence[Shard]) -> Iterator[list[Shard]]:
    group: list[Shard] = []
    for shard in todo:
        group.append(shard)
        if sum(len(one.rows) for one in group) >= _ROUND:
            yield group
            group = []
    if group:
        yield group


def _features(
    extractor: Extractor, clips: ClipParts, rows: Sequence[int], dtype: torch.dtype, workers: Workers
) -> Iterator[tuple[int, Row | Unread]]:
    """Every row with what became of it: first those of one part, then the long ones."""
    first: dict[int, dict[str, torch.Tensor]] = {}
    lengths: dict[int, int] = {}
    rest: list[Work] = []
    for row, batch in zip(rows, workers.run(clips, [(0, (row,), ()) for row in rows]), strict=True):
        if batch.failures:
            yield row, _unread(row, batch)
            continue
        lengths[row] = int(batch.seed[0])
        features = _of_batch(extractor, clips.videos.list, row, batch, dtype)
        if (parts := clips.parts(lengths[row])) == 1:
            yield row, _row(clips, row, lengths[row], features)
        else:
            first[row] = features
            rest += [(part, (row,), ()) for part in range(1, parts)]
    batches = zip(rest, workers.run(clips, rest), strict=True) if rest else iter(())
    for row, group in itertools.groupby(batches, key=lambda pair: pair[0][1][0]):
        found, failed = [first.pop(row)], None
        for _, batch in group:
            if batch.failures:
                failed = _unread(row, batch)
            else:
                found.append(_of_batch(extractor, clips.videos.list, row, batch, dtype))
        if failed is not None:
            yield row, failed
        else:
            whole = {layer: torch.cat([part[layer] for part in found]) for layer in found[0]}
            yield row, _row(clips, row, lengths[row], whole)


def _of_batch(
    extractor: Extractor, videos: VideoList, row: int, batch: Batch, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    made = {}
    for layer, values in extractor(batch.video.permute(0, 2, 3, 4, 1)).items():
        made[layer] = values.to(dtype)
        if not torch.isfinite(made[layer]).all():
            what = "no numbers" if not torch.isfinite(values).all() else "too large for fp16"
            raise FeaturesError(
                f"{videos.file(row)} (row {row}): features of layer {layer} are {what}. Take --dtype fp32, and if that "
                "does not help --precision fp32."
            )
    return made


def _row(clips: ClipParts, row: int, length: int, layers: dict[str, torch.Tensor]) -> Row:
    videos = clips.videos.list
    frames = clips.sample(length).astype(np.int32)
    return Row(row, videos.path(row), int(videos.labels[row]), frames, layers)


def _unread(row: int, batch: Batch) -> Unread:
    failure = batch.failures[0]
    log.warning("%s", failure["cause"])
    return Unread(row, str(failure["path"]), str(failure["cause"]))
