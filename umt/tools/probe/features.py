"""Frozen features of all videos of the lists, from one pass over the files, kept on the disk as umt extract keeps them.

They lie under `<folder>/<digest>/<list>/`, where the digest is of everything that they depend on: weights, frames,
sizes, views, layer, and the files of the lists. So nothing stale is ever read, an interrupted pass goes on with the
shards that are missing, and another probe of the same features decodes nothing. Half precision.
Shapes: R videos, V views, L tokens, D features.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import Videos
from umt.data.loading.loaders import Workers
from umt.data.sampling import views_sampler
from umt.data.storage.source import storage_of
from umt.engine.evaluate import weights_digest
from umt.errors import ConfigError
from umt.inference import feature_files, feature_folder, feature_pass, features
from umt.inference.feature_folder import Group, Unread
from umt.inference.parts import ClipParts
from umt.inference.recognizer import Recognizer
from umt.layers.block import NORM_EPS
from umt.models import Student, VisionTransformer
from umt.models.specs import Grid
from umt.tools.probe.table import Stored

_FORM = "safetensors"  # of its files any row can be read alone
_SHARD_ROWS, _SHARD_BYTES = 256, 256 << 20  # at most; the rows of a shard wait in memory


@dataclass(frozen=True)
class Want:
    """What is taken of each clip: `layer` (-1 the last), and with `tokens` also all tokens, pooled to that grid."""

    layer: int = -1
    tokens: Grid | None = None


@dataclass(frozen=True)
class Views:
    """Clips and crops of a video of one list."""

    clips: int = 1
    crops: int = 1

    @property
    def count(self) -> int:
        return self.clips * self.crops


def plain(views: Mapping[str, Views]) -> dict[str, list[int]]:
    """[clips, crops] of each list, for a recipe."""
    return {name: [part.clips, part.crops] for name, part in views.items()}


def recipe_of(
    model: Recognizer, want: Want, views: Mapping[str, Views], videos: Mapping[str, VideoList]
) -> dict[str, Any]:
    """Everything that the features depend on, as plain values."""
    about = model.description
    return {
        "format": 2,
        "weights": weights_digest(model.model),
        "model": about.model,
        "frames": about.num_frames,
        "size": about.input_size,
        "short_side": about.short_side_size,
        "sampling": [about.sampling, about.sampling_rate],
        "normalise": [list(about.mean), list(about.std)],
        "precision": model.precision,
        "layer": want.layer,
        "tokens": want.tokens,
        "views": plain(views),
        "lists": {name: _list_digest(part) for name, part in videos.items()},
    }


def _list_digest(videos: VideoList) -> str:
    digest = hashlib.sha256()
    for row in range(len(videos)):
        digest.update(videos.file(row).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def digest_of(recipe: Mapping[str, Any]) -> str:
    """The name of the folder of features that were made so."""
    return hashlib.sha256(json.dumps(dict(recipe), sort_keys=True).encode()).hexdigest()[:16]


class Kept:
    """The features of one model on the disk: for each list a folder that `umt.inference.features` reads.

    Its layers are "pooled" (V, D) and, unless `tokens` is 0, "tokens" (V, L, D).
    """

    def __init__(
        self, folder: Path, recipe: Mapping[str, Any], rows: Mapping[str, int], width: int, tokens: int
    ) -> None:
        """`rows`: videos of each list. Raises OutputError where the folder cannot be written."""
        self.recipe, self.rows = dict(recipe), dict(rows)
        self.digest = digest_of(self.recipe)
        self.folder = folder / self.digest
        self._shapes: dict[str, tuple[int, ...]] = {"pooled": (width,)}
        if tokens:
            self._shapes["tokens"] = (tokens, width)
        for split in self.rows:
            feature_folder.settle(
                self.folder / split,
                {**features.FORMAT.stamp(), "layers": list(self._shapes), "dtype": "fp16", "format": _FORM,
                 "shard_size": self._shard_size(split), "probe": self.recipe},
            )  # fmt: skip

    def _views(self, split: str) -> int:
        clips, crops = self.recipe["views"][split]
        return int(clips * crops)

    def _shard_size(self, split: str) -> int:
        """A power of 2, so that batches are filled."""
        size = 2 * self._views(split) * sum(int(np.prod(shape)) for shape in self._shapes.values())
        rows = max(min(_SHARD_ROWS, _SHARD_BYTES // size), 1)
        return 1 << (rows.bit_length() - 1)

    def groups(self, split: str) -> list[Group]:
        """All rows of a list by the files that they go to."""
        return feature_folder.groups(self.folder / split, _FORM, self.rows[split], self._shard_size(split), 1)

    def write(self, split: str, rows: Iterable[feature_files.Row]) -> None:
        """Keeps `rows`, which ascend. Raises OutputError."""
        size = self._shard_size(split)
        for shard, part in itertools.groupby(rows, key=lambda row: row.row // size):
            feature_files.write(feature_files.file_of(self.folder / split, _FORM, shard, size), list(part))

    def present(self, split: str) -> NDArray[np.int64]:
        """Rows that have features, ascending."""
        paths = feature_files.files(self.folder / split, _FORM)
        return np.array([row for path in paths for row in feature_files.rows_in(path)], np.int64)

    def array(self, split: str, kind: str) -> Stored:
        """`kind` "pooled" (R * V, D) or "tokens" (R * V, L, D); zeros for rows that are missing."""
        paths = feature_files.files(self.folder / split, _FORM)
        return Stored(paths, kind, self.rows[split], self._views(split), self._shapes[kind])


def token_grid(grid: Grid, rows: int, width: int, limit: float) -> Grid:
    """The finest of `grid`, halved in space, of which `rows` clips take at most `limit` bytes; at last one a frame."""
    time, height, width_ = grid
    while (height > 1 or width_ > 1) and 2 * rows * time * height * width_ * width > limit:
        height, width_ = -(-height // 2), -(-width_ // 2)
    return time, height, width_


def encoder_of(model: Recognizer) -> VisionTransformer | Student:
    """The model itself. Raises ConfigError for one that is no video encoder."""
    if not isinstance(model.model, VisionTransformer | Student):
        raise ConfigError(f"{type(model.model).__name__} is no video encoder of this library: probe another one.")
    return model.model


class Frozen:
    """A model as a source of features, for `umt.inference.feature_pass`."""

    def __init__(self, recognizer: Recognizer, want: Want) -> None:
        self.recognizer, self.want, self.encoder = recognizer, want, encoder_of(recognizer)
        self.last = want.layer in (-1, self.encoder.num_layers - 1)

    @torch.inference_mode()
    def __call__(self, views: Tensor) -> dict[str, Tensor]:
        """views (V, T, H, W, 3) uint8 -> "pooled" (V, D) and, if wanted, "tokens" (V, L, D), float16 on the CPU.

        Tokens of unit variance each. Pooled: what the head of a classifier gets; of a pretrained encoder, or another
        layer, the mean of the tokens, of unit variance.
        """
        parts = [self._features(batch) for batch in self.recognizer.batches(views)]
        return {kind: torch.cat([part[kind] for part in parts]) for kind in parts[0]}

    def _features(self, inputs: Tensor) -> dict[str, Tensor]:
        with self.recognizer.autocast():
            if isinstance(self.encoder, VisionTransformer):
                (raw,) = self.encoder.forward_intermediates(inputs, [self.want.layer], intermediates_only=True)
            else:
                (raw,) = self.encoder.forward_intermediates(inputs, [self.want.layer])
        raw = raw.float()
        if self.last and isinstance(self.encoder, VisionTransformer):
            pooled = self.encoder.forward_head(self.encoder.norm(raw), pre_logits=True)
        else:
            pooled = unit(raw.mean(1))
        if self.want.tokens is None:
            return {"pooled": pooled.half().cpu()}
        if self.want.tokens != self.encoder.grid:
            time, height, _ = self.encoder.grid
            cells = rearrange(raw, "b (t h w) d -> b d t h w", t=time, h=height)
            raw = rearrange(F.adaptive_avg_pool3d(cells, self.want.tokens), "b d t h w -> b (t h w) d")
        return {"pooled": pooled.half().cpu(), "tokens": unit(raw).half().cpu()}


def unit(x: Tensor) -> Tensor:
    """(..., D) of mean 0 and variance 1 over D."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def extract(
    sources: Sequence[tuple[Frozen, Kept]], split: str, videos: VideoList, views: Views, *,
    workers: Workers, on_failure: Callable[[Unread], None],
) -> list[Unread]:  # fmt: skip
    """Makes what any of the models lacks of one list; a video is decoded once for all of them.

    Returns the rows that cannot be read; errors of `on_failure` end the pass. Raises OutputError.
    """
    sources = [source for source in sources if any(group.missing() for group in source[1].groups(split))]
    if not sources:
        return []
    groups = zip(*(kept.groups(split) for _, kept in sources), strict=True)
    todo = [same for same in groups if any(group.missing() for group in same)]
    model = sources[0][0].recognizer.views
    clips = ClipParts(
        Videos(videos, model.decoder, storage=storage_of(videos)),
        views_sampler(model.sampling, model.num_frames, views.clips, model.sampling_rate),
        model.transform(views.crops),
    )
    folders = [kept.folder / split for _, kept in sources]
    try:
        with tqdm(
            total=sum(len(same[0].rows) for same in todo), desc=f"features, {split}", unit="video", disable=None,
            leave=False,
        ) as bar:  # fmt: skip
            failures = feature_pass.extract(
                [frozen for frozen, _ in sources], clips, todo, dtype=torch.float16, workers=workers,
                progress=bar.update, on_failure=on_failure,
                failed_before=frozenset.intersection(*map(feature_folder.failed_rows, folders)),
            )  # fmt: skip
    finally:
        workers.close()
    for folder in folders:
        feature_folder.write_failures(folder, failures)
    return failures
