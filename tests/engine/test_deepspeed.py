"""DeepSpeed's ZeRO 0 to 3 against DDP: the same numbers, clipping, non-finite steps, and each resumes any other.

Two gloo processes go through all cases of deepspeed_run.py once; then one process, without a launcher, resumes theirs.
Tolerances, on weights of the order of 1 after 5 steps of AdamW at a rate of 0.02: in fp32, and in bf16 at stage 0,
where weights are fp32 under autocast as with DDP, 1e-6: sums over ranks and micro-batches round in another order. In
bf16 at stages 1 to 3, biases and norms are bf16 in the forward pass as well, so 5e-3, a quarter of a step's rate; bf16
and fp32 of DDP itself differ by 5e-4 here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine import deepspeed_run
from umt.engine import runtime
from umt.engine.runtime import Runtime
from umt.errors import install

pytest.importorskip("deepspeed", reason=f"DeepSpeed is not installed: {install('deepspeed')}")

SCRIPT = Path(deepspeed_run.__file__)
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
STAGES = ["zero0", "zero1", "zero2", "zero3"]
PRECISIONS = ["fp32", "bf16"]
NAMES = [f"{kind}-{precision}" for precision in PRECISIONS for kind in ("ddp", *STAGES)]
ZERO = [name for name in NAMES if not name.startswith("ddp")]


def tolerance(*names: str) -> float:
    rounded = [name for name in names if name.endswith("bf16") and name[:5] in ("zero1", "zero2", "zero3")]
    return 5e-3 if rounded else 1e-6


def launch(file: Path, *arguments: str, start: list[str] | None = None, cases: list[str] = NAMES) -> dict[str, Any]:
    command = [sys.executable, *(start or []), str(SCRIPT), str(file), "--cases", ",".join(cases), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deepspeed")


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, Any]:
    return launch(folder / "two.pt", start=TORCHRUN)


@pytest.fixture(scope="module")
def one(two: dict[str, Any], folder: Path) -> dict[str, Any]:
    return launch(folder / "one.pt", "--starts", str(folder / "two.pt"))


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], atol: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO)
def test_losses_norms_weights_and_moments_are_those_of_ddp(two: dict[str, Any], name: str) -> None:
    ours, theirs, atol = two[name], two[f"ddp-{name[-4:]}"], tolerance(name)
    torch.testing.assert_close(torch.tensor(ours["seen"]), torch.tensor(theirs["seen"]), rtol=0, atol=2 * atol)
    assert all(norm > deepspeed_run.CLIP for _, norm in theirs["seen"])  # so every step was clipped
    assert_close(ours["end"]["model"], theirs["end"]["model"], atol)
    for index, moments in theirs["end"]["optimizer"]["state"].items():
        assert_close(ours["end"]["optimizer"]["state"][index], moments, atol)
    assert ours["end"]["optimizer"]["param_groups"] == theirs["end"]["optimizer"]["param_groups"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one_with_the_same_samples(two: dict[str, Any], one: dict[str, Any], name: str) -> None:
    # In bf16 a product over other rows rounds otherwise already under DDP.
    atol = 1e-6 if name.endswith("fp32") else 5e-3
    assert_close(one[name]["end"]["model"], two[name]["end"]["model"], atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO)
def test_training_starts_from_the_exact_weights_not_from_rounded_ones(two: dict[str, Any], name: str) -> None:
    assert_close(two[name]["outset"], deepspeed_run.Tiny().state_dict(), 0)
    assert two[name]["trained_parameters"] == two["ddp-fp32"]["trained_parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO)
def test_the_moving_average_follows_the_fp32_weights(two: dict[str, Any], name: str) -> None:
    assert_close(two[name]["ema"], two[f"ddp-{name[-4:]}"]["ema"], tolerance(name))
    assert all(value.dtype == torch.float32 for value in two[name]["ema"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO)
def test_evaluation_sees_the_whole_fp32_weights(two: dict[str, Any], name: str) -> None:
    model = deepspeed_run.Tiny()
    model.load_state_dict(two[name]["end"]["model"])
    torch.testing.assert_close(two[name]["scores"], model(torch.ones(1, 7)).detach(), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_bad_gradient_of_one_rank_reaches_all_and_moves_nothing(two: dict[str, Any], name: str) -> None:
    assert torch.tensor(two[name]["bad_norms"]).isnan().tolist() == [True, True]
    before, after = two[name]["kept"], two[name]["after_bad"]
    assert_close(before["model"], after["model"], 0)
    for index, moments in before["optimizer"]["state"].items():
        assert_close(after["optimizer"]["state"][index], moments, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_any_resumes_what_any_other_saved(two: dict[str, Any], one: dict[str, Any], name: str) -> None:
    # In two processes the cases before it, among them DDP; in one process all that two processes saved.
    resumed = [(start, two[name]["end"], state) for start, state in two[name]["resumed"].items()]
    resumed += [(start, one[name]["end"], state) for start, state in one[name]["resumed"].items()]
    precision = name[-4:]
    assert {start for start, _, _ in resumed} == {other for other in NAMES if other.endswith(precision)}
    for start, whole, state in resumed:
        atol = 1e-6 if precision == "fp32" else max(tolerance(start, name), 5e-3)
        assert_close(state["model"], whole["model"], atol)
        assert state["optimizer"]["state"][0]["step"] == deepspeed_run.STEPS


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stage", STAGES)
def test_fp16_on_a_gpu_equals_plain_fp16(tmp_path: Path, stage: str) -> None:
    seen = launch(tmp_path / "gpu.pt", "--device", "cuda", cases=["ddp-fp16", f"{stage}-fp16"])
    ours, theirs = seen[f"{stage}-fp16"], seen["ddp-fp16"]
    assert_close(ours["end"]["model"], theirs["end"]["model"], 1e-6 if stage == "zero0" else 5e-3)
    assert ours["end"]["scaler"]["scale"] == theirs["end"]["scaler"]["scale"] == 2.0**16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stage", STAGES)
def test_an_fp16_overflow_lowers_the_loss_scale_and_moves_nothing(stage: str) -> None:
    place = Runtime(torch.device("cuda", 0), "fp16")
    try:
        strategy = deepspeed_run.hold(stage, place)
        deepspeed_run.steps(strategy, place, 0, 1)
        before, scale = deepspeed_run.state_of(strategy), strategy.loss_scale()
        deepspeed_run.gradients(strategy, place, 1, bad=True)
        strategy.discard()
        assert scale is not None
        assert strategy.loss_scale() == scale / 2
        assert_close(deepspeed_run.state_of(strategy)["model"], before["model"], 0)
    finally:
        runtime.stop()
