"""A file that a later version wrote is refused in a sentence that names it, its format and the remedy."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import umt
from tests.inference.tiny import checkpoint
from umt.data.storage import shards
from umt.data.storage.shards import Place, Shard, read_index, write_index
from umt.engine import checkpoints, replay
from umt.errors import UserError
from umt.formats import CHECKPOINT, Format
from umt.inference import feature_folder, features
from umt.models.files import description
from umt.models.files.description import Description
from umt.tools.data.check import cache
from umt.tools.data.transcode import manifest
from umt.tools.data.transcode.encode import Settings
from umt.tools.data.transcode.manifest import Manifest

Reader = Callable[[Path], object]
INDEX = write_index([Shard("a.tar", 10240, "00")], [Place("a.mp4", 0, 512, 2000, "00" * 32)])


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    checkpoints.save(content, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def write_shard_index(path: Path, content: Mapping[str, Any]) -> None:
    head, _, rows = INDEX.decode().partition("\n")
    path.write_text(json.dumps({**json.loads(head), **content}) + "\n" + rows, encoding="utf-8")


def read_description(path: Path) -> Description:
    return Description.from_json(json.loads(path.read_text(encoding="utf-8")), str(path))


# Its format, the file's name, how a file is written, and all ways to read it.
KINDS: list[tuple[Format, str, Callable[[Path, Mapping[str, Any]], None], list[Reader]]] = [
    (CHECKPOINT, "checkpoint-latest.pth", write_tensors, [checkpoints.load]),
    (replay.FORMAT, "nonfinite-0-rank0.pth", write_tensors, [replay.load]),
    (description.FORMAT, "config.json", write_json, [read_description]),
    (features.FORMAT, "recipe.json", write_json, [lambda path: features.recipe(path.parent),
                                                  lambda path: feature_folder.settle(path.parent, {})]),
    (shards.FORMAT, "shards.idx", write_shard_index, [lambda path: read_index(path.read_bytes(), str(path))]),
    (manifest.FORMAT, "transcoded.jsonl", write_json, [lambda path: Manifest(path.parent, Settings())]),
]  # fmt: skip


@pytest.mark.parametrize(("form", "name", "write", "readers"), KINDS, ids=[kind[0].what for kind in KINDS])
def test_a_later_format_is_refused_by_name(
    form: Format, name: str, write: Callable[[Path, Mapping[str, Any]], None], readers: list[Reader], tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path, {form.key: form.number + 2, "settings": {}})
    for read in readers:
        with pytest.raises(form.error) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path} holds format {form.number + 2} of {form.what}; this umt reads up to {form.number}. "
            "Update umt-video."
        )


@pytest.mark.parametrize("number", ["2", None, [1], 1.5])
def test_a_format_that_is_no_whole_number_is_refused(number: object) -> None:
    with pytest.raises(UserError, match=r"w\.pth holds format .* of a training checkpoint; this umt reads up to 1"):
        CHECKPOINT.check({"format": number}, "w.pth")


def test_the_weights_of_a_later_checkpoint_are_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "format": 2, "conditions": {}}, path)
    with pytest.raises(UserError, match=r"checkpoint-best\.pth holds format 2 of a training checkpoint"):
        umt.load(path)


def test_another_programs_checkpoint_may_call_its_own_number_a_format(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    torch.save({**torch.load(path, weights_only=True), "format": 2}, path)
    assert umt.load(path, device="cpu").num_classes == 5


@pytest.fixture
def seen() -> tuple[cache.Stamp, str]:
    return cache.Stamp("a.mp4", 3, 4), "00ff"


def test_a_cache_of_a_later_version_is_left_alone_and_said(
    tmp_path: Path, seen: tuple[cache.Stamp, str], caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(tmp_path / "check.sqlite") as base:
        base.execute("PRAGMA user_version = 2")
    with caplog.at_level(logging.WARNING):
        opened = cache.Cache(tmp_path, "v")
    assert "check.sqlite holds format 2 of a cache of checks; this umt reads up to 1. Update umt-video)" in caplog.text
    opened.keep(*seen)
    opened.close()
    assert sqlite3.connect(tmp_path / "check.sqlite").execute("SELECT * FROM sqlite_master").fetchall() == []


def test_a_cache_without_a_number_is_read_and_gets_one(tmp_path: Path, seen: tuple[cache.Stamp, str]) -> None:
    first = cache.Cache(tmp_path, "v")
    first.keep(*seen)
    first.close()
    with sqlite3.connect(tmp_path / "check.sqlite") as base:
        base.execute("PRAGMA user_version = 0")
    again = cache.Cache(tmp_path, "v")
    assert again.hash(seen[0]) == seen[1]
    again.close()
    assert sqlite3.connect(tmp_path / "check.sqlite").execute("PRAGMA user_version").fetchone() == (1,)


def test_the_record_of_a_transcoding_carries_its_format(tmp_path: Path) -> None:
    Manifest(tmp_path / "out", Settings()).begin()
    assert json.loads((tmp_path / "out" / manifest.NAME).read_text())["format"] == 1


def test_features_of_something_else_are_not_read_as_a_recipe(tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", {"format": 1})
    with pytest.raises(features.FeaturesError, match=r"recipe\.json is no recipe of umt extract, which has umt_feat"):
        features.recipe(tmp_path)
