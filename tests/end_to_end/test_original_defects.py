"""Defects of the original that no other test holds, and that docs/defects.md names a real test for each one."""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import re
import sys
import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import umt as package
from tests.end_to_end.conftest import Command, Data, with_flags
from tests.videos import picture, render
from umt.__main__ import main
from umt.data.lists.reading import read_list
from umt.data.loading.clips import TrainClips, Videos, ViewClips
from umt.data.loading.loaders import TrainLoader
from umt.data.sampling import training_sampler, validation_sampler
from umt.data.transforms.pipelines import EvalTransform, PretrainTransform
from umt.errors import VideoError
from umt.evaluation.scores import ViewScores
from umt.models import create_model
from umt.randomness import generator
from umt.run.command_line import parse
from umt.run.plan import plan
from umt.tasks.distill.task import Distill

ROOT = Path(__file__).parents[2]
DEFECTS = ROOT / "docs" / "defects.md"
KNOWN = 55  # that were found in the original


# ---- the page


def rows() -> dict[int, list[str]]:
    """Number of a defect -> the tests that its row names."""
    found = {}
    for line in DEFECTS.read_text(encoding="utf-8").splitlines():
        if number := re.match(r"\| (\d+) \|", line):
            assert line.count(" | ") == 3, f"row {number[1]} has not four columns"
            found[int(number[1])] = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line.rsplit(" | ", 1)[1])
    return found


def test_every_defect_has_a_row_and_a_test() -> None:
    named = rows()
    assert sorted(named) == list(range(1, KNOWN + 1))
    assert [number for number, tests in named.items() if not tests] == []


@functools.cache
def defined_in(file: str) -> frozenset[str]:
    source = (ROOT / file).read_text(encoding="utf-8") if (ROOT / file).is_file() else ""
    return frozenset(node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))


def test_every_test_that_the_page_names_exists() -> None:
    named = [(file, name) for tests in rows().values() for file, name in tests]
    assert [f"{file}::{name}" for file, name in named if name not in defined_in(file)] == []


# ---- pretraining


def test_the_default_flags_of_pretraining_fit_together() -> None:
    config = parse("pretrain", ["--data_path", "list.csv", "--output_dir", "out", "--clip_teacher_weights", "w.pth"],
                   files=False)  # fmt: skip
    with torch.device("meta"):
        teacher = create_model(config.teacher.clip_teacher, image_size=config.teacher.clip_input_resolution)
        student = create_model(
            config.model.model,
            image_size=config.model.input_size,
            num_frames=config.data.num_frames,
            tubelet_size=config.model.tubelet_size,
            teacher_width=teacher.output_dim,
        )
    Distill(student, teacher, mask_type=config.teacher.mask_type, mask_ratio=config.teacher.mask_ratio)


@pytest.mark.parametrize("videos", [10, 11, 12, 13])
def test_an_epoch_has_as_many_steps_as_its_schedule(videos: int, tmp_path: Path) -> None:
    """10 videos, 3 processes of 2: the original's sampler gave a second step that the schedule did not have."""
    (tmp_path / "list.csv").write_text("".join(f"v{i}.mp4 0\n" for i in range(videos)))
    config = parse("pretrain", ["--batch_size", "2", "--epochs", "2", "--warmup_epochs", "1"], files=False)
    clips = TrainClips(
        Videos(read_list(tmp_path / "list.csv"), "pyav"), training_sampler("pretrain_sparse", 8), PretrainTransform(64)
    )
    loaders = [TrainLoader(clips, batch_size=2, seed=0, rank=rank, world_size=3) for rank in range(3)]
    steps = plan(config, world_size=3, videos=videos).steps_per_epoch
    assert {loader.steps_per_epoch for loader in loaders} == {steps}
    assert steps is not None
    assert len({int(row) for loader in loaders for row in loader.order(0)[: steps * 6]}) == steps * 6


