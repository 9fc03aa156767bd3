"""What travels from the data to a task. Frames stay uint8 until the device; the task normalises them there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
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
    failures: list[dict[str, str | int]] = field(default_factory=list)  # rows that could not be read: row, path, cause

    def __len__(self) -> int:
        return int(self.video.shape[0])

    def _map(self, move: object) -> Batch:
        assert callable(move)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Batch(**{k: move(v) if isinstance(v, torch.Tensor) else v for k, v in values.items()})

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """What models are fed (video, label, noise) on `device`. Keys, seeds and boxes stay on the host, where they are
        read: fetching them back would make every step wait for the device."""
        fed = {name: getattr(self, name) for name in ("video", "label", "noise")}
        moved = {name: t.to(device, non_blocking=non_blocking) for name, t in fed.items() if t is not None}
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Batch:
        """In page-locked memory, from which copies to the GPU are faster."""
        return self._map(lambda t: t.pin_memory())

    def __getitem__(self, part: slice) -> Batch:
        """Clips `part` as a batch of their own; `failures` stay with the whole."""
        values: dict[str, Any] = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "failures"
        }
        parts: dict[str, Any] = {k: v[part] if v is not None else None for k, v in values.items()}
        return Batch(**parts)
