"""The table of published checkpoints is the original's, and its entries exist."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from umt.data import catalog, labels
from umt.models.files.published import PUBLISHED, find, names_of, nearest
from umt.models.specs import SPECS

GOLDEN = Path(__file__).parents[2] / "golden" / "published" / "umt_model_zoo.csv"
with GOLDEN.open(newline="") as _file:
    ROWS = {row["checkpoint"]: row for row in csv.DictReader(_file)}


def test_every_published_link_is_a_row_with_its_accuracy() -> None:
    assert {row.url: row.top1 for row in PUBLISHED.values()} == {
        url: float(row["top1"]) if row["top1"] else None for url, row in ROWS.items()
    }


@pytest.mark.parametrize("row", PUBLISHED.values(), ids=list(PUBLISHED))
def test_a_row_is_of_a_model_and_a_data_set_that_exist(row) -> None:
    assert SPECS[row.model].kind == ("classifier" if row.num_classes else "student")
    assert SPECS[row.model].image_size == row.input_size
    if row.labels:
        assert len(names_of(row.labels)) == row.num_classes
        assert names_of(row.labels) == labels.names_of(row.labels)
        settings = {"k400": "Kinetics_sparse", "ssv2": "SSV2", "mitv1": "mitv1_sparse"}
        spec = catalog.get(settings.get(row.data_set, "Kinetics_sparse"))
        assert row.sampling == spec.sampling
        assert spec.class_names(row.num_classes) == names_of(row.labels)


def test_a_row_is_found_by_its_stem_or_its_file() -> None:
    assert find("b16_ptk710_f8_res224") is find("b16_ptk710_f8_res224.pth")
    assert find("b16_ptk710_f8_res225") is None
    assert nearest("b16_ptk710_f8_res225")[0] == "b16_ptk710_f8_res224"
