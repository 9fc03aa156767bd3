"""A batch of clips. Frames stay uint8 until the device; the task normalises them there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from umt.data.loading.batch import Failure
from umt.data.loading.worker import empty_to_send


@dataclass
class ClipBatch:
    """B clips. Copies of one video (repeated augmentation) are neighbours; so are the views of one test video."""

    video: Tensor  # (B, 3, T, H, W) uint8, RGB
    label: Tensor  # (B,) int64, -1 where the list has none; multi-label: (B, K) float32 of 0 and 1
    row: Tensor  # (B,) int64, row of the annotation list: the key of every result
    copy: Tensor  # (B,) int64, repeated-augmentation copy
    clip: Tensor  # (B,) int64, temporal view; 0 in training
    crop: Tensor  # (B,) int64, spatial view; 0 in training
    seed: Tensor  # (B,) int64, randomness.key(seed, epoch, row, copy)
    noise: Tensor | None = None  # (B, T', N) float32 uniform in (0, 1): from which the pretraining mask is drawn
    erase: Tensor | None = None  # (B, 4) or (B, R, 4) int64 top, left, height, width to erase; height 0: none
    paths: list[str] = field(default_factory=list)  # B paths as the list writes them
    failures: list[Failure] = field(default_factory=list)  # rows that could not be read: row, path, cause

    def __len__(self) -> int:
        return int(self.video.shape[0])

    @property
    def rows(self) -> list[int]:
        """See `Batch`."""
        rows: list[int] = self.row.tolist()
        return rows

    def describe(self, index: int, *, copy: bool = False) -> str:
        """See `Batch`."""
        number = f" copy {int(self.copy[index])}" if copy else ""
        return f"row {int(self.row[index])}{number} {self.paths[index] if self.paths else ''}".rstrip()

    def parts(self, size: int) -> Iterator[ClipBatch]:
        """See `Batch`; `failures` stay with the whole."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def twice(self) -> ClipBatch:
        """Every clip once more, behind all of them."""
        values: dict[str, Any] = {
            name: torch.cat([value, value]) if isinstance(value, torch.Tensor) else value
            for name, value in self.state_dict().items()
        }
        return ClipBatch(**{**values, "paths": self.paths * 2})

    def state_dict(self) -> dict[str, Any]:
        """See `Batch`: the fields."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def _map(self, move: object) -> ClipBatch:
        assert callable(move)
        return ClipBatch(**{k: move(v) if isinstance(v, torch.Tensor) else v for k, v in self.state_dict().items()})

    def to(self, device: torch.device | str, non_blocking: bool = True) -> ClipBatch:
        """What models are fed (video, label, noise) on `device`. Keys, seeds and boxes stay on the host, where they are
        read: fetching them back would make every step wait for the device."""
        fed = {name: getattr(self, name) for name in ("video", "label", "noise")}
        moved = {name: t.to(device, non_blocking=non_blocking) for name, t in fed.items() if t is not None}
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> ClipBatch:
        """In page-locked memory, from which copies to the GPU are faster."""
        return self._map(lambda t: t.pin_memory())

    def __getitem__(self, part: slice) -> ClipBatch:
        """Clips `part` as a batch of their own; `failures` stay with the whole."""
        values: dict[str, Any] = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "failures"
        }
        parts: dict[str, Any] = {k: v[part] if v is not None else None for k, v in values.items()}
        return ClipBatch(**parts)


def collate(samples: Sequence[Any], failures: list[Failure]) -> ClipBatch:
    """Samples in their order as a batch. Without samples (all rows failed) `video` is (0, 3, 0, 0, 0)."""
    import cv2

    shapes = {s.video.shape for s in samples}
    if len(shapes) > 1:
        raise ValueError(f"clips of one batch differ in shape: {sorted(shapes)}")
    frames, height, width, channels = next(iter(shapes), (0, 0, 0, 3))
    video = empty_to_send((len(samples), channels, frames, height, width))
    for slot, sample in zip(video.numpy(), samples, strict=True):
        for number, frame in enumerate(sample.video):
            cv2.split(frame, list(slot[:, number]))  # a sixth of the time of a transposed copy

    def numbers(name: str) -> torch.Tensor:
        return torch.tensor([getattr(s, name) for s in samples], dtype=torch.int64)

    def arrays(name: str) -> torch.Tensor | None:
        values = [getattr(s, name) for s in samples]
        return torch.from_numpy(np.stack(values)) if values and values[0] is not None else None

    many = bool(samples) and isinstance(samples[0].label, np.ndarray)  # of a multi-label list
    label = arrays("label") if many else None
    return ClipBatch(
        video=video,
        label=numbers("label") if label is None else label,
        row=numbers("row"),
        copy=numbers("copy"),
        clip=numbers("clip"),
        crop=numbers("crop"),
        seed=numbers("seed"),
        noise=arrays("noise"),
        erase=arrays("erase"),
        paths=[s.path for s in samples],
        failures=failures,
    )
