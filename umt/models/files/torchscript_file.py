"""Tensors out of a TorchScript archive, without running anything of it.

`torch.jit.load` compiles an archive's code and runs its `__setstate__` functions. For weights neither is needed: the
archive is a zip whose `data.pkl` pickles the tree of modules, and whose `data/N` are the tensors' bytes. The pickle is
read by `pickles.Reader`, which makes records of what it knows; any other name in it ends the reading.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from umt.errors import CheckpointError
from umt.models.files.opened import open_file
from umt.models.files.pickles import DAMAGE, Attributes, Reader, Refused, Stored, data_of, record_of

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
}


class TorchScriptFile(NamedTuple):
    """Names -> tensors on the CPU, and the names of the modules' classes, e.g. `__torch__.clip.model.QuickGELU`."""

    state: dict[str, Tensor]
    types: tuple[str, ...]


def read_torchscript(path: Path) -> TorchScriptFile:
    """All tensors among the modules' attributes, parameters and buffers alike; nothing of the archive is run.

    Raises `CheckpointError` for a damaged archive and for one that names what weights do not need.
    """
    try:
        with open_file(path).reading() as file, zipfile.ZipFile(file) as archive:
            folder, pickled = data_of(archive)
            reader = Reader(pickled, strict=True)
            state = {name: _tensor(archive, folder, stored) for name, stored in _walk(reader.load())}
    except Refused as error:
        raise CheckpointError(
            f"{path} is a TorchScript archive that names {error}, which no weights need, so it is refused."
        ) from error
    except DAMAGE as error:
        raise CheckpointError(f"{path} is a damaged TorchScript archive. Copy or download it again.") from error
    return TorchScriptFile(state, tuple(reader.types))


def _walk(tree: Any) -> Iterator[tuple[str, Stored]]:
    """Dotted names and tensors. A module that several names share has the first."""
    if not isinstance(tree, Attributes):
        raise Refused("no module at its top")
    seen: set[int] = set()
    stack: list[tuple[str, Attributes]] = [("", tree)]
    while stack:
        prefix, module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        attributes = module.attributes
        if not isinstance(attributes, dict):
            continue
        for name, value in attributes.items():
            if isinstance(value, Stored):
                yield f"{prefix}{name}", value
            elif isinstance(value, Attributes):
                stack.append((f"{prefix}{name}.", value))


def _tensor(archive: zipfile.ZipFile, folder: str, stored: Stored) -> Tensor:
    storage, count = stored.storage, math.prod(stored.shape)
    last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
    if count > storage.length or (count and last >= storage.length):
        raise Refused("a tensor larger than its storage")
    dtype = _STORAGES[storage.kind]
    content = record_of(archive, folder + storage.key)
    if len(content) != storage.length * dtype.itemsize:
        raise ValueError("a storage of another length")
    if not count:
        return torch.empty(stored.shape, dtype=dtype)
    raw = bytearray(content)
    flat = torch.frombuffer(raw, dtype=torch.uint8 if dtype == torch.bool else dtype)
    whole = torch.as_strided(flat, stored.shape, stored.stride, stored.offset)
    return whole != 0 if dtype == torch.bool else whole.clone()
