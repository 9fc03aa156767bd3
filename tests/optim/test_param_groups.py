"""Every parameter's group equals the original's, and what it did wrong is right."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from umt.errors import ConfigError
from umt.models import create_model
from umt.optim.param_groups import layer_of, param_groups

GOLDEN = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden" / "umt" / "param_groups.json.gz").read_bytes())
)


def build(key: str) -> nn.Module:
    name = key.split("/")[0]
    with torch.device("meta"):
        if name.startswith("pretrain"):
            return create_model(f"{name}_patch16_224", num_frames=8)
        return create_model(name.removesuffix("_f8"), num_frames=8, num_classes=400)


def tiny(**overrides: Any) -> nn.Module:
    with torch.device("meta"):
        return create_model("pretrain_umt_tiny_patch8_64", **overrides)


@pytest.mark.parametrize("key", GOLDEN)
def test_every_parameter_is_in_the_group_that_the_original_gives_it(key: str) -> None:
    record = GOLDEN[key]
    groups = param_groups(build(key), weight_decay=0.05, layer_decay=record["layer_decay"])
    ours = {name: (i, group["lr_scale"]) for i, group in enumerate(groups) for name in group["names"]}
    scales = [group["lr_scale"] for group in record["groups"]]
    assert ours == {name: (i, scales[i]) for name, i in record["names"].items()}
    assert [g["weight_decay"] for g in groups] == [g["weight_decay"] for g in record["groups"]]


def test_a_learnable_position_table_of_the_student_does_not_decay() -> None:
    groups = param_groups(tiny(use_learnable_pos_emb=True), weight_decay=0.05)
    held = [group["weight_decay"] for group in groups if "encoder.pos_embed" in group["names"]]
    assert held == [0.0]


def test_no_weight_decay_keeps_the_groups() -> None:
    model = tiny()
    with_decay, without = (param_groups(model, weight_decay=decay) for decay in (0.05, 0.0))
    assert [group["names"] for group in without] == [group["names"] for group in with_decay]
    assert [group["lr_scale"] for group in without] == [1.0, 1.0]


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_parameters_of_one_rate_and_decay_are_one_group(layer_decay: float) -> None:
    groups = param_groups(tiny(), weight_decay=0.05, layer_decay=layer_decay)
    kinds = [(group["lr_scale"], group["weight_decay"]) for group in groups]
    assert len(kinds) == len(set(kinds))
    assert len(kinds) == 2 or layer_decay < 1


def test_a_frozen_parameter_is_in_no_group() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert [g["names"] for g in param_groups(model, weight_decay=0.1)] == [["1.weight"], ["1.bias"]]


def test_a_wholly_frozen_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="Linear has no parameter to train"):
        param_groups(nn.Linear(2, 2).requires_grad_(False), weight_decay=0.1)


def test_a_layer_decay_outside_its_range_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"--layer_decay \(1\.5\) must be above 0 and at most 1"):
        param_groups(nn.Linear(2, 2), weight_decay=0.1, layer_decay=1.5)


def test_a_layer_decay_needs_blocks() -> None:
    with pytest.raises(ConfigError, match=r"Linear has no num_layers\. Use --layer_decay 1"):
        param_groups(nn.Linear(2, 2), weight_decay=0.1, layer_decay=0.75)


def test_layers_count_from_the_embedding_to_the_head() -> None:
    names = [
        "pos_embed",
        "patch_embed.proj.bias",
        "blocks.0.norm1.weight",
        "encoder.blocks.11.mlp.fc1.bias",
        "head.bias",
    ]
    assert [layer_of(name, depth=12) for name in names] == [0, 0, 1, 12, 13]
