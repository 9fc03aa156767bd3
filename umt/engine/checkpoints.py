"""Checkpoint files: written whole or not at all, read without running any code they carry.

A file is written to a temporary name, flushed to the disk and renamed, so that under its own name there is always a
complete one. It holds tensors, numbers, strings and plain containers only (`torch.load(weights_only=True)`). Names are
the original's: checkpoint-latest.pth, checkpoint-best.pth, checkpoint-<epoch>.pth; key `model` holds the state dict.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import nn

from umt.errors import CheckpointError, OutputError
from umt.formats import CHECKPOINT
from umt.writing import replacing, sync_folder, temporary_of

log = logging.getLogger(__name__)
LATEST = "checkpoint-latest.pth"
BEST = "checkpoint-best.pth"
_NUMBERED = re.compile(r"checkpoint-(\d+)\.pth")


def numbered(epoch: int) -> str:
    """File name of the checkpoint after epoch `epoch`, counted from 0 as in the original."""
    return f"checkpoint-{epoch}.pth"


# ---- writing


def check_writable(folder: Path) -> None:
    """Makes `folder` and proves that a file can be written there, before any work is spent.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"umt")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"--output_dir ({folder}) cannot be written: {error.strerror or error}. "
            "Choose a folder that you may write, on a disk with free space."
        ) from error


class _Recorded:
    """A file that remembers the OSError of a failed write: torch.save's zip writer replaces it by one of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def size_of(content: Any) -> int:
    """Bytes of the tensors in a nested content; what a checkpoint of it takes on the disk, but for a few kB."""
    storages: dict[int, int] = {}  # by address: tensors that share one are written once

    def collect(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, Mapping | list | tuple):
            for entry in value.values() if isinstance(value, Mapping) else value:
                collect(entry)

    collect(content)
    return sum(storages.values())


def check_space(content: Mapping[str, Any], folder: Path) -> None:
    """Raises OutputError if `content` is larger than what the disk of `folder` has free, before a byte is written."""
    needed, free = size_of(content), shutil.disk_usage(folder).free
    if needed > free:
        kept = "The previous one is intact." if (folder / LATEST).exists() else "There is none yet."
        raise OutputError(
            f"A checkpoint of {needed / 1e9:.3g} GB does not fit into {folder}, which has {free / 1e9:.3g} GB free. "
            f"{kept} Free some space, or give --keep_last N to keep fewer numbered ones, then start the same command "
            "again: it resumes."
        )


def save(content: Mapping[str, Any], path: Path) -> None:
    """Writes `content` to `path`, atomically.

    Raises:
        OutputError: as `replacing`.
    """
    with replacing(path) as file:
        recorded = _Recorded(file)
        try:
            torch.save(dict(content), cast(IO[bytes], recorded))
        except RuntimeError as error:
            if recorded.error is not None:
                raise recorded.error from error
            raise


def publish(source: Path, target: Path) -> None:
    """Gives the file `source` the further name `target`, atomically, replacing what `target` was.

    A hard link costs neither time nor space, and is safe because files are only ever replaced, never changed;
    where the file system has none, a copy.
    """
    temporary = target.with_name(f".{target.name}.writing")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:
        with replacing(target) as file, open(source, "rb") as original:
            shutil.copyfileobj(original, file, 16 << 20)
        return
    os.replace(temporary, target)
    sync_folder(target.parent)


def save_as(content: Mapping[str, Any], folder: Path, names: list[str]) -> None:
    """Writes `content` once, under each of `names`; the last name changes last.

    The trainer puts checkpoint-latest.pth last: a kill in between then leaves a run that redoes a little and
    rewrites the others alike, never one that believes in a best checkpoint that is not there.
    """
    fresh = folder / ".checkpoint-new.pth"
    for left in (temporary_of(fresh), fresh):  # of a killed process, and as large as what is to be written
        with contextlib.suppress(OSError):
            left.unlink()
    check_space(content, folder)
    save(content, fresh)
    for name in names[:-1]:
        publish(fresh, folder / name)
    os.replace(fresh, folder / names[-1])
    sync_folder(folder)


def keep_newest(folder: Path, count: int, *, epoch: int) -> None:
    """Removes numbered checkpoints but the `count` newest of those below `epoch`, which is the run's next one."""
    names = [(_NUMBERED.fullmatch(path.name), path) for path in folder.glob("checkpoint-*.pth")]
    by_epoch = {int(match[1]): path for match, path in names if match and int(match[1]) < max(epoch, 1)}
    for number in sorted(by_epoch)[:-count]:
        by_epoch[number].unlink(missing_ok=True)


# ---- reading


