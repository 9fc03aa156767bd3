"""Frozen blocks: without gradient, without dropout, bit-equal after a step; and layer decay around them."""

from __future__ import annotations

import pytest
import torch

from umt.errors import ConfigError
from umt.models import VisionTransformer, create_model
from umt.models.vit.freezing import freeze_blocks
from umt.optim.build import create_optimizer
from umt.optim.param_groups import param_groups

DEPTH = 4


def model(frozen: int, **options: object) -> VisionTransformer:
    torch.manual_seed(0)
    made = create_model("vit_tiny_patch8_48", num_frames=2, num_classes=3, init_scale=1.0, **options)
    assert isinstance(made, VisionTransformer)
    freeze_blocks(made, frozen)
    return made


def trained(made: VisionTransformer) -> set[str]:
    return {name for name, parameter in made.named_parameters() if parameter.requires_grad}


def test_nothing_is_frozen_by_default() -> None:
    made = model(0)
    assert trained(made) == {name for name, _ in made.named_parameters()}


@pytest.mark.parametrize("frozen", [1, 3])
def test_the_first_blocks_and_the_embedding_are_frozen(frozen: int) -> None:
    names = trained(model(frozen, use_learnable_pos_emb=True))
    assert not any(name.startswith(("patch_embed", "pos_embed")) for name in names)
    assert {int(name.split(".")[1]) for name in names if name.startswith("blocks.")} == set(range(frozen, DEPTH))
    assert "fc_norm.weight" in names


def test_all_blocks_frozen_leave_the_head_alone() -> None:
    assert trained(model(DEPTH)) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("checkpointed", [0, DEPTH])
def test_a_step_leaves_what_is_frozen_bit_equal_and_moves_the_rest(checkpointed: int) -> None:
    made = model(2, checkpoint_num=checkpointed)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    optimizer = create_optimizer(param_groups(made, weight_decay=0.05, layer_decay=0.7), lr=1e-2)
    made.train()(torch.randn(2, 3, 2, 48, 48)).square().sum().backward()
    optimizer.step()
    same = {name for name, value in made.named_parameters() if torch.equal(value, before[name])}
    assert same == {name for name, _ in made.named_parameters()} - trained(made)


def test_frozen_blocks_give_in_training_what_they_give_in_evaluation() -> None:
    made = model(DEPTH, drop_path_rate=0.5, drop_rate=0.3, attn_drop_rate=0.3)
    clip = torch.randn(2, 3, 2, 48, 48)
    assert torch.equal(made.train().forward_features(clip), made.eval().forward_features(clip))


def test_layer_decay_keeps_its_scales_around_frozen_blocks() -> None:
    scales = {group["name"]: group["lr_scale"] for group in param_groups(model(2), weight_decay=0.05, layer_decay=0.5)}
    assert {int(name.split("_")[1]) for name in scales} == {3, 4, 5}
    assert scales["layer_3_decay"] == 0.25


def test_more_blocks_than_there_are_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"--freeze_blocks \(5\) must lie in 0..4"):
        model(5)
