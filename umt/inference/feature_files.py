"""Files of features: what `umt extract` writes, and how it is read back. Three forms, one content.

A file holds some rows of a list. Of each row: its number, its path and label as the list has them, the numbers of the
frames that each clip was made of (S, n), and of each layer an array whose first axis is the views (S * C, ...).
Nothing in a file depends on when, or by how many processes, it was written.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from umt.devices import DTYPES as DTYPES
from umt.errors import ConfigError, UserError, install
from umt.writing import output_errors, whole

FORMATS = ("npz", "parquet", "safetensors")
_ROWS_A_FOLDER = 1000  # of npz files, since folders of a million files are slow
_DAMAGE = (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError)  # what readers of damaged files raise


class FeaturesError(UserError):
    """Features that are missing, damaged, or of another recipe."""


@dataclass
class Row:
    """One video: `layers` has a tensor (S * C, ...) for each layer; bf16 stays bf16."""

    row: int
    path: str
    label: int
    frames: NDArray[np.int32]
    layers: dict[str, torch.Tensor] = field(default_factory=dict)


def file_of(folder: Path, form: str, shard: int, shard_size: int) -> Path:
    """The file of shard number `shard`; of npz a shard is one row."""
    if form == "npz":
        return folder / f"{shard // _ROWS_A_FOLDER:06d}" / f"{shard:09d}.npz"
    return folder / f"features-{shard * shard_size:09d}.{form}"


def files(folder: Path, form: str) -> list[Path]:
    """All finished files, in the order of their rows."""
    return sorted(folder.glob("*/*.npz" if form == "npz" else f"features-*.{form}"))


def check(form: str, dtype: str) -> None:
    """Raises ConfigError for a form that this machine cannot write, or that has no such numbers."""
    if dtype == "bf16" and form != "safetensors":
        raise ConfigError(
            f"--format {form} has no bf16. Take --format safetensors, or --dtype fp16, which is finer where features "
            "stay below 65504."
        )
    package = {"parquet": "pyarrow", "safetensors": "safetensors"}.get(form)
    if package:
        try:
            __import__(package)
        except ImportError:
            extra = {"parquet": "parquet", "safetensors": "hub"}[form]
            raise ConfigError(f"--format {form} needs the package {package}. Try {install(extra)}.") from None


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes a file, whole or not at all. Raises OutputError."""
    remedy = "Free the disk or give another folder; the same command goes on."
    # Of a shard much would be lost; flushing each of a million small files takes too long.
    with output_errors(f"--output: {path}", remedy), whole(path, flush=path.suffix != ".npz") as place:
        _WRITERS[path.suffix](place, rows)


def read(path: Path, layers: Sequence[str] | None = None) -> list[Row]:
    """The rows of a file; `layers`: only these. Raises FeaturesError for a file that is damaged."""
    with _damage_named(path):
        return list(_READERS[path.suffix](path, layers))


