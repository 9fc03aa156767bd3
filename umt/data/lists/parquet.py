"""Lists as parquet: columns for path, label and, for folders of frames, their number, under any of the usual names.

Needs pyarrow (extra `parquet`), which is imported when such a list is read. Rows are counted from 1, like the
lines of a list without header.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from umt.data.lists.lines import FRAME_COLUMNS, LABEL_COLUMNS, PATH_COLUMNS, Form, Row
from umt.data.lists.video_list import Rows, Table
from umt.data.storage import remote
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, install

ENDINGS = (".parquet", ".pq")
_BATCH = 1 << 16


def is_parquet(source: str) -> bool:
    """Whether the name of a list says that it is parquet."""
    return source.lower().endswith(ENDINGS) and not os.path.isdir(source)


def count(source: str) -> int:
    """Rows of a list, from its footer."""
    with _opened(source) as file:
        return int(file.metadata.num_rows)


def table(source: str, form: Form) -> Table:
    """The rows of a list, batch by batch. Raises AnnotationError naming file:row or the columns that there are.

    Without a column of frame numbers, folders of frames have 0: nobody counted them. Of `form` the separator means
    nothing here.
    """
    gathered, words = Rows(), dict[str, int]()
    for number, path, frames, label in records(source, frame_folders=form.frame_folders):
        if label is None and not form.labels_optional and not form.words:
            raise AnnotationError(f"{source}:{number}: no label. Give every row one.")
        if not path or b"\0" in path:
            raise AnnotationError(f"{source}:{number}: {'a zero byte in the' if path else 'no'} path. Correct the row.")
        if form.frame_folders and (frames is None or frames < 0):
            raise AnnotationError(f"{source}:{number}: {frames} frames. Give every row the number of its frames.")
        if form.words:
            label = words.setdefault("" if label is None else str(label), len(words))
        gathered.add(path, -1 if frames is None else frames, -1 if label is None else label)
    if not gathered:
        raise AnnotationError(f"{source} holds no video: it has no row.")
    return gathered.table(tuple(words) if form.words else None)


def rows(source: str, form: Form) -> Iterator[tuple[int, Row]]:
    """Number from 1 and content of every row, its label as text, one after the other. Raises AnnotationError."""
    for number, path, frames, label in records(source, frame_folders=form.frame_folders):
        text = "" if label is None else str(label)
        yield number, Row(path.decode("utf-8", "surrogateescape"), -1 if frames is None else frames, -1, text)


def records(source: str, *, frame_folders: bool = False) -> Iterator[tuple[int, bytes, int | None, int | None]]:
    """Number from 1, path, frames (None: it is a video) and label (None: there is none) of every row."""
    import pyarrow as arrow

    with _opened(source) as file:
        schema = file.schema_arrow
        path, label = _column(schema, PATH_COLUMNS), _column(schema, LABEL_COLUMNS)
        frames = _column(schema, FRAME_COLUMNS) if frame_folders else None
        if path is None:
            raise AnnotationError(
                f"{source} has the columns {', '.join(schema.names[:12]) or 'none'}, none of them for the path. "
                "Call one of them path, and the label's label."
            )
        number = 0
        for batch in file.iter_batches(_BATCH, columns=[name for name in (path, frames, label) if name]):
            paths = _cast(source, batch, path, arrow.binary())
            labels = _cast(source, batch, label, arrow.int64()) if label else [None] * len(paths)
            if frames:
                counts: Sequence[int | None] = _cast(source, batch, frames, arrow.int64())
            else:
                counts = [0 if frame_folders else None] * len(paths)
            for row_path, row_frames, row_label in zip(paths, counts, labels, strict=True):
                number += 1
                yield number, row_path or b"", row_frames, row_label


def write(target: str, rows: Sequence[Row], *, frame_folders: bool = False) -> None:
    """Writes `rows` as a list with the columns path, label and, for folders of frames, num_frames."""
    import pyarrow as arrow
    from pyarrow import parquet

    columns: dict[str, Any] = {
        "path": arrow.array([row.path for row in rows], arrow.string()),
        "label": arrow.array([None if row.label < 0 else row.label for row in rows], arrow.int64()),
    }
    if frame_folders:
        columns["num_frames"] = arrow.array([row.frames for row in rows], arrow.int64())
    parquet.write_table(arrow.table(columns), target)


@contextmanager
def _opened(source: str) -> Iterator[Any]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise AnnotationError(
            f"{source}: reading parquet needs pyarrow. Run: {install('parquet')}, or give the list as csv."
        ) from None
    try:
        with parquet.ParquetFile(io.BytesIO(remote.read_list(source)) if is_url(source) else source) as file:
            yield file
    except FileNotFoundError:
        raise AnnotationError(f"{source} does not exist. Check the path.") from None
    except (arrow.ArrowException, OSError) as error:
        cause = " ".join(str(error).split())[:200]
        raise AnnotationError(f"{source} cannot be read as parquet: {cause} Is the file whole?") from None


def _column(schema: Any, names: Sequence[str]) -> str | None:
    there = {name.lower(): name for name in reversed(schema.names)}
    return next((there[name] for name in names if name in there), None)


def _cast(source: str, batch: Any, name: str, kind: Any) -> list[Any]:
    import pyarrow as arrow

    column = batch.column(batch.schema.get_field_index(name))
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    text, expects_text = _is_text(arrow.types, column.type), arrow.types.is_binary(kind)
    try:
        if text != expects_text or arrow.types.is_boolean(column.type):
            raise arrow.ArrowInvalid(f"{column.type}")
        return list(column.cast(kind).to_pylist())
    except arrow.ArrowException:
        expected = "paths (text)" if expects_text else "whole numbers"
        raise AnnotationError(f"{source}: the column {name} holds {column.type}, not {expected}.") from None


def _is_text(types: Any, kind: Any) -> bool:
    kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(is_kind(kind) for is_kind in kinds)
