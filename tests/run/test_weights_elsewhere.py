"""Weights that a run starts from may lie elsewhere; a name that is nowhere is refused before torch is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from umt.errors import AnnotationError, CheckpointError, ConfigError
from umt.run.checks import check_files
from umt.tasks.base import recipe_class
from umt.tasks.classify.recipe import ClassifyRecipe

ELSEWHERE = [
    "https://host/weights.pth",
    "hf://OpenGVLab/UMT/b16_ptk710_f8_res224.pth",
    "b16_ptk710_ftk710_f8_res224",
    "b16_ptk710_f8_res224.pth#sha256=" + "0" * 64,
]


def with_weights(finetune: str, folder: Path) -> ClassifyRecipe:
    """A run on lists that are complete, so that the weights are what is left to complain of."""
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("a.mp4 0\nb.mp4 1\n")
    made = recipe_class("finetune").from_values(
        {"finetune": finetune, "data_path": str(folder), "output_dir": str(folder / "out")}
    )
    assert isinstance(made, ClassifyRecipe)
    return made


@pytest.mark.parametrize("source", ELSEWHERE)
def test_weights_that_lie_elsewhere_pass_the_checks(tmp_path: Path, source: str) -> None:
    check_files(with_weights(source, tmp_path))


def test_a_published_name_of_another_size_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"of another size than --model \(vit_base_patch16_224\). Try --model vit_large"
    ):
        check_files(with_weights("l16_ptk710_f8_res224", tmp_path))


def test_a_local_file_with_a_hash_passes(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"")
    check_files(with_weights(f"{tmp_path / 'w.pth'}#sha256={'0' * 64}", tmp_path))


def test_a_name_near_a_published_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"--finetune \(b16_ptk710_f8_res225\) does not exist\. The nearest published"
    ):
        check_files(with_weights("b16_ptk710_f8_res225", tmp_path))


def test_a_path_that_is_not_there_says_where_scripts_take_it_from(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"does not exist\. Check the path; the scripts of exp/ take it from MODEL_PATH"
    ):
        check_files(with_weights(str(tmp_path / "none.pth"), tmp_path))


def test_lists_come_before_weights(tmp_path: Path) -> None:
    config = with_weights("https://host/weights.pth", tmp_path)
    (tmp_path / "val.csv").unlink()
    with pytest.raises(AnnotationError):
        check_files(config)
