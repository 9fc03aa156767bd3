"""Pickles of weights, read without importing or calling anything that they name. No torch.

Tensors become records of their shape and place, modules of TorchScript their attributes, and of everything else only
plain containers, numbers and texts remain.
"""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, NoReturn

# What a damaged file of weights makes its readers raise.
DAMAGE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
# Training loops leave these next to the weights: an accuracy that is a NumPy number, a path, the state of a loss scale.
PASSED_OVER = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
)


class Refused(pickle.UnpicklingError):
    """The pickle names something that no weights need."""


class Storage(NamedTuple):
    """Where tensors of one type lie: `kind` as torch names it (`FloatStorage`), `length` in elements."""

    kind: str
    key: str
    length: int


@dataclass(frozen=True)
class Stored:
    """A tensor that is still in its file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)


class Attributes:
    """An object's attributes: of a module of TorchScript, or of the flags that the original's checkpoints hold."""

    __slots__ = ("attributes",)

    def __init__(self, *_: Any, **__: Any) -> None:
        self.attributes: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class PassedOver:
    """What stands for objects that are of no use here: it takes any arguments and any state, and keeps none."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _Call:
    """What a name of the pickle's stands for. The pickle cannot change it."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("a constructor with a state of its own")


def _stored(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Stored:
    if not isinstance(storage, Storage):
        raise Refused("a tensor without a storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise Refused("a tensor of impossible shape")
    return Stored(storage, offset, tuple(size), tuple(stride))


_KNOWN: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _Call(_stored),
    "torch._utils._rebuild_parameter": _Call(lambda data, *_: data),
    "collections.OrderedDict": _Call(collections.OrderedDict),
    "argparse.Namespace": Attributes,
    "_codecs.encode": _Call(lambda text, *_: text),  # of bytes
    "torch.jit._pickle.restore_type_tag": _Call(lambda value, _: value),
    **{
        f"torch.jit._pickle.build_{kind}list": _Call(lambda values: values)
        for kind in ("int", "tensor", "double", "bool")
    },
    **dict.fromkeys(PASSED_OVER, PassedOver),
}


class Reader(pickle.Unpickler):
    """Describes what a pickle holds. Raises `Refused` for a memo that would take memory first, and ValueError.

    Attributes:
        unknown: names that weights do not need, as they come; what they stand for is passed over. With `strict` the
            first of them raises `Refused`.
        types: names of TorchScript's classes.
    """

    def __init__(self, content: bytes, *, strict: bool = False) -> None:
        if not memo_is_sound(content):
            raise Refused("an impossible place in its memo")
        super().__init__(io.BytesIO(content))
        self.strict = strict
        self.unknown: list[str] = []
        self.types: dict[str, type[Attributes]] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module == "__torch__" or module.startswith("__torch__."):
            return self.types.setdefault(full, type("Attributes", (Attributes,), {"__slots__": ()}))
        if module == "torch" and name.endswith("Storage"):
            return name
        if full in _KNOWN:
            return _KNOWN[full]
        if self.strict:
            raise Refused(full)
        self.unknown.append(full)
        return PassedOver

    def persistent_load(self, pid: Any) -> Storage:
        what, kind, key, _, length, *_ = pid
        if what != "storage" or not isinstance(kind, str) or not isinstance(length, int) or length < 0:
            raise Refused("a reference that is no storage")
        return Storage(kind, str(key), length)


def memo_is_sound(content: bytes) -> bool:
    """Whether no entry of the memo lies beyond the pickle's own length: for such a number memory would be taken first.

    Raises ValueError for bytes that are no pickle.
    """
    return all(
        int(argument or 0) <= len(content)
        for code, argument, _ in pickletools.genops(content)
        if code.name in ("PUT", "LONG_BINPUT")
    )


def record_of(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a record, which torch does not compress: so a small file cannot unfold into a large one."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise Refused(f"a compressed record {name}")
    return archive.read(info)


def data_of(archive: zipfile.ZipFile) -> tuple[str, bytes]:
    """(folder of its tensors, the pickle that describes them) of an archive as torch writes it."""
    (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    return f"{name.removesuffix('.pkl')}/", record_of(archive, name)


def pickles_in(file: IO[bytes], count: int, *, longest: int) -> list[bytes]:
    """The first `count` pickles of a file, each as its bytes. Raises ValueError where they are longer or no pickles."""
    parts: list[bytes] = []
    for _ in range(count):
        start = file.tell()
        for _code, _argument, position in pickletools.genops(file):
            if (position or 0) - start > longest:
                raise ValueError("a pickle too long")
        end = file.tell()
        file.seek(start)
        parts.append(file.read(end - start))
    return parts


def flags_in(value: Any) -> dict[str, Any]:
    """The flags of an `argparse.Namespace`, as torch or `Reader` has read it; of anything else none."""
    attributes = vars(value) if isinstance(value, argparse.Namespace) else getattr(value, "attributes", None)
    return dict(attributes) if isinstance(attributes, dict) else {}