@pytest.mark.parametrize("rate", [1, 4, 16])
def test_the_sampling_rate_does_not_touch_sparse_pretraining(rate: int) -> None:
    at_rate = training_sampler("pretrain_sparse", 8, rate)(40, rng=generator(0))
    assert np.array_equal(at_rate, training_sampler("pretrain_sparse", 8)(40, rng=generator(0)))
    assert at_rate.max() < 40


# ---- data


def test_a_path_that_begins_with_s3_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "s3_videos").mkdir()
    render(tmp_path / "s3_videos" / "a.mp4", frames=9)
    (tmp_path / "list.csv").write_text("s3_videos/a.mp4 0\n")
    with Videos(read_list(tmp_path / "list.csv", prefix=str(tmp_path)), "pyav").open(0) as video:
        assert len(video) == 9


def write_frames(folder: Path, frames: int) -> None:
    folder.mkdir(parents=True)
    for i in range(frames):
        image = av.VideoFrame.from_ndarray(picture(i, 96, 72), format="rgb24")
        image.save(str(folder / f"img_{i + 1:05}.jpg"))


def test_an_incomplete_folder_of_frames_is_named_not_replaced(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip_a", 4)
    (tmp_path / "val.csv").write_text("clip_a 12 0\n")
    clips = ViewClips(
        Videos(read_list(tmp_path / "val.csv", prefix=str(tmp_path), frame_folders=True), "auto"),
        validation_sampler("ssv2", 8, frame_folders=True),
        EvalTransform(64, 64),
    )
    with pytest.raises(VideoError, match="clip_a"):
        clips.read(0, 0)


@pytest.mark.slow
def test_frame_folders_train_and_test_without_validation_and_with_one_crop(umt: Command, tmp_path: Path) -> None:
    for i in range(8):
        write_frames(tmp_path / f"clip_{i}", 10)
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("".join(f"clip_{i} 10 {i}\n" for i in range(8)))
    flags = with_flags(
        Data(tmp_path).finetune, data_set="SSV2", nb_classes=174, split=" ", use_decord=False, epochs=1,
        warmup_epochs=0, test_num_segment=4, test_num_crop=1, output_dir="out",
    )  # fmt: skip
    umt(*flags, "--disable_eval_during_finetuning", cwd=tmp_path)
    scores = ViewScores.load(tmp_path / "out" / "scores.npz")
    assert scores.logits.shape == (8, 4, 1, 174)
    assert scores.seen.all()


# ---- results


def test_names_of_videos_may_have_brackets_dots_and_spaces(tmp_path: Path) -> None:
    paths = ["a [1].mp4", "a [1].part.mp4", "b/a [1].mp4", "[] 0 0"]
    scores = ViewScores(rows=range(4), labels=[0, 1, 0, 1], paths=paths, clips=1, crops=1, classes=2, provenance={})
    for row in range(4):
        scores.add_video(row, np.full((1, 1, 2), row, np.float32))
    scores.save(tmp_path / "scores.npz")
    again = ViewScores.load(tmp_path / "scores.npz")
    assert list(again.paths) == paths
    assert again.logits[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


# ---- environment


def modules() -> list[str]:
    return [found.name for found in pkgutil.walk_packages(package.__path__, "umt.")]


def test_every_module_imports_with_what_is_installed_today() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=DeprecationWarning, module=r"umt\b")
        for name in modules():
            importlib.import_module(name)


def test_everything_lies_under_one_top_level_name() -> None:
    # A pattern with a star would also install a folder umt_something that lies beside it.
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found - {"tests"} == {"umt"}


@pytest.mark.parametrize(
    "words", [["finetune", "--enable_deepspeed"], ["test", "--output_dir", "nowhere"], ["replay", "nowhere.pth"], ["x"]]
)
def test_a_mistake_of_the_user_never_ends_with_code_0(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["umt", *words])
    assert main() == 2
