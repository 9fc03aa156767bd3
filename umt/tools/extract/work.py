"""The videos of a list through an extractor, group by group; a file is written when it is whole.

Groups are cut by rows, and batches are filled within a group, so what is in a file depends neither on the number of
processes nor on who was killed when.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from umt.data.loading.batch import Batch
from umt.data.loading.loaders import Work, Workers
from umt.inference import feature_files
from umt.inference.extraction import Extractor
from umt.inference.feature_files import FeaturesError, Row
from umt.inference.parts import ClipParts

log = logging.getLogger(__name__)

TOGETHER = 16  # rows of a group where a file is one row, at least; more where a batch holds more
_AHEAD = 64  # rows that are read ahead together, at least: between two rounds nothing is


@dataclass(frozen=True)
class Group:
    """Rows whose views share batches, and their files: one, or of npz one for each row."""

    rows: range
    files: tuple[Path, ...]

    def rows_of(self, number: int) -> Sequence[int]:
        """The rows that belong into file `number`."""
        return self.rows if len(self.files) < len(self.rows) else self.rows[number : number + 1]

    def missing(self) -> list[int]:
        """Rows that no file has."""
        gone: list[int] = []
        for number, path in enumerate(self.files):
            rows = self.rows_of(number)
            if not path.exists():
                gone += rows
            elif len(rows) == 1:  # there is something in it, so it is whole: it was written beside its place
                gone += [] if path.stat().st_size else rows
            else:
                there = {row.row for row in feature_files.read(path, [])}
                gone += [row for row in rows if row not in there]
        return gone


@dataclass(frozen=True)
class Unread:
    """A row that could not be read."""

    row: int
    path: str
    cause: str


def groups(folder: Path, form: str, rows: int, shard_size: int, batch_size: int) -> list[Group]:
    """All groups of a list of `rows` rows."""
    single = form == "npz"
    found = []
    size = min(max(TOGETHER, batch_size), shard_size) if single else shard_size
    for first in range(0, rows, size):
        own = range(first, min(first + size, rows))
        numbers = own if single else [first // shard_size]
        found.append(Group(own, tuple(feature_files.file_of(folder, form, n, shard_size) for n in numbers)))
    return found


def extract(
    extractor: Extractor,
    clips: ClipParts,
    todo: Sequence[Group],
    *,
    dtype: torch.dtype,
    workers: Workers,
    progress: Callable[[int], None],
    failed_before: frozenset[int] = frozenset(),
) -> list[Unread]:
    """Writes what is missing of the groups `todo`; the rows that could not be read. Raises OutputError, FeaturesError.

    `progress` is told how many rows are done. `failed_before`: rows that an earlier run has found unreadable.
    """
    unread: list[Unread] = []
    for together in _rounds(todo):
        missing = {row for group in together for row in group.missing()}
        # What was cut off is computed as a whole once more, so that batches are filled as they would have been.
        wanted = [
            (number, [row for row in group.rows if row in missing or not missing & set(group.rows) <= failed_before])
            for number, group in enumerate(together)
        ]
        progress(sum(len(group.rows) for group in together) - sum(len(rows) for _, rows in wanted))
        writers = {number: _Writer(together[number], missing, rows) for number, rows in wanted}
        for number, row, outcome in _features(extractor, clips, wanted, dtype, workers):
            progress(1)
            if isinstance(outcome, Unread):
                unread.append(outcome)
            writers[number].settle(row, None if isinstance(outcome, Unread) else outcome)
    return unread


class _Writer:
    """Writes each file of a group as soon as all of its rows that are to be computed are settled."""

    def __init__(self, group: Group, missing: set[int], computed: Sequence[int]) -> None:
        self._group, self._missing = group, missing
        self._file = {row: number for number in range(len(group.files)) for row in group.rows_of(number)}
        self._left = {number: set(group.rows_of(number)) & set(computed) for number in range(len(group.files))}
        self._made: dict[int, list[Row]] = {}

    def settle(self, row: int, made: Row | None) -> None:
        """Takes a row; None: it cannot be read."""
        number = self._file[row]
        self._left[number].discard(row)
        if made is not None and row in self._missing:
            self._made.setdefault(number, []).append(made)
        if not self._left[number] and (fresh := self._made.pop(number, [])):
            path = self._group.files[number]
            there = feature_files.read(path) if path.exists() and path.stat().st_size else []
            feature_files.write(path, sorted([*there, *fresh], key=lambda one: one.row))


def _rounds(todo: Sequence[Group]) -> Iterator[list[Group]]:
    together: list[Group] = []
    for group in todo:
        together.append(group)
        if sum(len(one.rows) for one in together) >= _AHEAD:
            yield together
            together = []
    if together:
        yield together


def _features(
    extractor: Extractor,
    clips: ClipParts,
    wanted: Sequence[tuple[int, Sequence[int]]],
    dtype: torch.dtype,
    workers: Workers,
) -> Iterator[tuple[int, int, Row | Unread]]:
    """Group, row and what became of it: first of those that come in one part, then of the long ones."""
    lengths: dict[int, int] = {}
    found: dict[int, list[dict[str, Tensor]]] = {}
    parts: dict[int, int] = {}
    of = {row: number for number, rows in wanted for row in rows}
    plan: list[Work] = [(0, (row,), ()) for row in of]

    def finish(number: int, row: int, features: dict[str, Tensor]) -> Iterator[tuple[int, int, Row]]:
        if not parts[row]:  # another part of it has failed
            return
        found.setdefault(row, []).append(features)
        if len(found[row]) == parts[row]:
            yield number, row, _row(clips, row, lengths[row], found.pop(row), dtype)

    for stage in range(2):
        more: list[Work] = []
        batches = zip(plan, workers.run(clips, plan), strict=True)
        for number, own in itertools.groupby(batches, key=lambda pair: of[pair[0][1][0]]):
            filler = _Filler(extractor)
            for (_, (row,), _), batch in own:
                if batch.failures:
                    if parts.get(row, 1):  # however many of its parts cannot be read, it fails once
                        parts[row] = 0
                        found.pop(row, None)
                        yield number, row, _unread(row, batch)
                    continue
                if stage == 0:
                    lengths[row] = int(batch.seed[0])
                    parts[row] = clips.parts(lengths[row])
                    more += [(part, (row,), ()) for part in range(1, parts[row])]
                filler.add(row, rearrange(batch.video, "v c t h w -> v t h w c"))
                for done in filler.take():
                    yield from finish(number, *done)
            filler.end()
            for done in filler.take():
                yield from finish(number, *done)
        plan = more
        if not plan:
            return


class _Filler:
    """Views of several videos through the extractor, in batches that are full but for the last."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor, self._size = extractor, extractor.recognizer.batch_size
        self._done: list[tuple[int, dict[str, Tensor]]] = []
        self._views: list[Tensor] = []
        self._owners: list[tuple[int, int]] = []  # (row, views) that are not done
        self._outputs: list[dict[str, Tensor]] = []

    def add(self, row: int, views: Tensor) -> None:
        """Takes the views (V, T, H, W, 3) of a row."""
        self._owners.append((row, len(views)))
        self._views.append(views)
        self._run(last=False)

    def take(self) -> list[tuple[int, dict[str, Tensor]]]:
        """Rows whose views have all been through since the last call, and their features."""
        done, self._done = self._done, []
        return done

    def end(self) -> None:
        """Computes what is left."""
        self._run(last=True)

    def _run(self, *, last: bool) -> None:
        waiting = torch.cat(self._views) if len(self._views) > 1 else self._views[0] if self._views else None
        if waiting is None:
            return
        full = len(waiting) if last else len(waiting) - len(waiting) % self._size
        if full:
            self._outputs.append(self._extractor(waiting[:full]))
        self._views = [waiting[full:]] if full < len(waiting) else []
        self._hand_out()

    def _hand_out(self) -> None:
        if not self._outputs:
            return
        outputs = {layer: torch.cat([one[layer] for one in self._outputs]) for layer in self._outputs[0]}
        at, there = 0, len(next(iter(outputs.values())))
        while self._owners and at + self._owners[0][1] <= there:
            row, count = self._owners.pop(0)
            self._done.append((row, {layer: values[at : at + count] for layer, values in outputs.items()}))
            at += count
        self._outputs = [{layer: values[at:] for layer, values in outputs.items()}] if at < there else []


def _row(clips: ClipParts, row: int, length: int, parts: list[dict[str, Tensor]], dtype: torch.dtype) -> Row:
    videos, layers = clips.videos.list, {}
    for layer in parts[0]:
        values = torch.cat([part[layer] for part in parts])
        layers[layer] = values.to(dtype)
        if not torch.isfinite(layers[layer]).all():
            what = "too large for fp16" if torch.isfinite(values).all() else "no numbers"
            raise FeaturesError(
                f"{videos.file(row)} (row {row}): features of layer {layer} are {what}. Take --dtype fp32, and if that "
                "does not help --precision fp32."
            )
    return Row(row, videos.path(row), int(videos.labels[row]), clips.sample(length).astype(np.int32), layers)


def _unread(row: int, batch: Batch) -> Unread:
    failure = batch.failures[0]
    log.warning("%s", failure["cause"])
    return Unread(row, str(failure["path"]), str(failure["cause"]))
