"""Two loaders give the same batches, to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch

from umt.data.loading.clip_batch import ClipBatch


def assert_same(one: Iterable[ClipBatch], other: Iterable[ClipBatch]) -> None:
    """Every field of every batch is equal, and there are as many."""
    for a, b in zip(one, other, strict=True):
        for field in dataclasses.fields(ClipBatch):
            left, right = getattr(a, field.name), getattr(b, field.name)
            assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right, field.name
