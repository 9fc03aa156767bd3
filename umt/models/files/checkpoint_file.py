"""Reading a file of weights: never by arbitrary unpickling, and with one sentence for anything wrong with it."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umt.errors import CheckpointError, install
from umt.models.files.opened import WeightsFile, open_file
from umt.models.files.pickles import DAMAGE, PASSED_OVER, PassedOver, Stored
from umt.models.files.torchscript_file import read_torchscript

_DEEPSPEED = "mp_rank_00_model_states.pt"


def _passed_over(name: str) -> type[PassedOver]:
    """A class that torch's restricted unpickler takes for the class or function `name`, which is not imported."""
    module, _, last = name.rpartition(".")
    return type(last, (PassedOver,), {"__module__": module, "__qualname__": last})


_ALLOWED: list[Any] = [argparse.Namespace, *map(_passed_over, PASSED_OVER)]


def read_state_dict(path: str | os.PathLike[str], *, model_key: str = "model|module") -> dict[str, Tensor]:
    """Names -> tensors (on the CPU) of the file or folder `path`.

    The first of the keys in `model_key` (separated by "|") that the file has is taken, else the file itself is the
    state dict. Tensors, numbers, strings and plain containers load, and the `argparse.Namespace` that original
    checkpoints hold; a few more names are passed over (`_ALLOWED`); a file that names any other class is refused before
    anything of it runs. Raises `CheckpointError`.
    """
    return state_of(read_content(path), str(path), model_key)


def state_of(content: Any, where: str, model_key: str = "model|module") -> dict[str, Any]:
    """The state dict in what `read_content` or `read_header` gives. Raises `CheckpointError`."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{where} holds a {type(content).__name__}, not a dictionary of weights.")
    state = next((content[key] for key in model_key.split("|") if key in content), content)
    if not isinstance(state, dict) or not any(isinstance(value, Tensor | Stored) for value in state.values()):
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise CheckpointError(
            f"{where} has no weights under {' or '.join(model_key.split('|'))} nor at its top, which holds: {keys}. "
            "Save the state dict alone, or name its key where you train or in Python (--model_key, model_key=)."
        )
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor | Stored)}


def read_content(path: str | os.PathLike[str]) -> Any:
    """All that the weights of the file or folder `path` came with: of torch's files what was saved, else a state dict.

    Raises `CheckpointError`.
    """
    return _joined([_read(open_file(file)) for file in weights_files(Path(path))])


def read_header(path: str | os.PathLike[str]) -> Any:
    """The same without reading a tensor: in its place is a record with its `shape` and `ndim`, or the tensor itself.

    Raises `CheckpointError`.
    """
    parts: list[Any] = []
    for file in map(open_file, weights_files(Path(path))):
        header = file.header
        # Torch takes more than our own reader knows, and else says what is wrong.
        parts.append(header.content if header is not None and header.is_plain else _read(file))
    return _joined(parts)


def _joined(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    content: dict[str, Any] = {}
    for part in parts:
        content |= part
    return content


# ---- files and folders


def weights_files(path: Path) -> list[Path]:
    """The file `path` itself, or those that hold the weights of the folder `path`. Raises `CheckpointError`.

    Folders are those of DeepSpeed (`checkpoint-best/mp_rank_00_model_states.pt`, also found through the file `latest`
    next to them), of the Hugging Face hub (safetensors or .bin, in one file or in shards), and the output of a run.
    """
    if not path.is_dir():
        return _shards(path) if path.name.endswith(".index.json") else [path]
    if (path / _DEEPSPEED).exists():
        return [path / _DEEPSPEED]
    if any(path.glob("zero_pp_rank_*_mp_rank_*_model_states.pt")):
        raise CheckpointError(
            f"{path} was saved by DeepSpeed with ZeRO stage 3, in shares. Merge them with the "
            "zero_to_fp32.py next to it, and name the file that it writes."
        )
    if (latest := path / "latest").is_file():
        tag = latest.read_text(errors="replace").strip()
        if tag and Path(tag).name == tag and (path / tag).is_dir():
            return weights_files(path / tag)
        raise CheckpointError(
            f"{latest} names {tag!r}, which is not a folder next to it. Name the folder that is meant."
        )
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                 "pytorch_model.bin.index.json", "checkpoint-best.pth", "checkpoint-latest.pth"):  # fmt: skip
        if (path / name).exists():
            return weights_files(path / name)
    entries = ", ".join(sorted(entry.name for entry in path.iterdir())[:6]) or "nothing"
    raise CheckpointError(
        f"{path} is a folder without weights under a known name ({_DEEPSPEED}, model.safetensors, pytorch_model.bin, "
        f"checkpoint-best.pth, ...). It holds {entries}. Name the file of weights."
    )


def _shards(index: Path) -> list[Path]:
    try:
        named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index} is damaged or not an index of shards. Copy or download it again.") from None
    for name in named:
        if Path(str(name)).name != name or not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names the shard {name}, which is not next to it. Download all its files.")
    return [index.parent / name for name in named]


# ---- one file


def _read(file: WeightsFile) -> Any:
    """All of a file, which is closed: what it holds is handed on from here."""
    path = file.path
    try:
        kind = file.format
        if kind == "safetensors":
            return _read_safetensors(path)
        if kind == "torchscript":
            return read_torchscript(path).state
        with file.reading() as opened, torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a protocol that its reader does not know
            return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch advises to load without this check
        header = file.header
        unknown = header.unknown if header else ()
        if named := refused[1] if refused else next(iter(unknown), ""):
            raise CheckpointError(
                f"{path} pickles {named}, which could run code when loaded, so it is refused. "
                "Save its state dict alone."
            ) from error
        if header is not None and header.protocol >= 4:
            raise CheckpointError(
                f"{path} is pickled in protocol 4 or later, which is not read here. Save it as torch.save does, in "
                "protocol 2."
            ) from error
        raise CheckpointError(f"{path} is damaged or not a PyTorch checkpoint. Copy or download it again.") from error
    except CheckpointError:
        raise
    except DAMAGE as error:
        raise CheckpointError(f"{path} is truncated or damaged. Copy or download it again.") from error
    finally:
        file.close()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """By the library, which maps the file into memory under its name."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(f"{path} needs the package safetensors. Run: {install('hub')}") from None
    try:
        return load_file(path)
    except (SafetensorError, *DAMAGE) as error:
        raise CheckpointError(f"{path} is truncated or damaged. Copy or download it again.") from error
