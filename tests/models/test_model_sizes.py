"""Token grids and returned layers as pure arithmetic."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.errors import ConfigError
from umt.models.specs import TokenNames, check_teacher_grid, default_position_grid, return_indices, token_grid


@given(
    tubelet=st.integers(1, 4),
    patch=st.integers(1, 32),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
)
def test_a_grid_counts_the_tiles(tubelet: int, patch: int, grid: tuple[int, int, int]) -> None:
    assert token_grid((grid[1] * patch, grid[2] * patch), patch, grid[0] * tubelet, tubelet) == grid


@given(depth=st.integers(1, 40), layers=st.integers(-2, 50), interval=st.floats(-2, 8))
def test_returned_layers_are_distinct_and_end_with_the_last_or_are_refused(
    depth: int, layers: int, interval: float
) -> None:
    try:
        indices = return_indices(depth, layers, interval)
    except ConfigError:
        return
    assert len(set(indices)) == layers
    assert list(indices) == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] == depth - 1


@pytest.mark.parametrize(("layers", "interval"), [(6, 1), (3, 2.5), (1, 7)])
def test_returned_layers_follow_the_original_s_formula(layers: int, interval: float) -> None:
    assert return_indices(12, layers, interval) == tuple(sorted(12 - int(i * interval) - 1 for i in range(layers)))


def test_the_table_of_patch_16_is_that_of_1568_tokens() -> None:
    assert default_position_grid(16) == (8, 14, 14)
    assert default_position_grid(14) == (8, 16, 16)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        (
            (225, 16, 8, 1),
            "--input_size (225) must be a multiple of 16, the patch of vit_b. Try --input_size 224 or 240.",
        ),
        ((224, 16, 9, 2), "--num_frames (9) must be a multiple of --tubelet_size (2). Try --num_frames 8."),
        ((0, 16, 8, 1), "--input_size (0) must be at least 1."),
    ],
)
def test_sizes_that_do_not_tile_are_told_by_their_flags(sizes: tuple[int, int, int, int], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        token_grid(*sizes, names=TokenNames.of_flags("vit_b"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"patch_size": 14},
            "--clip_input_resolution (224) gives clip_l14 16 x 16 tokens a frame, but --input_size (224) gives the "
            "student 14 x 14. Try --clip_input_resolution 196.",
        ),
        (
            {"resolution": 200},
            "--clip_input_resolution (200) must be a multiple of 16, the patch of clip_l14. "
            "Try --clip_input_resolution 192 or 208.",
        ),
        (
            {"tubelet_size": 2},
            "--tubelet_size (2) must be 1: the image teacher has tokens for every frame. Try --tubelet_size 1.",
        ),
    ],
)
def test_a_teacher_with_other_tokens_than_the_student_is_refused(changed: dict[str, int], sentence: str) -> None:
    sizes = {"input_size": 224, "tubelet_size": 1, "resolution": 224, "patch_size": 16}
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        check_teacher_grid((8, 14, 14), teacher="clip_l14", **{**sizes, **changed})
    check_teacher_grid((8, 14, 14), teacher="clip_l14", **sizes)