def rows(folder: Path, form: str, layers: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of all files of `folder`, ascending, a file at a time. Raises FeaturesError."""
    for path in files(folder, form):
        yield from read(path, layers)


def rows_in(path: Path) -> list[int]:
    """Which rows a file has. Raises FeaturesError for a file that is damaged."""
    return Shard(path).rows if path.suffix == ".safetensors" else [row.row for row in read(path, [])]


@contextlib.contextmanager
def _damage_named(path: Path, errors: tuple[type[Exception], ...] = _DAMAGE) -> Iterator[None]:
    """FeaturesError that names `path`, for the errors of its reader."""
    try:
        yield
    except FeaturesError:
        raise
    except errors as error:
        raise FeaturesError(
            f"{path} cannot be read as features ({' '.join(str(error).split())[:200]}). Delete it and run the same "
            "command again; it writes what is missing."
        ) from error


# ---- npz: one video


def _write_npz(path: Path, rows: Sequence[Row]) -> None:
    (row,) = rows
    about = json.dumps({"row": row.row, "path": row.path, "label": row.label})
    with open(path, "wb") as file:
        np.savez(
            file,
            about=np.frombuffer(about.encode(errors="surrogateescape"), np.uint8),
            frames=row.frames,
            **{f"layer.{name}": array.numpy() for name, array in row.layers.items()},  # type: ignore[arg-type]
        )


def _read_npz(path: Path, layers: Sequence[str] | None) -> Iterator[Row]:
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(file["about"].tobytes().decode(errors="surrogateescape"))
        names = [name.removeprefix("layer.") for name in file.files if name.startswith("layer.")]
        kept = names if layers is None else layers
        yield Row(frames=file["frames"], layers={n: torch.from_numpy(file[f"layer.{n}"]) for n in kept}, **about)


# ---- safetensors: a shard


def _write_safetensors(path: Path, rows: Sequence[Row]) -> None:
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}
    about = []
    for row in rows:
        about.append({"row": row.row, "path": row.path, "label": row.label})
        tensors[f"{row.row}.frames"] = torch.from_numpy(row.frames)
        tensors.update({f"{row.row}.layer.{name}": array.contiguous() for name, array in row.layers.items()})
    # One key only: the library writes several in an order that changes.
    path.write_bytes(save(tensors, metadata={"rows": json.dumps(about)}))


class Shard:
    """A safetensors file of rows, of which only what is asked for is read. Raises FeaturesError for a damaged one."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        with _damage_named(path, (*_DAMAGE, SafetensorError)):
            self._path, self._file = path, safe_open(path, "pt")
            self.about: list[dict[str, Any]] = json.loads(self._file.metadata()["rows"])
        self.rows = [int(about["row"]) for about in self.about]

    def layer(self, row: int, name: str) -> torch.Tensor:
        """A layer of a row, (V, ...)."""
        return self._tensor(f"{row}.layer.{name}")

    def read(self, layers: Sequence[str] | None) -> Iterator[Row]:
        """All rows; `layers`: only these."""
        names: dict[int, list[str]] = {}
        for key in self._file.keys():  # noqa: SIM118 - it is no dict
            row, _, rest = key.partition(".")
            if rest.startswith("layer."):
                names.setdefault(int(row), []).append(rest.removeprefix("layer."))
        for row, about in zip(self.rows, self.about, strict=True):
            kept = names.get(row, []) if layers is None else layers
            yield Row(
                frames=self._tensor(f"{row}.frames").numpy(),
                layers={name: self.layer(row, name) for name in kept},
                **about,
            )

    def _tensor(self, key: str) -> torch.Tensor:
        from safetensors import SafetensorError

        with _damage_named(self._path, (*_DAMAGE, SafetensorError)):
            tensor: torch.Tensor = self._file.get_tensor(key)
        return tensor


# ---- parquet: a shard


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "row": pa.array([row.row for row in rows], pa.int64()),
        "path": pa.array([row.path.encode(errors="surrogateescape").decode(errors="replace") for row in rows]),
        "label": pa.array([row.label for row in rows], pa.int64()),
        "frames": _lists([row.frames for row in rows], pa.int32()),
        "frames.shape": pa.array([list(row.frames.shape) for row in rows], pa.list_(pa.int64())),
    }  # fmt: skip
    for name in rows[0].layers if rows else []:
        arrays = [row.layers[name].numpy() for row in rows]
        columns[name] = _lists(arrays, pa.from_numpy_dtype(arrays[0].dtype))
        columns[f"{name}.shape"] = pa.array([list(array.shape) for array in arrays], pa.list_(pa.int64()))
    pq.write_table(pa.table(columns), path)


def _lists(arrays: Sequence[NDArray[Any]], kind: Any) -> Any:
    import pyarrow as pa

    ends = np.cumsum([0] + [array.size for array in arrays])
    flat = np.concatenate([array.ravel() for array in arrays]) if arrays else np.empty(0)
    return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(flat, kind))


def _read_parquet(path: Path, layers: Sequence[str] | None) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = [name.removesuffix(".shape") for name in file.schema_arrow.names if name.endswith(".shape")]
        kept = [name for name in names if name != "frames"] if layers is None else list(layers)
        columns = ["row", "path", "label", "frames", "frames.shape", *kept, *(f"{name}.shape" for name in kept)]
        table = file.read(columns).combine_chunks()
    except pa.ArrowInvalid as error:
        raise ValueError(str(error)) from error

    def array(name: str, place: int) -> NDArray[Any]:
        flat = table[name][place].values.to_numpy(zero_copy_only=False)
        values: NDArray[Any] = flat.reshape(table[f"{name}.shape"][place].as_py()).copy()
        return values

    for place in range(table.num_rows):
        yield Row(
            row=table["row"][place].as_py(),
            path=table["path"][place].as_py(),
            label=table["label"][place].as_py(),
            frames=array("frames", place),
            layers={name: torch.from_numpy(array(name, place)) for name in kept},
        )


_WRITERS: dict[str, Callable[[Path, Sequence[Row]], None]] = {
    ".npz": _write_npz,
    ".safetensors": _write_safetensors,
    ".parquet": _write_parquet,
}
_READERS: dict[str, Callable[[Path, Sequence[str] | None], Iterator[Row]]] = {
    ".npz": _read_npz,
    ".safetensors": lambda path, layers: Shard(path).read(layers),
    ".parquet": _read_parquet,
}
