"""`umt extract` within one process: shards, going on, recipes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.tiny import checkpoint, tiny
from tests.videos import render
from umt.data.loading.clips import Videos
from umt.data.loading.loaders import Workers
from umt.errors import ConfigError, OutputError
from umt.inference import feature_files, feature_folder, feature_pass
from umt.inference.extraction import Extractor
from umt.inference.feature_files import FeaturesError
from umt.inference.parts import ClipParts, Sliding
from umt.inference.sources import read_rows
from umt.tools.extract.command import main, parse
from umt.tools.extract.recipe import recipe_of

ROWS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos, number 2 of which is broken, and their list."""
    made = tmp_path_factory.mktemp("extract")
    for row in range(ROWS):
        render(made / f"{row}.mp4", frames=20 + 9 * row, label=row)
    (made / "2.mp4").write_bytes(b"no video")
    (made / "list.csv").write_text("".join(f"{row}.mp4,{row % 2}\n" for row in range(ROWS)))
    return made


def extracted(
    folder: Path, output: Path, form: str, only: slice = slice(None), *, size: int = 2, most: int = 2
) -> list[feature_folder.Unread]:
    videos = read_rows(str(folder / "list.csv"))
    model = tiny()
    clips = ClipParts(Videos(videos), Sliding(8, 4), model.views.transform(1), most=most)
    todo = [group for group in feature_folder.groups(output, form, len(videos), size, 4) if group.missing()][only]
    return feature_pass.extract(
        [Extractor(model, ["1", "pre_logits"], "mean")], clips, [[group] for group in todo],
        dtype=torch.float32, workers=Workers(), progress=lambda done: None,
    )  # fmt: skip


def digests(output: Path) -> dict[str, str]:
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("form", feature_files.FORMATS)
def test_features_are_those_of_each_video_alone(folder: Path, tmp_path: Path, form: str) -> None:
    (unread,) = extracted(folder, tmp_path, form)
    assert (unread.row, unread.path) == (2, "2.mp4")
    found = [row for path in feature_files.files(tmp_path, form) for row in feature_files.read(path)]
    assert [(row.row, row.path, row.label) for row in found] == [(r, f"{r}.mp4", r % 2) for r in (0, 1, 3, 4)]
    model = tiny()
    for row in found:
        clips = Sliding(8, 4)(20 + 9 * row.row)
        assert np.array_equal(row.frames, clips)
        assert len(row.layers["1"]) == len(clips) > 2
        with Videos(read_rows(str(folder / "list.csv"))).open(row.row) as video:
            views = torch.from_numpy(model.views.transform(1)(video.frames(clips[3]))[0])[None]
        assert torch.allclose(
            row.layers["pre_logits"][3], Extractor(model, ["pre_logits"])(views)["pre_logits"][0], atol=1e-6
        )


@pytest.mark.parametrize("form", feature_files.FORMATS)
def test_what_is_done_in_two_goes_is_the_same_to_the_bit(folder: Path, tmp_path: Path, form: str) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    extracted(folder, once, form)
    extracted(folder, twice, form, slice(1, 2))
    assert len(digests(twice)) == 1
    extracted(folder, twice, form)
    if form == "npz":
        next(twice.glob("*/*4.npz")).unlink()
        next(twice.glob("*/*1.npz")).unlink()
        extracted(folder, twice, form)
    assert digests(once) == digests(twice)


def test_a_mended_video_joins_its_shard(folder: Path, tmp_path: Path) -> None:
    extracted(folder, tmp_path / "a", "safetensors")
    broken = (folder / "2.mp4").read_bytes()
    try:
        render(folder / "2.mp4", frames=38)
        assert not extracted(folder, tmp_path / "a", "safetensors")
        extracted(folder, tmp_path / "b", "safetensors")
    finally:
        (folder / "2.mp4").write_bytes(broken)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert not any(group.missing() for group in feature_folder.groups(tmp_path / "a", "safetensors", ROWS, 2, 4))