def is_whole(path: Path) -> bool:
    """Whether every byte of `path` is as it was written (the zip's checksums)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return False


def load(path: Path, *, map_location: torch.device | str = "cpu", lazily: bool = False) -> dict[str, Any]:
    """A training checkpoint of this library. `lazily`: tensors are read from the disk when they are used.

    Raises:
        CheckpointError: missing, truncated, written by a later version, or not a training checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"--resume ({path}) does not exist.{_neighbours(path.parent)}")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True, mmap=lazily)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        if not is_whole(path):
            raise CheckpointError(
                f"{path} is truncated or damaged ({path.stat().st_size} bytes).{_neighbours(path.parent, without=path)}"
            ) from error
        raise CheckpointError(
            f"{path} holds Python objects apart from tensors and numbers, so it is no training checkpoint of this "
            "library. Start from its weights with --finetune instead of --resume."
        ) from error
    if not isinstance(content, dict) or CHECKPOINT.key not in content:
        raise CheckpointError(
            f"{path} holds no training state of this library (only weights, or another program's checkpoint). "
            "Start from its weights with --finetune instead of --resume."
        )
    CHECKPOINT.check(content, path)
    return content


def _neighbours(folder: Path, without: Path | None = None) -> str:
    """A sentence that names the checkpoints of `folder`, for messages."""
    names = sorted(p.name for p in folder.glob("checkpoint-*.pth") if p != without) if folder.is_dir() else []
    return f" The folder has {', '.join(names)}." if names else f" There are no other checkpoints in {folder}."


def find_resume(folder: Path | None, *, resume: str = "", auto_resume: bool = True) -> Path | None:
    """The checkpoint that a run starts from, or None to start at the beginning.

    `resume`, where given, wins over everything. Otherwise `auto_resume` takes checkpoint-latest.pth, else the highest
    number. A damaged one is said and passed over for the newest that is whole.

    Raises:
        CheckpointError: `resume` is missing or damaged; or every checkpoint of `folder` is.
    """
    if resume:
        path = Path(resume)
        if not path.is_file():
            raise CheckpointError(f"--resume ({path}) does not exist.{_neighbours(path.parent)}")
        return path
    if not auto_resume or folder is None:
        return None
    names = [(_NUMBERED.fullmatch(path.name), path) for path in folder.glob("checkpoint-*.pth")]
    by_epoch = {int(match[1]): path for match, path in names if match}
    latest = folder / LATEST
    order = [latest] * latest.exists() + [by_epoch[epoch] for epoch in sorted(by_epoch, reverse=True)]
    if not order and not (folder / BEST).exists():
        return None
    if order and is_whole(order[0]):
        return order[0]
    whole = [path for path in {*order[1:], folder / BEST} if is_whole(path)]
    if not whole:
        raise CheckpointError(
            f"No checkpoint in {folder} is whole ({', '.join(p.name for p in order)}). "
            "Restore one, or start from the beginning with --no_auto_resume."
        )
    chosen = max(whole, key=_position)
    if order:
        log.warning("%s is truncated or damaged; going on from %s, the newest that is whole", order[0], chosen.name)
    return chosen


def _position(path: Path) -> tuple[int, int]:
    progress = load(path)["progress"]
    return progress["epoch"], progress["step"]


def find_best(folder: Path) -> Path:
    """The best checkpoint of a run, for `--test_best`.

    Raises:
        CheckpointError: there is none.
    """
    path = folder / BEST
    if not path.is_file():
        raise CheckpointError(
            f"--test_best: {path} does not exist.{_neighbours(folder, without=path)} "
            "Name one with --resume, or leave out --test_best."
        )
    return path


def load_model(model: nn.Module, content: Mapping[str, Any], source: str, *, ema: bool = False) -> None:
    """Puts a checkpoint's weights (`ema`: their moving average) into `model`, which must be the same architecture.

    Raises:
        CheckpointError: other names or shapes, the first few of which it lists; or no moving average in the file.
    """
    if ema and "model_ema" not in content:
        raise CheckpointError(f"{source} holds no moving average of the weights. Leave out --model_ema.")
    state = content["model_ema" if ema else "model"]
    expected = model.state_dict()
    wrong = [f"{name} is absent" for name in expected if name not in state]
    wrong += [f"{name} is not in this model" for name in state if name not in expected]
    wrong += [
        f"{name} is {_shape(state[name])} there and {_shape(expected[name])} here"
        for name in expected
        if name in state and expected[name].shape != state[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"{source} is of another architecture: {'; '.join(wrong[:3])}{more}. Use the flags that it was "
            "trained with, or start from its weights with --finetune; --no_auto_resume leaves it alone."
        )
    model.load_state_dict(state)


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
