"""Writes cleaned lists next to those that were checked."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from umt.data.labels import LABELS_FILE
from umt.data.lists import parquet as parquet_list
from umt.data.lists.lines import SEPARATORS, Form, Row
from umt.errors import OutputError
from umt.tools.data.check.findings import KINDS, OF_FILES, WARNING, Finding
from umt.tools.data.check.lists import Checked
from umt.writing import whole


def target(source: str, folder: str | None) -> Path:
    """Where the cleaned list of `source` goes: `fixed/` in the folder that was checked, else name.fixed.ending."""
    path = Path(source)
    return Path(folder) / "fixed" / path.name if folder else path.with_name(f"{path.stem}.fixed{path.suffix}")


def fix(
    lists: Sequence[Checked], findings: Iterable[Finding], folder: str | None, *, frame_folders: bool, split: str | None
) -> list[dict[str, Any]]:
    """Writes the lists without the rows that findings drop; returns for each its place, its rows and what is left out.

    The separator is `split`, else that of the list. Files that --max_failures allows for stay. Raises OutputError where
    a folder cannot be written.
    """
    dropped: dict[str, dict[int, str]] = {}
    order = list(KINDS)
    for finding in sorted(findings, key=lambda f: order.index(f.kind)):
        allowed = finding.kind in OF_FILES and finding.weight == WARNING
        if KINDS[finding.kind].drops and finding.line and not allowed:
            dropped.setdefault(finding.source, {}).setdefault(finding.line, finding.kind)
    names = Path(folder or "", LABELS_FILE)
    written = []
    for checked in lists:
        form = Form(split or (checked.form.separator if checked.form else ","), frame_folders)
        written.append(_write(checked, dropped.get(checked.source, {}), target(checked.source, folder), form))
    if folder and names.is_file() and any(entry["fixed"] for entry in written):  # it gives the order of the classes
        shutil.copy(names, Path(folder, "fixed", LABELS_FILE))
    return written


def _write(checked: Checked, dropped: dict[int, str], file: Path, form: Form) -> dict[str, Any]:
    videos, left_out = checked.videos, Counter(dropped.values())
    is_parquet = parquet_list.is_parquet(checked.source)
    kept, lines = [], []
    for row, number in enumerate(checked.numbers):
        if number not in dropped:
            kept.append(Row(videos.path(row), int(videos.num_frames[row]), int(videos.labels[row])))
            lines.append("" if is_parquet else form.line(kept[-1]))
    entry = {
        "source": checked.source,
        "fixed": str(file) if kept else None,
        "rows": len(kept),
        "separator": None if is_parquet else form.separator,
        "left_out": {kind: left_out[kind] for kind in KINDS if left_out[kind]},
    }
    if kept:
        try:
            with whole(file, flush=False) as unfinished:
                if is_parquet:
                    parquet_list.write(os.fspath(unfinished), kept, frame_folders=form.frame_folders)
                else:
                    unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
        except OSError as error:
            raise OutputError(f"--fix cannot write {file}: {error.strerror}. Copy the list to where it can.") from None
    return entry


def describe(fixed: dict[str, Any]) -> str:
    """A cleaned list in a few lines."""
    kinds = fixed["left_out"].items()
    left_out = [f"{number:>9}  {KINDS[kind].what}" for kind, number in kinds] or ["           nothing"]
    if not fixed["fixed"]:
        return "\n".join([f"{fixed['source']}: no row is left, so nothing is written. Left out:", *left_out])
    split = f", --split {SEPARATORS.get(fixed['separator'], fixed['separator'])}" if fixed["separator"] else ""
    return "\n".join([f"Written: {fixed['fixed']}, {fixed['rows']} rows{split}. Left out:", *left_out])
