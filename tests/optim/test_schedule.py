"""Schedules: equal to the published ones, step for step, and a sentence where none is possible."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.errors import ConfigError
from umt.optim.schedule import (
    CosineSchedule,
    clips_per_step,
    lr_schedule,
    scaled_lr,
    steps_per_epoch,
    warmup_length,
    weight_decay_schedule,
)
from umt.tasks.distill.flags import PretrainOptimConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "umt"
RECORD = json.loads((GOLDEN / "schedules.json").read_text())
VALUES = np.load(GOLDEN / "schedules.npz")


def golden_schedule(args: dict[str, Any]) -> CosineSchedule:
    return lr_schedule(
        lr=args["base_value"],
        min_lr=args["final_value"],
        warmup_lr=args.get("start_warmup_value", 0.0),
        epochs=args["epochs"],
        per_epoch=args["niter_per_ep"],
        warmup_epochs=args.get("warmup_epochs", 0),
        warmup_steps=args.get("warmup_steps", -1),
    )


@pytest.mark.parametrize("setting", RECORD["settings"], ids=lambda s: s["name"])
def test_every_step_equals_the_original_to_the_last_bit(setting: dict[str, Any]) -> None:
    schedule = golden_schedule(setting["args"])
    np.testing.assert_array_equal(schedule.values(), VALUES[setting["name"]])


def test_the_last_step_is_one_cosine_step_short_of_the_minimum() -> None:
    schedule = CosineSchedule(1.0, 0.1, total_steps=10)
    assert schedule(9) == 0.1 + 0.45 * (1 + math.cos(math.pi * 9 / 10)) > 0.1


def test_a_pretraining_warmup_starts_at_zero_as_in_the_published_runs() -> None:
    setting = next(s for s in RECORD["settings"] if s["name"] == "pretrain_b16_scaled")
    assert PretrainOptimConfig().warmup_lr == VALUES[setting["name"]][0] == 0.0


def test_a_pretraining_warmup_lr_that_is_given_is_used() -> None:
    schedule = lr_schedule(lr=1e-3, min_lr=0, warmup_lr=1e-6, epochs=4, per_epoch=5, warmup_epochs=2)
    assert schedule(0) == 1e-6


def test_a_weight_decay_without_an_end_is_constant() -> None:
    schedule = weight_decay_schedule(weight_decay=0.05, weight_decay_end=None, epochs=3, per_epoch=4)
    assert set(schedule.values()) == {0.05}


def test_a_weight_decay_may_rise_to_its_end() -> None:
    args = next(s for s in RECORD["settings"] if s["name"] == "wd_increasing")["args"]
    schedule = weight_decay_schedule(
        weight_decay=args["base_value"],
        weight_decay_end=args["final_value"],
        epochs=args["epochs"],
        per_epoch=args["niter_per_ep"],
    )
    np.testing.assert_array_equal(schedule.values(), VALUES["wd_increasing"])


def test_a_warmup_in_steps_works_without_one_in_epochs() -> None:
    args = RECORD["upstream_raises"][0]["args"]
    schedule = golden_schedule(args)
    assert [schedule(0), schedule(4), schedule(5)] == [0.0, 1.0, 1.0]


def test_a_warmup_longer_than_the_run_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"--warmup_epochs \(4\) must not exceed --epochs \(2\).*--warmup_epochs 1"):
        golden_schedule(RECORD["upstream_raises"][1]["args"])


def test_warmup_steps_beyond_the_run_are_a_sentence() -> None:
    with pytest.raises(
        ConfigError, match=r"--warmup_steps \(21\) must not exceed the run \(2 epochs x 10 steps = 20\)"
    ):
        warmup_length(epochs=2, per_epoch=10, warmup_steps=21)


def test_a_step_outside_the_run_has_no_value() -> None:
    schedule = CosineSchedule(1.0, 0.0, total_steps=5)
    for step in (-1, 5):
        with pytest.raises(IndexError, match=r"outside 0\.\.4"):
            schedule(step)


@given(
    base=st.floats(1e-6, 1),
    final=st.floats(0, 1e-6),
    start=st.floats(0, 1e-6),
    total=st.integers(1, 300),
    share=st.floats(0, 1),
)
def test_any_run_and_warmup_stay_between_the_ends(
    base: float, final: float, start: float, total: int, share: float
) -> None:
    schedule = CosineSchedule(base, final, total, warmup_steps=int(total * share), start=start)
    low, high = min(final, start), base
    assert all(low * (1 - 1e-12) <= value <= high * (1 + 1e-12) for value in schedule.values())


@given(videos=st.integers(1, 10_000), batch=st.integers(1, 64), world=st.integers(1, 64), accumulate=st.integers(1, 8))
def test_an_epoch_has_the_whole_steps_of_the_list_and_never_none(
    videos: int, batch: int, world: int, accumulate: int
) -> None:
    total = clips_per_step(batch, world, accumulate)
    if videos < total:
        with pytest.raises(ConfigError, match=f"the list has {videos}"):
            steps_per_epoch(videos, batch, world, accumulate)
    else:
        assert steps_per_epoch(videos, batch, world, accumulate) == videos // batch // world // accumulate


@pytest.mark.parametrize("example", RECORD["lr_scaling"]["examples"])
def test_the_rate_scales_with_the_clips_of_a_step(example: dict[str, Any]) -> None:
    total = clips_per_step(example["batch_size"], example["world_size"], example["update_freq"])
    assert scaled_lr(example["lr"], total, example["num_sample"]) == pytest.approx(example["scaled"], rel=1e-15)


def test_schedules_need_no_torch() -> None:
    code = "import sys, umt.optim.schedule; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
