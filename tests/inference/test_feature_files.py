"""Files of features come back as they were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from umt.errors import ConfigError
from umt.inference import feature_files, features
from umt.inference.feature_files import FeaturesError, Row


def rows(dtype: torch.dtype) -> list[Row]:
    noise = torch.Generator().manual_seed(0)
    return [
        Row(
            row=row,
            path=f"a/{row} ü.mp4",
            label=row - 1,
            frames=np.arange(8 * views, dtype=np.int32).reshape(views, 8),
            layers={
                "-1": torch.randn(views, 3, 5, generator=noise).to(dtype),
                "blocks.0.mlp": torch.randn(views, 7, generator=noise).to(dtype),
            },
        )
        for row, views in ((2, 1), (5, 4))
    ]


def written(folder: Path, form: str, dtype: str) -> list[Row]:
    made = rows(feature_files.DTYPES[dtype])
    if form == "npz":
        for row in made:
            feature_files.write(feature_files.file_of(folder, form, row.row, 1), [row])
    else:
        feature_files.write(feature_files.file_of(folder, form, 0, 6), made)
    about = {"umt_features": 1, "layers": ["-1", "blocks.0.mlp"], "format": form, "dtype": dtype}
    (folder / features.RECIPE).write_text(json.dumps(about))
    return made


@pytest.mark.parametrize(
    ("form", "dtype"),
    [("npz", "fp16"), ("npz", "fp32"), ("parquet", "fp16"), ("parquet", "fp32"), ("safetensors", "bf16")],
)
def test_features_come_back_to_the_bit(tmp_path: Path, form: str, dtype: str) -> None:
    made = written(tmp_path, form, dtype)
    for layer, named in (("-1", "-1"), (None, "blocks.0.mlp")):
        back = list(features.read(tmp_path, layer))
        assert [(row, path) for row, path, _ in back] == [(one.row, one.path) for one in made]
        for (_, _, array), one in zip(back, made, strict=True):
            assert array.dtype == {"fp16": np.float16}.get(dtype, np.float32)
            assert np.array_equal(array, one.layers[named].float().numpy())
    assert features.labels(tmp_path) == {2: 1, 5: 4}
    file = feature_files.files(tmp_path, form)[0]
    assert np.array_equal(feature_files.read(file)[0].frames, made[0].frames)


@pytest.mark.parametrize("form", feature_files.FORMATS)
def test_a_file_has_the_same_bytes_each_time(tmp_path: Path, form: str) -> None:
    written(tmp_path / "a", form, "fp32")
    written(tmp_path / "b", form, "fp32")
    for one, other in zip(
        feature_files.files(tmp_path / "a", form), feature_files.files(tmp_path / "b", form), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("form", feature_files.FORMATS)
def test_a_damaged_file_is_named(tmp_path: Path, form: str) -> None:
    written(tmp_path, form, "fp32")
    file = feature_files.files(tmp_path, form)[-1]
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(FeaturesError, match=rf"{file.name} cannot be read as features .* Delete it"):
        list(features.read(tmp_path))


def test_a_layer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "npz", "fp16")
    with pytest.raises(FeaturesError, match=r"has no layer 7\. It has -1, blocks\.0\.mlp"):
        list(features.read(tmp_path, "7"))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeaturesError, match="no folder that umt extract has written"):
        features.labels(tmp_path)


def test_a_form_without_bf16_is_refused() -> None:
    with pytest.raises(ConfigError, match="--format npz has no bf16"):
        feature_files.check("npz", "bf16")
