"""Published numbers as programs need them: how a row is tested, its accuracy, the number of videos. No torch.

The rows are those of MODEL_ZOO.md; a user's own are in a file of that form, or in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umt.data import catalog
from umt.errors import ConfigError
from umt.models.files import published

# Videos of the official validation lists, which are what published tables test on. Kinetics-400 19,906, Kinetics-600
# 29,793 and Kinetics-700 34,125 (2020 edition; FiftyOne's dataset zoo), Kinetics-710 66,803 and Something-Something V2
# 24,777 (lists of VideoMAE V2, docs/DATASET.md), Moments in Time V1 33,900 (https://arxiv.org/abs/1801.03150).
OFFICIAL_VIDEOS = {"k400": 19_906, "k600": 29_793, "k700": 34_125, "k710": 66_803, "ssv2": 24_777, "mitv1": 33_900}
_DATA_SETS = {"k400": "Kinetics_sparse", "k600": "Kinetics_sparse", "k700": "Kinetics_sparse",
              "k710": "Kinetics_sparse", "ssv2": "SSV2", "mitv1": "mitv1_sparse"}  # fmt: skip

# Rows about which the published table contradicts itself: how they are tested here, and why (notes of MODEL_ZOO.md).
_DECIDED = {
    "b16_ptk710_ftk710_ftk400_ftmitv1_f8_res384": "published as UMT-L/16 at 384 px; the weights are those of UMT-B/16",
    "l16_ptk710_ftk710_ftk400_ftmitv1_f8_res224": "published as 16x3x4; the weights take 8 frames: 8x3x4",
    "l16_ptk710_ftk710_ftk400_ftmitv1_f8_res384": "published as 16x3x4; the weights take 8 frames: 8x3x4; the "
    "original's script tested 6 clips",
    "b16_ptk710_ftk710_ftssv2_f8_res224": "published as 8x3x4; the original ran 2 clips x 3 crops: 8x3x2",
    "l16_ptk710_ftk710_ftssv2_f8_res224": "published as 8x3x4; the original ran 2 clips x 3 crops: 8x3x2",
    **dict.fromkeys(
        (f"l16_ptk710_ftk710_ft{data_set}_f16_res224" for data_set in ("k400", "k600", "k700")),
        "published as 16x3x4, and so tested here; the original's script ran 4 clips x 1 crop",
    ),
}


@dataclass(frozen=True)
class Row:
    """A number. `flags`: those of `umt test` with which it was measured; `videos`: of the list, None if unknown."""

    name: str
    top1: float
    source: str
    flags: dict[str, str] = field(default_factory=dict)
    videos: int | None = None
    decided: str = ""


def published_rows() -> dict[str, Row]:
    """The rows of MODEL_ZOO.md that have a number, by the stem of their weights."""
    return {name: _row(row) for name, row in published.PUBLISHED.items() if row.top1 is not None}


def _row(row: published.Published) -> Row:
    data_set = _DATA_SETS[row.data_set]
    flags = {
        "model": row.model,
        "num_frames": row.num_frames,
        "tubelet_size": 1,
        "input_size": row.input_size,
        "short_side_size": row.input_size,
        "data_set": data_set,
        "nb_classes": row.num_classes,
        "split": catalog.get(data_set).separator,
        "test_num_segment": row.test_clips,
        "test_num_crop": row.test_crops,
    }
    return Row(
        name=row.name,
        top1=float(row.top1 or 0),
        source="MODEL_ZOO.md",
        flags={flag: str(value) for flag, value in flags.items()},
        videos=OFFICIAL_VIDEOS[row.data_set],
        decided=_DECIDED.get(row.name, ""),
    )


def read_zoo(path: str | Path) -> dict[str, Row]:
    """Rows of a user's zoo, by name. Raises ConfigError for a file without any.

    Markdown in the form of MODEL_ZOO.md: tables with the columns Weights (a link, whose file's stem is the name) and
    Top-1, and optionally Name, Views (frames x crops x clips), Flags (`--flag value ...` in backquotes) and Videos.
    JSON: a list of objects with name, top1, and optionally videos and flags.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        entries = list(_of_json(json.loads(text)) if file.suffix == ".json" else _of_markdown(text))
    except OSError as error:
        raise ConfigError(f"--zoo ({file}) cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"--zoo ({file}) cannot be read as rows of a zoo: {error!r}. See docs/verify.md.") from None
    known, rows = published_rows(), {}
    for entry in entries:
        name, published_row = entry["name"], known.get(entry["name"], Row("", 0.0, ""))
        if name in rows:
            raise ConfigError(f"--zoo ({file}) has two rows of {name}. Remove one of them.")
        rows[name] = Row(
            name=name,
            top1=float(entry["top1"]),
            source=file.name,
            flags={**published_row.flags, **{flag: str(value) for flag, value in entry["flags"].items()}},
            videos=published_row.videos if entry["videos"] is None else entry["videos"],
        )
    if not rows:
        raise ConfigError(f"--zoo ({file}) holds no row with weights and a top-1. See docs/verify.md for the form.")
    return rows


def _of_json(content: Any) -> Iterator[dict[str, Any]]:
    for entry in content["rows"] if isinstance(content, Mapping) else content:
        videos = entry.get("videos")
        yield {
            "name": str(entry["name"]),
            "top1": float(entry["top1"]),
            "videos": None if videos is None else int(videos),
            "flags": {str(flag).removeprefix("--"): value for flag, value in entry.get("flags", {}).items()},
        }


def _of_markdown(text: str) -> Iterator[dict[str, Any]]:
    header: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [re.sub(r"( \[\d+\])+$", "", cell.strip()) for cell in line.strip().strip("|").split("|")]
        if not header:
            header = cells
            continue
        row = dict(zip(header, cells, strict=False))
        link = re.search(r"\]\(([^)]+)\)", row.get("Weights", ""))
        if link is None or not row.get("Top-1"):
            continue
        flags = dict(re.findall(r"--(\w+) ([^\s`]+)", row.get("Flags", "")))
        if row.get("Views"):
            frames, crops, clips = row["Views"].split("x")
            flags = {"num_frames": frames, "test_num_crop": crops, "test_num_segment": clips, **flags}
        videos = row.get("Videos", "").replace(",", "").replace(" ", "")
        yield {
            "name": row.get("Name") or Path(link[1]).stem,
            "top1": float(row["Top-1"]),
            "videos": int(videos) if videos else None,
            "flags": flags,
        }
