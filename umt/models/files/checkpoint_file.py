"""Reading a file of weights: never by arbitrary unpickling, and with one sentence for whatever is wrong with it."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from umt.errors import CheckpointError, install
from umt.models.files.fetch import what_it_is_instead
from umt.models.files.pickles import named_in
from umt.models.files.torchscript_file import is_torchscript, read_torchscript

_DEEPSPEED = "mp_rank_00_model_states.pt"

# What a damaged file makes torch's restricted unpickler raise, beside its own errors.
_DAMAGE = (
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    AssertionError,
    OSError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
)


# Names in any file of weights, none of which does harm.
_OF_TENSORS = ("torch._utils._rebuild", "torch.FloatStorage", "torch.HalfStorage", "torch.BFloat16Storage",
               "torch.LongStorage", "torch.nn.parameter.Parameter", "collections.OrderedDict",
               "argparse.Namespace")  # fmt: skip
_LONGEST = 16 << 20  # bytes of a pickle that are looked at for names


class _Nothing:
    """What stands for objects beside the weights that are of no use here: it takes any state and keeps none."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _nothing(name: str) -> type[_Nothing]:
    """A class that torch's restricted unpickler takes for the class or function `name`, which is not imported."""
    module, _, last = name.rpartition(".")
    return type(last, (_Nothing,), {"__module__": module, "__qualname__": last})


