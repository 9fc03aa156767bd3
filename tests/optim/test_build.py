"""Optimisers by name, and scheduled values reaching every group."""

from typing import Any

import pytest
import torch
from torch import nn

from umt.errors import ConfigError
from umt.optim.build import apply_schedule, create_optimizer
from umt.optim.param_groups import param_groups


def groups(weight_decay: float = 0.05) -> list[dict[str, Any]]:
    return param_groups(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), weight_decay=weight_decay)


def stepped(optimizer: torch.optim.Optimizer) -> bool:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in parameters]
    for _ in range(2):  # lookahead moves its slow weights later, its fast ones at once
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer.step()
    return all(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


@pytest.mark.parametrize("name", ["adamw", "adam", "nadam", "radam", "sgd", "momentum", "nesterov", "lamb", "lion"])
def test_an_optimizer_of_each_name_moves_every_parameter(name: str) -> None:
    eps = None if name == "lion" else 1e-8
    assert stepped(create_optimizer(groups(), name=name, lr=0.1, eps=eps))


def test_the_rate_of_a_group_is_the_scheduled_one_times_its_scale() -> None:
    scaled = groups()
    scaled[0]["lr_scale"] = 0.25
    optimizer = create_optimizer(scaled, lr=1.0)
    apply_schedule(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.2]


def test_a_new_optimizer_already_has_the_scaled_rates() -> None:
    scaled = groups()
    scaled[0]["lr_scale"] = 0.25
    assert [group["lr"] for group in create_optimizer(scaled, lr=1.0).param_groups] == [0.25, 1.0]


def test_a_scheduled_weight_decay_reaches_the_decaying_groups_only() -> None:
    optimizer = create_optimizer(groups(), lr=1.0)
    apply_schedule(optimizer, 1.0, 0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def test_a_weight_decay_can_rise_from_zero() -> None:
    optimizer = create_optimizer(groups(weight_decay=0.0), lr=1.0)
    apply_schedule(optimizer, 1.0, 0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_betas_eps_and_momentum_arrive() -> None:
    adamw = create_optimizer(groups(), lr=1.0, betas=[0.9, 0.95], eps=1e-6)
    sgd = create_optimizer(groups(), name="sgd", lr=1.0, momentum=0.8)
    assert all((g["betas"], g["eps"]) == ((0.9, 0.95), 1e-6) for g in adamw.param_groups)
    assert all((g["momentum"], g["nesterov"]) == (0.8, True) for g in sgd.param_groups)


def test_optimizer_state_survives_a_weights_only_file(tmp_path: Any) -> None:
    optimizer = create_optimizer(groups(), lr=1.0, betas=[0.9, 0.95])
    assert stepped(optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    fresh = create_optimizer(groups(), lr=1.0)
    fresh.load_state_dict(torch.load(tmp_path / "o.pt", weights_only=True))
    assert [g["betas"] for g in fresh.param_groups] == [(0.9, 0.95)] * 2


def test_an_unknown_optimizer_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--opt \(adamww\) is not known here\. Did you mean adamw or"):
        create_optimizer(groups(), name="adamww", lr=1.0)


def test_betas_out_of_range_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"--opt_betas \(0\.9 1\.5\) must be two numbers"):
        create_optimizer(groups(), lr=1.0, betas=[0.9, 1.5])
