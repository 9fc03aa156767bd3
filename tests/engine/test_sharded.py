"""FSDP2: what each of two processes holds, and how they agree. That it trains like a plain process: test_strategies."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.engine.sharded_run import make_task
from tests.engine.test_strategies import ENVIRONMENT
from umt.engine.runtime import Runtime
from umt.engine.strategies.loss_scale import LossScale
from umt.engine.strategies.replicated import Replicated
from umt.engine.strategies.sharded import Sharded
from umt.errors import ConfigError
from umt.run.strategies import build_strategy
from umt.tasks.base import recipe_class

SCRIPT = Path(__file__).with_name("sharded_run.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    """By rank: what each check gave."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_weights_gradients_and_moments_are_halved(seen: list[dict[str, Any]]) -> None:
    # Not exactly: of a head of three rows, one process has two.
    for rank in seen:
        assert rank["shares"] == pytest.approx([0.5] * 4, abs=1e-3)
    assert [sum(kind) for kind in zip(*(rank["shares"] for rank in seen), strict=True)] == pytest.approx([1] * 4)


@pytest.mark.slow
def test_all_start_from_the_main_process_s_weights(seen: list[dict[str, Any]]) -> None:
    for rank in seen:
        made, started = rank["starting_weights"]
        assert started == pytest.approx(made, rel=1e-6)


@pytest.mark.slow
def test_the_whole_copy_is_plain_and_gone_after_use(seen: list[dict[str, Any]]) -> None:
    assert [rank["copy_after_use"] for rank in seen] == [[True, True]] * 2


@pytest.mark.slow
def test_what_autocast_would_cast_is_gathered_in_bf16_and_the_rest_in_fp32(seen: list[dict[str, Any]]) -> None:
    types = seen[0]["gathered_types"]
    assert types["Linear"] == ["torch.bfloat16"]
    assert types["LayerNorm"] == types["Attention"] == ["torch.float32"]  # Attention itself has the biases of q and v


@pytest.mark.slow
def test_no_block_s_weights_are_kept_from_the_forward_to_the_backward_pass(seen: list[dict[str, Any]]) -> None:
    assert [rank["kept_for_backward"] for rank in seen] == [0, 0]


@pytest.mark.slow
def test_a_loss_of_one_process_that_is_no_number_moves_no_weight_of_any(seen: list[dict[str, Any]]) -> None:
    for rank in seen:
        assert rank["bad_gradient"] == {"updated": False, "bad_loss": True, "moved": False}


@pytest.mark.slow
def test_an_overflow_of_one_process_halves_the_loss_scale_of_all(seen: list[dict[str, Any]]) -> None:
    for rank in seen:
        assert rank["overflow"] == {"overflow": True, "updated": False, "scale": 2**15}


@pytest.mark.slow
def test_the_norm_is_that_of_the_unscaled_gradient_under_fp16(seen: list[dict[str, Any]]) -> None:
    for rank in seen:
        assert rank["fp16_step"]["updated"]
        assert rank["fp16_step"]["ratio"] == pytest.approx(1, rel=1e-2)  # fp16 has eleven bits


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_refused_by_name(seen: list[dict[str, Any]]) -> None:
    for rank in seen:
        assert (
            "other.pth is of another architecture: head.weight is 4 x 64 there and 3 x 64 here"
            in (rank["foreign_checkpoint"])
        )


@pytest.mark.slow
def test_an_optimiser_that_needs_whole_weights_is_refused_in_a_sentence(seen: list[dict[str, Any]]) -> None:
    for rank in seen:
        assert rank["unfit_optimizer"].startswith("--opt: Adafactor cannot work on weights in parts")
        assert rank["unfit_optimizer"].endswith("Use --opt adamw, or leave --fsdp out.")


@pytest.mark.slow
def test_the_replay_file_of_a_bad_step_has_whole_weights(seen: list[dict[str, Any]], folder: Path) -> None:
    assert [rank["replay_file"] for rank in seen] == [["nonfinite-0-rank1.pth"]] * 2
    content = torch.load(folder / "poisoned" / "nonfinite-0-rank1.pth", weights_only=True)
    make_task("classify").model.load_state_dict(content["model"])


# ---- one process


def test_one_process_with_fsdp_runs_as_without_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    config = recipe_class("finetune").from_values({"fsdp": True})
    model = nn.Linear(2, 2)
    with caplog.at_level(logging.WARNING):
        strategy = build_strategy(config, model, torch.optim.AdamW(model.parameters()), Runtime())
    assert isinstance(strategy, Replicated)
    assert "--fsdp shares nothing out in a single process" in caplog.text


def test_sharding_without_processes_is_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="there is one only"):
        Sharded(model, torch.optim.AdamW(model.parameters()), runtime=Runtime())


# ---- the loss scale


def test_the_loss_scale_goes_as_torch_s_does() -> None:
    scaler, ours = torch.amp.GradScaler("cpu"), LossScale(enabled=True)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for step in range(4100):
        overflow = step in (3, 4, 2050)
        weight.grad = None
        (scaler.scale(weight.sum()) * (float("inf") if overflow else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        ours.overflowed() if overflow else ours.succeeded()
        if step in (2, 3, 4, 2003, 2004, 2005, 2050, 4050, 4051):
            assert ours.state_dict() == scaler.state_dict(), step
    assert ours.value == 2.0**15  # three halvings, two doublings


def test_the_loss_scale_of_a_grad_scaler_is_taken_over() -> None:
    scaler, ours = torch.amp.GradScaler("cpu", init_scale=512.0), LossScale(enabled=True)
    scaler.scale(torch.ones(1))  # makes the scale
    ours.load_state_dict(scaler.state_dict())
    assert ours.value == 512
    assert ours.state_dict() == scaler.state_dict()


def test_without_fp16_there_is_no_loss_scale() -> None:
    ours = LossScale(enabled=False)
    ours.load_state_dict({"scale": 4.0, "_growth_tracker": 1})  # of a run in fp16
    assert ours.state_dict() == {}
    assert ours(torch.ones(())) == 1
