"""Token grids and returned layers as pure arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.errors import ConfigError
from umt.models.specs import default_position_grid, return_indices, token_grid


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
