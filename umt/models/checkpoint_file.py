"""Reading a file of weights: never by arbitrary unpickling, and with one sentence for whatever is wrong with it."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umt.errors import CheckpointError

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


def read_state_dict(path: str | os.PathLike[str], *, model_key: str = "model|module") -> dict[str, Tensor]:
    """Names -> tensors (on the CPU) of the file `path`.

    The first of the keys in `model_key` (separated by "|") that the file has is taken, else the file itself is the
    state dict. Tensors, numbers, strings and plain containers load, and the `argparse.Namespace` that original
    checkpoints hold; a file that names any other class is refused before anything of it runs. Raises `CheckpointError`.
    """
    content = _read(Path(path))
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    state = next((content[key] for key in model_key.split("|") if key in content), content)
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise CheckpointError(
            f"{path} has no weights under {' or '.join(model_key.split('|'))} nor at its top, which holds: {keys}. "
            "Name the key with --model_key."
        )
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def read_head(path: str | os.PathLike[str], *, model_key: str = "model|module") -> tuple[int, list[str] | None]:
    """(classes of the head of the file `path`, 0 without a head; their names where the file holds them).

    The names are the entry `class_names` of `config`, as training checkpoints of this library have it. Tensors of files
    in torch's present form are not read. Raises `CheckpointError`.
    """
    content = _read(Path(path), lazily=zipfile.is_zipfile(path))
    if not isinstance(content, dict):
        return 0, None
    config = content.get("config")
    names = config.get("class_names") if isinstance(config, dict) else None
    state = next((content[key] for key in model_key.split("|") if key in content), content)
    if not isinstance(state, dict):
        return 0, None
    heads = [k for k in state if str(k).split(".")[-2:] == ["head", "weight"] and "decoder" not in str(k)]
    heads = [k for k in heads if isinstance(state[k], Tensor) and state[k].ndim == 2]
    rows = int(state[min(heads, key=len)].shape[0]) if heads else 0
    return rows, [str(name) for name in names] if isinstance(names, list) else None


def _read(path: Path, *, lazily: bool = False) -> Any:
    _refuse_what_is_no_checkpoint(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch's own sentence tells how to be less careful
        if named:
            raise CheckpointError(
                f"{path} pickles {named[1]}, which could run code when loaded, so it is refused. "
                "Save its state dict alone."
            ) from error
        raise CheckpointError(f"{path} is damaged or not a PyTorch checkpoint. Copy or download it again.") from error
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is truncated or damaged. Copy or download it again.") from error


def _refuse_what_is_no_checkpoint(path: Path) -> None:
    """Tells by the first bytes what people have instead of a checkpoint; raises `CheckpointError`."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Check the path of the weights.")
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder, not a file of weights. DeepSpeed keeps them in mp_rank_00_model_states.pt within it."
        )
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    if not start:
        raise CheckpointError(f"{path} is empty (0 bytes). Copy or download it again.")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, not the weights themselves. Run: git lfs pull")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page, not weights: the download failed. Fetch it again from its link.")
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is truncated: its end is missing. Copy or download it again.")
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise CheckpointError(
                    f"{path} is a TorchScript archive (OpenAI's CLIP files are). Save its state dict first: "
                    'python -c "import torch; '
                    f"torch.save(torch.jit.load('{path}', 'cpu').state_dict(), 'weights.pt')\""
                )
    elif not start.startswith((b"\x80", b"}", b"(")):  # pickle protocols; older torch files are bare pickles
        raise CheckpointError(f"{path} is not a PyTorch checkpoint. Weights must be a file that torch.save wrote.")
