"""The fixed position tables, against the original's numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.layers.pos_embed import position_table, resample_table, sinusoid_table

FOLDER = Path(__file__).parents[1] / "golden" / "umt"
FACTS = json.loads((FOLDER / "pos_tables.json").read_text())
GRIDS = {
    "student_b16_8f224_sinusoid": (8, 14, 14),
    "student_b16_clip_pos_embed": (8, 14, 14),
    "cls_b16_8f224": (8, 14, 14),
    "vit_base_patch16_224_f16_meanpool": (16, 14, 14),
    "vit_base_patch16_384_f8_meanpool": (8, 24, 24),
}


def test_every_golden_table_is_covered() -> None:
    assert set(GRIDS) == set(FACTS)


@pytest.mark.parametrize("name", GRIDS)
def test_a_table_equals_the_original_s(name: str) -> None:
    facts = FACTS[name]
    table = position_table(facts["shape"][2], GRIDS[name], (8, 14, 14))
    assert list(table.shape) == facts["shape"]
    with np.load(FOLDER / "pos_tables.npz") as file:
        rows, expected = file[f"{name}/rows"], file[name]
    step = max(1, table.shape[2] // 48)
    np.testing.assert_allclose(table[0].numpy()[rows][:, ::step], expected, rtol=1e-5, atol=2e-6)
    sums = table[0].double().sum(1)
    np.testing.assert_allclose(sums[:8], facts["row_sum_first8"], rtol=1e-5)
    np.testing.assert_allclose(sums[-8:], facts["row_sum_last8"], rtol=1e-5)
    np.testing.assert_allclose(table.double().norm(), facts["l2"], rtol=1e-6)


def test_resampling_to_the_same_grid_is_the_identity() -> None:
    table = sinusoid_table(24, 10)
    assert resample_table(table, (2, 3, 4), (2, 3, 4)) is table


def test_resampling_time_leaves_space_alone() -> None:
    table = torch.arange(4.0).repeat(3)[None, :, None]  # the same four values in every frame
    assert torch.equal(resample_table(table, (3, 2, 2), (6, 2, 2)), torch.arange(4.0).repeat(6)[None, :, None])


@settings(max_examples=20, deadline=None)
@given(grid=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), width=st.integers(1, 9))
def test_any_rectangle_has_a_table(grid: tuple[int, int, int], width: int) -> None:
    table = position_table(width, grid, (4, 5, 5))
    assert table.shape == (1, grid[0] * grid[1] * grid[2], width)
    assert table.isfinite().all()
    assert table.abs().max() < 1.5


def test_a_table_is_made_where_parameters_are() -> None:
    with torch.device("meta"):
        assert position_table(8, (2, 2, 2), (1, 2, 2)).is_meta
