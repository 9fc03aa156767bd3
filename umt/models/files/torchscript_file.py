"""Tensors out of a TorchScript archive, without running anything of it.

`torch.jit.load` compiles an archive's code and runs its `__setstate__` functions. For weights neither is needed: the
archive is a zip whose `data.pkl` pickles the tree of modules, and whose `data/N` are the tensors' bytes. The pickle is
read with a table of storage types and a handful of constructors, each of which here only makes a record; any other name
in it ends the reading.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from umt.errors import CheckpointError
from umt.models.files.pickles import memo_is_sound

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
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    RecursionError,
    NotImplementedError,
)


class _Refused(pickle.UnpicklingError):
    """The pickle names something that no TorchScript archive of weights needs."""


class _Storage(NamedTuple):
    dtype: torch.dtype
    key: str
    length: int


class _Stored(NamedTuple):
    """A tensor that is still in the archive."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """A module of the archive: its attributes, and nothing that could be called."""

    __slots__ = ("attributes",)

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _Call:
    """What a name of the pickle's stands for. It cannot be changed by the pickle."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise _Refused("a constructor with a state of its own")


def _stored(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Stored:
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor without a storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise _Refused("a tensor of impossible shape")
    return _Stored(storage, offset, tuple(size), tuple(stride))


_CALLS = {
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_stored),
    ("collections", "OrderedDict"): _Call(dict),
    ("torch.jit._pickle", "restore_type_tag"): _Call(lambda value, _: value),
    **{
        ("torch.jit._pickle", name): _Call(lambda values: values)
        for name in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")
    },
}


class _Reader(pickle.Unpickler):
    """Makes records of what the pickle describes; `types` are the names of the modules' classes."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.types: dict[str, type[_Module]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return self.types.setdefault(f"{module}.{name}", type("_Module", (_Module,), {"__slots__": ()}))
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _CALLS:
            return _CALLS[module, name]
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, length = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(length, int) or length < 0:
            raise _Refused("a reference that is no storage")
        return _Storage(dtype, str(key), length)


class TorchScriptFile(NamedTuple):
    """Names -> tensors on the CPU, and the names of the modules' classes, e.g. `__torch__.clip.model.QuickGELU`."""

    state: dict[str, Tensor]
    types: tuple[str, ...]


def is_torchscript(path: Path) -> bool:
    """Whether the file is a zip as `torch.jit.save` writes it, rather than one of `torch.save`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def read_torchscript(path: Path) -> TorchScriptFile:
    """All tensors among the modules' attributes, parameters and buffers alike; nothing of the archive is run.

    Raises `CheckpointError` for a damaged archive and for one that names what weights do not need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
            (name,) = pickled
            content = _record(archive, name)
            if not memo_is_sound(content):
                raise _Refused("an impossible place in its memo")
            reader = _Reader(content)
            tree = reader.load()
            folder = f"{name.removesuffix('.pkl')}/"
            state = {key: _tensor(archive, folder, stored) for key, stored in _walk(tree)}
    except _Refused as error:
        raise CheckpointError(
            f"{path} is a TorchScript archive that names {error}, which no weights need, so it is refused."
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is a damaged TorchScript archive. Copy or download it again.") from error
    return TorchScriptFile(state, tuple(reader.types))


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a record, which torch does not compress: so a small file cannot unfold into a large one."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise _Refused(f"a compressed record {name}")
    return archive.read(info)


def _walk(tree: Any) -> Iterator[tuple[str, _Stored]]:
    """Dotted names and tensors. A module that several names share has the first."""
    if not isinstance(tree, _Module):
        raise _Refused("no module at its top")
    seen: set[int] = set()
    stack: list[tuple[str, _Module]] = [("", tree)]
    while stack:
        prefix, module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        attributes = module.attributes
        if not isinstance(attributes, dict):
            continue
        for name, value in attributes.items():
            if isinstance(value, _Stored):
                yield f"{prefix}{name}", value
            elif isinstance(value, _Module):
                stack.append((f"{prefix}{name}.", value))


def _tensor(archive: zipfile.ZipFile, folder: str, stored: _Stored) -> Tensor:
    storage, count = stored.storage, math.prod(stored.size)
    last = stored.offset + sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
    if count > storage.length or (count and last >= storage.length):
        raise _Refused("a tensor larger than its storage")
    content = _record(archive, folder + storage.key)
    if len(content) != storage.length * storage.dtype.itemsize:
        raise ValueError("a storage of another length")
    if not count:
        return torch.empty(stored.size, dtype=storage.dtype)
    raw = bytearray(content)
    flat = torch.frombuffer(raw, dtype=torch.uint8 if storage.dtype == torch.bool else storage.dtype)
    whole = torch.as_strided(flat, stored.size, stored.stride, stored.offset)
    return whole != 0 if storage.dtype == torch.bool else whole.clone()
