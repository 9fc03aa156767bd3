"""The page of `umt data show`: facts, pictures and names, filled into page.html, which escapes all of them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from umt import drawing
from umt.errors import OutputError
from umt.pages import fill
from umt.tasks.base.shown import Shown
from umt.tools.data.show import figures
from umt.tools.data.show.look import Clip, Seen

_LISTED = 12  # classes at either end, and failures, that are named


def page(shown: Shown, seen: Seen, command: Sequence[str]) -> str:
    """The page as HTML, which needs no other file."""
    files = {file.row: file for file in seen.readable}
    return fill(
        Path(__file__).with_name("page.html"),
        source=_plain(shown.videos.source),
        videos=len(shown.videos),
        title=shown.title,
        explanation=shown.explanation,
        command=_plain(shlex.join(command)),
        facts=_facts(shown),
        flags=[(f"--{name}", _value(value)) for name, value in shown.flags()],
        notes=[*seen.notes, *([shown.videos.note] if shown.videos.note else [])],
        clips=[_card(shown, clip, files.get(clip.row)) for clip in seen.clips],
        classes=_classes(shown),
        looked=len(seen.files),
        failures=[
            {"row": file.row, "path": _plain(shown.videos.path(file.row)), "cause": _plain(file.cause)}
            for file in seen.files
            if file.cause
        ],
        listed=_LISTED,
        **_measures(seen),
    )


def summary(shown: Shown, seen: Seen) -> str:
    """What the console says."""
    failed = len(seen.files) - len(seen.readable)
    times = [file.seconds for file in seen.readable]
    return (
        f"{_plain(shown.videos.source)}: {len(shown.videos)} videos"
        + (f", {shown.classes} classes" if shown.classes else "")
        + f"; {len(seen.files)} opened, {failed} of them unreadable"
        + (f"; a clip takes {1000 * float(np.median(times)):.0f} ms to decode (median)." if times else ".")
    )


def write(path: Path, text: str) -> None:
    """Writes the page. OutputError if that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--out ({path}) cannot be written ({error.strerror}). Choose another place.") from error


def _plain(text: str) -> str:
    """Bytes of a file's name that are no UTF-8 become the sign for that: they could not be written."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _facts(shown: Shown) -> list[tuple[str, str]]:
    videos = shown.videos
    facts = [("videos", f"{len(videos):,}"), ("prefix", _plain(videos.prefix) or "none")]
    if shown.classes:
        facts.append(("classes", f"{shown.classes}, {_plain(shown.names_from) or 'without names'}"))
    missing = int((videos.labels < 0).sum())
    facts.append(("without a label", f"{missing:,}" if missing else "none"))
    paths = Counter(videos.path(row) for row in range(len(videos))) if len(videos) <= 1_000_000 else Counter()
    twice = sum(count > 1 for count in paths.values())
    facts.append(("paths that occur more than once", f"{twice:,}" if twice else "none"))
    return facts


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _card(shown: Shown, clip: Clip, file: Any) -> dict[str, Any]:
    strips = []
    for strip in clip.strips:
        rows = [strip.frames]
        if strip.visible is not None:
            rows.append(drawing.masked(strip.frames, strip.visible))
        share = None if strip.visible is None else float(strip.visible.mean())
        strips.append({"title": strip.title, "src": figures.webp(figures.strip(rows, strip.numbers)), "seen": share})
    label = int(shown.videos.labels[clip.row])
    return {
        "row": clip.row,
        "path": _plain(shown.videos.path(clip.row)),
        "label": label,
        "name": _plain(shown.name(label)),
        "strips": strips,
        "file": file,
    }


def _classes(shown: Shown) -> dict[str, Any] | None:
    if not shown.classes:
        return None
    labels = shown.videos.labels
    counts = np.bincount(labels[labels >= 0], minlength=shown.classes)
    order = np.argsort(-counts, kind="stable")

    def named(chosen: Any) -> list[dict[str, Any]]:
        return [
            {"label": int(k), "name": _plain(shown.name(int(k))), "count": int(counts[k]),
             "share": 100 * counts[k] / max(counts.max(), 1)}
            for k in chosen
        ]  # fmt: skip

    few = len(counts) <= 2 * _LISTED
    return {
        "picture": figures.classes(counts),
        "empty": [_plain(shown.name(int(k))) for k in np.flatnonzero(counts == 0)],
        "largest": named(order if few else order[:_LISTED]),
        "smallest": [] if few else named(order[::-1][:_LISTED]),
        "median": float(np.median(counts)),
    }


def _measures(seen: Seen) -> dict[str, Any]:
    files = seen.readable
    if not files:
        return {"pictures": [], "table": [], "kinds": []}
    timed = [file for file in files if file.fps]
    columns: list[tuple[str, list[float]]] = [("frames", [file.frames for file in files])]
    if timed:
        columns.append(("seconds", [file.frames / file.fps for file in timed]))
        columns.append(("frames per second", [file.fps for file in timed]))
    columns.append(("ms to decode a clip", [1000 * file.seconds for file in files]))
    sides = [("width", [float(f.width) for f in files]), ("height", [float(f.height) for f in files])]
    shares = (0, 0.05, 0.5, 0.95, 1)
    table = [(title, *(f"{float(np.quantile(v, q)):,.4g}" for q in shares)) for title, v in [*columns, *sides]]
    kinds = Counter((f"{file.width} x {file.height}", file.codec or "images", file.reader) for file in files)
    return {
        "pictures": [
            ("Histograms of length, frame rate and decode time", figures.histograms(columns)),
            ("Sizes of the videos, width against height", figures.sizes([(f.width, f.height) for f in files])),
        ],
        "table": table,
        "kinds": [(*kind, count) for kind, count in kinds.most_common(10)],
    }