# Beside argparse's Namespace, training loops leave these in their files: an accuracy that is a NumPy number, a path,
# the state of a loss scale.
_ALLOWED: list[Any] = [
    argparse.Namespace,
    *map(
        _nothing,
        (
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
            "numpy.dtype",
            "pathlib.PosixPath",
            "pathlib.WindowsPath",
            "deepspeed.runtime.fp16.loss_scaler.LossScaler",
            "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        ),
    ),
]


def read_state_dict(path: str | os.PathLike[str], *, model_key: str = "model|module") -> dict[str, Tensor]:
    """Names -> tensors (on the CPU) of the file or folder `path`.

    The first of the keys in `model_key` (separated by "|") that the file has is taken, else the file itself is the
    state dict. Tensors, numbers, strings and plain containers load, and the `argparse.Namespace` that original
    checkpoints hold; a few more names are passed over (`_ALLOWED`); a file that names any other class is refused before
    anything of it runs. Raises `CheckpointError`.
    """
    return state_of(read_content(path), str(path), model_key)


def state_of(content: Any, where: str, model_key: str = "model|module") -> dict[str, Tensor]:
    """The state dict in what `read_content` gives. Raises `CheckpointError`."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{where} holds a {type(content).__name__}, not a dictionary of weights.")
    state = next((content[key] for key in model_key.split("|") if key in content), content)
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise CheckpointError(
            f"{where} has no weights under {' or '.join(model_key.split('|'))} nor at its top, which holds: {keys}. "
            "Save the state dict alone, or name its key where you train or in Python (--model_key, model_key=)."
        )
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def read_content(path: str | os.PathLike[str], *, lazily: bool = False) -> Any:
    """All that the weights of the file or folder `path` came with: of torch's files what was saved, else a state dict.

    `lazily`: tensors are read when they are looked at, where the format allows it. Raises `CheckpointError`.
    """
    files = weights_files(Path(path))
    if len(files) == 1:
        return _read(files[0], lazily=lazily)
    content: dict[str, Any] = {}
    for file in files:
        content |= _read(file, lazily=lazily)
    return content


# ---- files and folders


def weights_files(path: Path) -> list[Path]:
    """The file `path` itself, or those that hold the weights of the folder `path`. Raises `CheckpointError`.

    Folders are those of DeepSpeed (`checkpoint-best/mp_rank_00_model_states.pt`, also found through the file `latest`
    beside them), of the Hugging Face hub (safetensors or .bin, in one file or in shards), and the output of a run.
    """
    if not path.is_dir():
        return _shards(path) if path.name.endswith(".index.json") else [path]
    if (path / _DEEPSPEED).exists():
        return [path / _DEEPSPEED]
    if any(path.glob("zero_pp_rank_*_mp_rank_*_model_states.pt")):
        raise CheckpointError(
            f"{path} was saved by DeepSpeed with ZeRO stage 3, in shares. Bring them together with the zero_to_fp32.py "
            "that lies beside it, and name the file that it writes."
        )
    if (latest := path / "latest").is_file():
        tag = latest.read_text(errors="replace").strip()
        if tag and Path(tag).name == tag and (path / tag).is_dir():
            return weights_files(path / tag)
        raise CheckpointError(f"{latest} names {tag!r}, which is no folder beside it. Name the folder that is meant.")
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                 "pytorch_model.bin.index.json", "checkpoint-best.pth", "checkpoint-latest.pth"):  # fmt: skip
        if (path / name).exists():
            return weights_files(path / name)
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:6]) or "nothing"
    raise CheckpointError(
        f"{path} is a folder without weights that are known here ({_DEEPSPEED}, model.safetensors, pytorch_model.bin, "
        f"checkpoint-best.pth, ...). It holds {found}. Name the file of weights."
    )


def _shards(index: Path) -> list[Path]:
    try:
        named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index} is damaged or no index of shards. Copy or download it again.") from None
    for name in named:
        if Path(str(name)).name != name or not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names the shard {name}, which is not beside it. Download all its files.")
    return [index.parent / name for name in named]


# ---- one file


def _read(path: Path, *, lazily: bool = False) -> Any:
    kind = _format_of(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "torchscript":
        return read_torchscript(path).state
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a protocol that its reader does not know
            return torch.load(path, map_location="cpu", weights_only=True, mmap=lazily and _is_zip(path))
    except pickle.UnpicklingError as error:
        told = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch's own sentence tells how to be less careful
        names = _named_in(path)
        if named := told[1] if told else next((name for name in names if not name.startswith(_OF_TENSORS)), ""):
            raise CheckpointError(
                f"{path} pickles {named}, which could run code when loaded, so it is refused. "
                "Save its state dict alone."
            ) from error
        if names:
            raise CheckpointError(
                f"{path} is pickled in protocol 4 or later, which is not read here. Save it as torch.save does, in "
                "protocol 2."
            ) from error
        raise CheckpointError(f"{path} is damaged or not a PyTorch checkpoint. Copy or download it again.") from error
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is truncated or damaged. Copy or download it again.") from error


def _named_in(path: Path) -> list[str]:
    """What a pickle of a protocol that torch's reader does not know names; of an earlier one nothing."""
    try:
        if not _is_zip(path):
            with path.open("rb") as file:
                return named_in(file.read(_LONGEST))
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith("data.pkl")]
            with archive.open(inside[0]) as file:
                return named_in(file.read(_LONGEST))
    except (*_DAMAGE, NotImplementedError):
        return []


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # of a damaged directory at the end
        return False


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(f"{path} needs the package safetensors. Run: {install('hub')}") from None
    try:
        return load_file(path)
    except (SafetensorError, *_DAMAGE) as error:
        raise CheckpointError(f"{path} is truncated or damaged. Copy or download it again.") from error


def _format_of(path: Path) -> Literal["torch", "torchscript", "safetensors"]:
    """The format, by the first bytes; raises `CheckpointError` for what people have instead of a checkpoint."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Check the path of the weights.")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    if instead := what_it_is_instead(start):
        raise CheckpointError(f"{path} is {instead}")
    if path.suffix == ".safetensors" or start[8:9] == b"{":  # eight bytes with the length of a header in JSON
        return "safetensors"
    if start.startswith(b"PK\x03\x04"):
        if not _is_zip(path):
            raise CheckpointError(f"{path} is truncated: its end is missing. Copy or download it again.")
        return "torchscript" if is_torchscript(path) else "torch"
    if not start.startswith((b"\x80", b"}", b"(")):  # pickle protocols; older torch files are bare pickles
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint. Weights must be a file that torch.save or safetensors wrote."
        )
    return "torch"
