"""The number that a test is expected to reach: of a row of a zoo, given as such, or of another run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from umt.errors import ConfigError
from umt.models.files import published
from umt.spelling import did_you_mean
from umt.tools.verify.report import headline
from umt.tools.verify.zoo import Row, published_rows, read_zoo


def expected_row(words: Any) -> Row:
    """What --expect, --row and --zoo ask for, else the row with the name of the checkpoint. Raises ConfigError."""
    place = Path(words.model.split("#")[0].rstrip("/"))
    stem = place.name.removesuffix(".pth").removesuffix(".safetensors")
    if words.expect is not None:
        if words.row or words.zoo:
            raise ConfigError("--expect and --row or --zoo both say what the number should be. Leave out one of them.")
        of_run = stem.startswith("checkpoint") and place.parent.name
        return _given(words.expect, f"{place.parent.name}-{stem}" if of_run else stem, words.official_videos)
    rows = read_zoo(words.zoo) if words.zoo else published_rows()
    name = words.row or stem
    if name not in rows:
        hint = did_you_mean(name, list(rows), f"Its rows are {', '.join(list(rows)[:4])}, ...")
        if published.find(name) is not None and not words.zoo:
            hint = "These weights are only pretrained, so they have no accuracy. Give finetuned ones."
        raise ConfigError(
            f"{words.zoo or 'MODEL_ZOO.md'} has no number for '{name}'. {hint} Name a row with --row, or give a number "
            "with --expect."
        )
    return replace(rows[name], videos=words.official_videos or rows[name].videos)


def _given(value: str, name: str, official: int | None) -> Row:
    """--expect."""
    try:
        top1 = float(value)
    except ValueError:
        return _of_test(Path(value), name, official)
    if not 0 <= top1 <= 100:
        raise ConfigError(f"--expect ({value}) must be a top-1 in percent. Try --expect 87.4.")
    return Row(name, top1, "--expect", videos=official)


def _of_test(file: Path, name: str, official: int | None) -> Row:
    file = file / "test.json" if file.is_dir() else file
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        flags = {"test_num_segment": str(int(content["clips"])), "test_num_crop": str(int(content["crops"]))}
        return Row(name, headline(content)[1], str(file), flags, official or int(content["videos"]))
    except FileNotFoundError:
        raise ConfigError(f"--expect ({file}) is neither a number nor a file. Try --expect 87.4.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--expect ({file}) is not the test.json of a test: {error!r}.") from None
