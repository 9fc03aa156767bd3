"""Frozen features of all videos of the lists, from one pass over the files, kept on the disk.

They lie under `<folder>/<digest>/`, where the digest is of everything that they depend on: weights, frames, sizes,
views, layer, and the files of the lists. So nothing stale is ever read, an interrupted pass goes on with the rows that
are missing, and another probe of the same features decodes nothing. Half precision, as memory maps: they may be larger
than memory. Shapes: R videos, V views, L tokens, D features.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
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
from umt.data.loading.loaders import EvalLoader, Workers
from umt.data.storage.source import storage_of
from umt.data.transforms.normalize import normalize
from umt.engine.evaluator import weights_digest
from umt.errors import ConfigError, OutputError, VideoError
from umt.inference.recognizer import Recognizer
from umt.layers.block import NORM_EPS
from umt.models import Student, VisionTransformer
from umt.models.specs import Grid

HERE, UNREADABLE = 1, 2  # marks of rows; 0: not yet
FLUSH = 128  # videos


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


def recipe(
    model: Recognizer, want: Want, views: Mapping[str, Views], videos: Mapping[str, VideoList]
) -> dict[str, Any]:
    """Everything that the features depend on, as plain values."""
    about = model.description
    return {
        "format": 1,
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
        "views": {name: [one.clips, one.crops] for name, one in views.items()},
        "lists": {name: _digest_of(one) for name, one in videos.items()},
    }


def _digest_of(videos: VideoList) -> str:
    digest = hashlib.sha256()
    for row in range(len(videos)):
        digest.update(videos.file(row).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def digest_of(recipe: Mapping[str, Any]) -> str:
    """The name of the folder of features that were made so."""
    return hashlib.sha256(json.dumps(dict(recipe), sort_keys=True).encode()).hexdigest()[:16]


class Store:
    """The features of one model on the disk."""

    def __init__(
        self, folder: Path, recipe: Mapping[str, Any], rows: Mapping[str, int], width: int, tokens: int
    ) -> None:
        """`tokens`: 0 keeps the pooled features only. Raises OutputError where the folder cannot be written."""
        self.recipe = dict(recipe)
        self.digest = digest_of(self.recipe)
        self.folder = folder / self.digest
        self._arrays: dict[tuple[str, str], NDArray[Any]] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for split, count in rows.items():
                views = recipe["views"][split][0] * recipe["views"][split][1]
                self._arrays[split, "pooled"] = self._map(f"{split}.pooled", (count, views, width), np.float16)
                if tokens:
                    self._arrays[split, "tokens"] = self._map(
                        f"{split}.tokens", (count, views, tokens, width), np.float16
                    )
                self._arrays[split, "marks"] = self._map(f"{split}.marks", (count,), np.uint8)
            (self.folder / "recipe.json").write_text(json.dumps(self.recipe, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"{self.folder}: the features cannot be kept ({error.strerror or error}). Free the disk, choose "
                "another --output, or keep fewer tokens: --token_grid 8 1 1."
            ) from error

    def _map(self, name: str, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
        path = self.folder / f"{name}.npy"
        if path.exists():
            with contextlib.suppress(ValueError, EOFError):  # cut off; only for reading does numpy notice
                found: NDArray[Any] = np.load(path, mmap_mode="r")
                if found.shape == shape and found.dtype == kind:
                    made: NDArray[Any] = np.load(path, mmap_mode="r+")
                    return made
        for marks in self.folder.glob(f"{name.partition('.')[0]}.marks.npy"):
            marks.unlink()  # they are of the array that is made anew
        return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)  # zeros that take no room yet

    def get(self, split: str, kind: str) -> NDArray[Any]:
        """`kind` "pooled" (R, V, D), "tokens" (R, V, L, D) or "marks" (R,)."""
        return self._arrays[split, kind]

    def missing(self, split: str) -> NDArray[np.int64]:
        """Rows that are not there; those that could not be read are tried again."""
        return np.flatnonzero(self.get(split, "marks") != HERE)

    def put(self, split: str, row: int, pooled: Tensor, tokens: Tensor | None) -> None:
        """pooled (V, D), tokens (V, L, D)."""
        self.get(split, "pooled")[row] = pooled.numpy()
        if tokens is not None:
            self.get(split, "tokens")[row] = tokens.numpy()

    def mark(self, split: str, rows: Sequence[int], mark: int) -> None:
        """Rows are there only when what they hold is on the disk."""
        for kind in ("pooled", "tokens"):
            if (split, kind) in self._arrays:
                self.get(split, kind).flush()  # type: ignore[attr-defined]
        self.get(split, "marks")[list(rows)] = mark
        self.get(split, "marks").flush()  # type: ignore[attr-defined]


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
    """A model as a source of features."""

    def __init__(self, model: Recognizer, want: Want) -> None:
        self.model, self.want, self.encoder = model, want, encoder_of(model)
        self.last = want.layer in (-1, self.encoder.num_layers - 1)

    @torch.inference_mode()
    def __call__(self, video: Tensor) -> tuple[Tensor, Tensor | None]:
        """video (B, 3, T, H, W) uint8 -> pooled (B, D) and tokens (B, L, D) or None, float16 on the CPU.

        Tokens of unit variance each. Pooled: what the head of a classifier gets; of a pretrained encoder, or another
        layer, the mean of the tokens, of unit variance.
        """
        about = self.model.description
        inputs = normalize(video.to(self.model.device, non_blocking=True), about.mean, about.std)
        with self.model.autocast():
            if isinstance(self.encoder, VisionTransformer):
                (raw,) = self.encoder.forward_intermediates(inputs, [self.want.layer], intermediates_only=True)
            else:
                (raw,) = self.encoder.forward_intermediates(inputs, [self.want.layer])
        raw = raw.float()
        if self.last and isinstance(self.encoder, VisionTransformer):
            pooled = self.encoder.forward_head(self.encoder.norm(raw), pre_logits=True)
        else:
            pooled = _unit(raw.mean(1))
        tokens = None
        if self.want.tokens is not None:
            if self.want.tokens != self.encoder.grid:
                time, height, _ = self.encoder.grid
                cells = rearrange(raw, "b (t h w) d -> b d t h w", t=time, h=height)
                raw = rearrange(F.adaptive_avg_pool3d(cells, self.want.tokens), "b d t h w -> b (t h w) d")
            tokens = _unit(raw).half().cpu()
        return pooled.half().cpu(), tokens


def _unit(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def extract(
    sources: Sequence[tuple[Frozen, Store]], split: str, videos: VideoList, views: Views, *,
    workers: int, batch_size: int, strict: bool,
) -> list[str]:  # fmt: skip
    """Fills the stores with the rows of one list that any of them lacks; a video is decoded once for all models.

    `batch_size`: clips that go through a model at once. `strict`: a video that cannot be read is an error, else it is
    marked. Returns the causes. Raises VideoError.
    """
    wanted = sorted({int(row) for _, store in sources for row in store.missing(split)})
    if not wanted:
        return []
    first = sources[0][0].model
    clips = first.views.clips(Videos(videos, first.views.decoder, storage=storage_of(videos)), views.clips, views.crops)
    done = set(range(len(videos))) - set(wanted)
    videos_each = max(batch_size // views.count, 1)
    loader = EvalLoader(clips, batch_size=videos_each, done=done, workers=Workers(num_workers=workers, timeout=120))
    causes: list[str] = []
    waiting: list[int] = []
    try:
        with tqdm(total=len(wanted), desc=f"features, {split}", unit="video", disable=None, leave=False) as bar:
            for batch in loader:
                for failure in batch.failures:
                    causes.append(str(failure["cause"]))
                    if strict:
                        raise VideoError(
                            f"{failure['cause']} It is row {failure['row']} of {videos.source}, counted from 0. "
                            "Mend it, take it off the list, or give --count_unreadable_as_wrong."
                        )
                    for _, store in sources:
                        store.mark(split, [int(failure["row"])], UNREADABLE)
                rows = batch.row[:: views.count].tolist()
                if rows:
                    for frozen, store in sources:
                        taken = [frozen(part) for part in batch.video.split(batch_size)]
                        pooled = torch.cat([one for one, _ in taken])
                        tokens = [one for _, one in taken if one is not None]
                        every = torch.cat(tokens) if tokens else None
                        for place, row in enumerate(rows):
                            part = slice(place * views.count, (place + 1) * views.count)
                            store.put(split, row, pooled[part], None if every is None else every[part])
                waiting += rows
                if len(waiting) >= FLUSH:
                    _keep(sources, split, waiting)
                bar.update(len(rows) + len(batch.failures))
    except OSError as error:
        raise OutputError(
            f"{sources[0][1].folder}: the features cannot be kept ({error.strerror or error}). Free the disk and start "
            "the same command again: it goes on."
        ) from error
    finally:
        loader.close()
        _keep(sources, split, waiting)
    return causes


def _keep(sources: Sequence[tuple[Frozen, Store]], split: str, rows: list[int]) -> None:
    for _, store in sources:
        store.mark(split, rows, HERE)
    rows.clear()