def test_a_video_of_which_several_parts_cannot_be_read_fails_once(tmp_path: Path) -> None:
    for row in range(2):
        render(tmp_path / f"{row}.mp4", frames=120)
    content = bytearray((tmp_path / "0.mp4").read_bytes())
    start = content.index(b"mdat")
    size = int.from_bytes(content[start - 4 : start], "big") - 4
    content[start + size // 3 : start + size] = bytes([255]) * (size - size // 3)
    (tmp_path / "0.mp4").write_bytes(content)
    (tmp_path / "list.csv").write_text("0.mp4,0\n1.mp4,1\n")
    (unread,) = extracted(tmp_path, tmp_path / "out", "npz")
    assert unread.row == 0
    assert [path.stem for path in feature_files.files(tmp_path / "out", "npz")] == ["000000001"]


def test_numbers_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():
        model.model.fc_norm.weight.mul_(1e6)  # type: ignore[operator, union-attr]
    videos = read_rows(str(folder / "list.csv"))
    with pytest.raises(FeaturesError, match=r"0\.mp4 \(row 0\): .* too large for fp16. Take --dtype fp32"):
        feature_pass.extract(
            [Extractor(model, ["pre_logits"])], ClipParts(Videos(videos), Sliding(8, 4), model.views.transform(1)),
            [feature_folder.groups(tmp_path, "npz", 1, 1, 4)], dtype=torch.float16, workers=Workers(),
            progress=lambda done: None,
        )  # fmt: skip


def test_another_recipe_in_the_same_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    weights = str(checkpoint(tmp_path))
    output = tmp_path / "features"

    def made(*more: str, layers: tuple[str, ...] = ("pre_logits",)) -> dict[str, object]:
        words = parse([str(folder / "list.csv"), "--checkpoint", weights, "--output", str(output), *more])
        videos = read_rows(words.list)
        return recipe_of(words, Extractor(tiny(), list(layers), words.pool), videos, clips=2, crops=1, threads=1)

    feature_folder.settle(output, made())
    feature_folder.settle(output, made())
    with pytest.raises(ConfigError, match=r"another recipe: dtype is \"fp16\" there and \"fp32\" here"):
        feature_folder.settle(output, made("--dtype", "fp32"))
    with pytest.raises(ConfigError, match=r"frames\.rule is \"sparse\" there and \"sliding\" here"):
        feature_folder.settle(output, made("--clip_stride", "8"))
    with pytest.raises(ConfigError, match=r"layers is \[\"pre_logits\"\] there"):
        feature_folder.settle(output, made(layers=("-1",)))
    there = json.loads((output / "recipe.json").read_text())
    assert there["description"]["arguments"]["num_classes"] == 5
    assert there["rows"]["count"] == ROWS


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"is not empty and holds no recipe\.json"):
        feature_folder.settle(tmp_path, {})


def test_an_output_that_cannot_be_made_is_a_sentence() -> None:
    with pytest.raises(OutputError, match=r"--output \(/proc/features\) cannot be written: .*Give another place"):
        feature_folder.settle(Path("/proc/features"), {})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--pool", "max"], r"--pool \(max\) must be one of mean, spatial, none, first"),
        (["--clips", "2", "--clip_stride", "8"], "Leave one of them out"),
        (["--format", "hdf5"], "must be one of npz, parquet, safetensors"),
        (["--threads", "0"], r"--threads \(0\) must be at least 1"),
        (["--num_workers", "-1"], r"--num_workers \(-1\) must be at least 0"),
        (["--processes", "0"], r"--processes \(0\) must be at least 1"),
    ],
)
def test_a_wrong_command_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(["list.csv", "--checkpoint", "x.pth", "--output", "y", *words])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "cuda:99"], r"--device \(cuda:99\)"),
        (["--precision", "int8"], r"--precision \(int8\) must be one of"),
    ],
)
def test_what_every_process_would_say_is_said_before_they_start(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        main(["list.csv", "--checkpoint", "x.pth", "--output", "y", "--processes", "2", *words])
