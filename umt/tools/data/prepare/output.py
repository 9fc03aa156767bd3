"""What is written: lists, class names, what is missing, and a manifest. The same input gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umt.data.labels import LABELS_FILE, text_of
from umt.data.lists import lines
from umt.data.lists.lines import Form
from umt.errors import ConfigError, OutputError
from umt.formats import Format
from umt.tools.data.prepare.match import Matched, Row

MANIFEST, MISSING = "manifest.json", "missing.txt"
FORMAT = Format("a manifest of lists", ConfigError)


def list_text(rows: Sequence[Row], separator: str) -> bytes:
    """The list as runs read it: path, for folders of frames their number, label."""
    form = Form(separator, frame_folders=any(row.frames > 0 for row in rows))
    listed = (lines.Row(row.path, row.frames if form.frame_folders else -1, row.label) for row in rows)
    return "".join(f"{form.line(row)}\n" for row in listed).encode()


def files_of(
    names: Sequence[str], splits: Mapping[str, Matched], separator: str, manifest: Mapping[str, Any]
) -> dict[str, bytes]:
    """Name -> content of all files to write. A split without videos has no list."""
    files = {f"{split}.csv": list_text(part.rows, separator) for split, part in splits.items() if part.rows}
    files[LABELS_FILE] = text_of(names).encode("utf-8", "surrogateescape")
    first = {id(part): split for split, part in reversed(list(splits.items()))}
    missing = [(first[id(part)], shown, why) for part in once(splits) for shown, why in part.missing]
    if missing:
        text = "".join("\t".join(map(_escaped, line)) + "\n" for line in missing)
        files[MISSING] = text.encode("utf-8", "surrogateescape")
    counts = {split: _counts(part, files.get(f"{split}.csv", b""), len(names)) for split, part in splits.items()}
    labelled = {"classes": len(names), "labels_sha256": digest(files[LABELS_FILE])}
    content = {**FORMAT.stamp(), **manifest, **labelled, "splits": counts}
    files[MANIFEST] = json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
    return files


def _escaped(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def once(splits: Mapping[str, Matched]) -> list[Matched]:
    """The splits, without a test split that is the validation split again."""
    return list({id(part): part for part in splits.values()}.values())


def _counts(part: Matched, text: bytes, classes: int) -> dict[str, Any]:
    present = {row.label for row in part.rows}
    sizes = hashlib.sha256()
    for row in part.rows:
        sizes.update(f"{row.path}\t{row.size}\n".encode("utf-8", "surrogateescape"))
    return {
        "official": part.official,
        "found": len(part.rows),
        "missing": len(part.missing),
        "annotated_again": part.repeated,
        "classes_without_videos": classes - len(present),
        "bytes": sum(row.size for row in part.rows),
        "list_sha256": digest(text),
        "paths_and_sizes_sha256": sizes.hexdigest(),
    }


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def refuse_to_overwrite(folder: Path, *, force: bool) -> None:
    """Raises OutputError if `folder` holds files of these names, unless `force`."""
    ours = [f"{split}.csv" for split in ("train", "val", "test")] + [LABELS_FILE, MANIFEST, MISSING]
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"--out ({folder}) is a file. Give a folder.")
    held = [name for name in ours if (folder / name).exists()]
    if held and not force:
        raise OutputError(
            f"--out ({folder}) already holds {', '.join(held)}. Give another folder, or --force to replace them."
        )


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes all files or, on a full disk, none; removes lists that an earlier call left there."""
    written: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            temporary = folder / f".{name}.writing"
            written.append((temporary, folder / name))
            temporary.write_bytes(content)
        for temporary, final in written:
            os.replace(temporary, final)
        for name in (*(f"{split}.csv" for split in ("train", "val", "test")), MISSING):
            if name not in files:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"--out ({folder}) cannot be written: {error.strerror or error}. Give another folder, or free some space."
        ) from error
