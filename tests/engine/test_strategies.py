"""One recipe, any strategy: five steps on tiny models, the same whoever holds the weights, and checkpoints that cross.

A plain process with four micro-batches a step is what all others are held to; they are two processes with two each.
Differences are measured against the distance that the five steps moved the weights: |w - w_plain| / |w_plain - w_0|.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.strategy_run import KEPT, STEPS, make_task
from umt.engine import checkpoints

SCRIPT = Path(__file__).with_name("strategy_run.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
PLAIN, DDP, FSDP = ("ddp", 1), ("ddp", 2), ("fsdp", 2)
ZERO = [(f"zero{stage}", 2) for stage in range(4)]
WITH_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
HELD = [DDP, FSDP, *(ZERO if WITH_DEEPSPEED else [])]
TASKS = ["distill", "classify"]
needs_deepspeed = pytest.mark.skipif(not WITH_DEEPSPEED, reason="deepspeed is not installed")
Held = tuple[str, int]  # strategy, processes

# fp32: sums over micro-batches and processes in another order; 1e-6 was seen.
FP32 = 1e-5
# bf16, of the movement; what was seen is in docs/strategies.md. DDP and stage 0 differ as in fp32. FSDP changes the
# order in which the student's aligned blocks sum three bf16 gradients; the classifier has no such sum, only the
# rounding of the norm that clips, which now and then turns the last bit of a bf16 weight. Stages 1 to 3 have norms and
# biases in bf16 too.
BF16 = {
    ("ddp", "distill"): 1e-5, ("ddp", "classify"): 1e-5,
    ("fsdp", "distill"): 4e-2, ("fsdp", "classify"): 1e-3,
    ("zero0", "distill"): 1e-5, ("zero0", "classify"): 1e-5,
    ("zero1", "distill"): 6e-2, ("zero1", "classify"): 3e-2,
    ("zero2", "distill"): 6e-2, ("zero2", "classify"): 3e-2,
    ("zero3", "distill"): 1e-1, ("zero3", "classify"): 3e-2,
}  # fmt: skip
# fp16: where a sum turns the last bit of a half-precision weight or gradient, AdamW's division shows it; 2e-3 was seen.
FP16 = 1e-2


def tolerance(task: str, strategy: str, precision: str) -> float:
    return {"fp32": FP32, "fp16": FP16}.get(precision) or BF16[strategy, task]


def case(task: str, held: Held, precision: str, resume: Path | None = None, name: str = "") -> dict[str, str]:
    name = name or f"{task}-{held[0]}-{held[1]}-{precision}"
    return {"name": name, "task": task, "strategy": held[0], "precision": precision, "resume": str(resume or "")}


def run_cases(groups: list[tuple[int, list[dict[str, str]]]], folder: Path) -> None:
    plan = folder / f"plan-{len(list(folder.iterdir()))}.json"
    plan.write_text(json.dumps([{"size": size, "cases": cases} for size, cases in groups]))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(plan), str(folder)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    first = done.stderr.find("Traceback")  # the other process's, which misses its peer, comes later
    assert done.returncode == 0, done.stderr[first : first + 6000]


@dataclass(frozen=True)
class Outcome:
    """What a case left behind."""

    folder: Path
    size: int

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        return checkpoints.load(self.folder / checkpoints.LATEST)

    @property
    def steps(self) -> dict[int, dict[str, float]]:
        lines = map(json.loads, (self.folder / "steps.jsonl").read_text().splitlines())
        return {line["step"]: line for line in lines}

    @property
    def rows(self) -> dict[int, list[int]]:
        """Rows of each step in the order of the epoch, from all processes."""
        given = [json.loads((self.folder / f"rows-{rank}.json").read_text()) for rank in range(self.size)]
        accumulation = 4 // self.size
        result: dict[int, list[int]] = {}
        for micro in map(int, given[0]):
            result.setdefault(micro // accumulation, []).extend(
                row for rank in range(self.size) for row in given[rank][str(micro)]
            )
        return result


def outcome(folder: Path, task: str, held: Held, precision: str) -> Outcome:
    return Outcome(folder / case(task, held, precision)["name"], held[1])


def distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    assert one.keys() == two.keys()
    return float(torch.stack([(one[name].double() - two[name].double()).square().sum() for name in one]).sum().sqrt())


def difference(task: str, seen: Outcome, plain: Outcome, key: str = "model") -> float:
    """Distance of the weights, or of their average, to the plain run's, by how far that one moved them."""
    start = make_task(task).model.state_dict()
    wanted = plain.checkpoint[key]
    return distance(seen.checkpoint[key], wanted) / distance(wanted, start)


def assert_same(task: str, seen: Outcome, plain: Outcome, limit: float) -> None:
    """Losses and norms of the steps that `seen` took, weights, their average, optimiser state."""
    for step, line in seen.steps.items():
        for name in ("loss", "grad_norm"):
            assert line[name] == pytest.approx(plain.steps[step][name], rel=limit), (step, name)
    assert difference(task, seen, plain) < limit
    if "model_ema" in plain.checkpoint:
        assert difference(task, seen, plain, "model_ema") < limit
    ours, theirs = (found.checkpoint["optimizer"] for found in (seen, plain))
    assert ours["param_groups"] == theirs["param_groups"]
    for key in ("exp_avg", "exp_avg_sq"):
        moments = [{str(i): entry[key] for i, entry in state["state"].items()} for state in (ours, theirs)]
        nothing = {name: torch.zeros_like(value) for name, value in moments[1].items()}
        assert distance(*moments) / distance(moments[1], nothing) < limit, key
    assert {float(entry["step"]) for entry in ours["state"].values()} == {STEPS}


# ---- the quick comparison: plain, DDP and FSDP in fp32


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quick")
    alone = [case(task, PLAIN, "fp32") for task in TASKS]
    run_cases([(1, alone), (2, [case(task, held, "fp32") for held in (DDP, FSDP) for task in TASKS])], folder)
    return folder


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("held", [DDP, FSDP], ids=lambda held: held[0])
def test_two_processes_compute_what_a_plain_one_does_in_fp32(quick: Path, held: Held, task: str) -> None:
    assert_same(task, outcome(quick, task, held, "fp32"), outcome(quick, task, PLAIN, "fp32"), FP32)


def test_validations_with_other_numbers_of_batches_see_the_whole_model_and_its_average(quick: Path) -> None:
    lines = [
        json.loads((outcome(quick, "classify", held, "fp32").folder / "log.txt").read_text().splitlines()[-1])
        for held in (PLAIN, DDP, FSDP)
    ]
    for name in ("val_acc1", "val_ema_acc1"):
        assert lines[0][name] > 0
        assert [line[name] for line in lines] == pytest.approx([lines[0][name]] * 3, rel=1e-5)


# ---- everything


@pytest.fixture(scope="module")
def all_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all")
    settings = [(task, precision) for task in TASKS for precision in ("fp32", "bf16", "fp16")]
    alone = [case(task, PLAIN, precision) for task, precision in settings]
    run_cases(
        [
            (1, alone),
            (2, [case(t, held, p) for held in HELD for t, p in settings if p != "fp16" or held not in ZERO[1:]]),
        ],
        folder,
    )
    return folder


every_strategy = pytest.mark.parametrize(
    "held", [DDP, FSDP, *(pytest.param(held, marks=needs_deepspeed) for held in ZERO)], ids=lambda held: held[0]
)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("task", TASKS)
@every_strategy
def test_every_strategy_computes_what_a_plain_process_does(
    all_runs: Path, held: Held, task: str, precision: str
) -> None:
    if precision == "fp16" and held in ZERO[1:]:
        pytest.skip("DeepSpeed has no fp16 on a CPU")
    seen, plain = outcome(all_runs, task, held, precision), outcome(all_runs, task, PLAIN, precision)
    assert_same(task, seen, plain, tolerance(task, held[0], precision))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@every_strategy
def test_the_same_rows_are_drawn_whatever_the_strategy_and_number_of_processes(
    all_runs: Path, held: Held, task: str
) -> None:
    wanted = outcome(all_runs, task, PLAIN, "fp32").rows
    assert list(wanted) == list(range(STEPS))
    assert len({row for rows in wanted.values() for row in rows}) == STEPS * 8
    assert outcome(all_runs, task, held, "fp32").rows == wanted


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_strategy
def test_every_checkpoint_is_a_whole_model_file_in_fp32(all_runs: Path, held: Held, precision: str) -> None:
    content = outcome(all_runs, "classify", held, precision).checkpoint
    model = make_task("classify").model
    for key in ("model", "model_ema"):
        assert {value.dtype for value in content[key].values()} == {torch.float32}
        model.load_state_dict(content[key])


# ---- part of the model is frozen


@pytest.fixture(scope="module")
def frozen_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    run_cases(
        [
            (1, [case("frozen", PLAIN, "fp32")]),
            (2, [case("frozen", held, "fp32") for held in HELD]),
        ],
        folder,
    )
    return folder


@pytest.mark.slow
@every_strategy
def test_the_rest_trains_as_in_a_plain_process_where_blocks_are_frozen(frozen_runs: Path, held: Held) -> None:
    seen, plain = (outcome(frozen_runs, "frozen", one, "fp32") for one in (held, PLAIN))
    assert_same("frozen", seen, plain, FP32)


@pytest.mark.slow
@every_strategy
def test_frozen_blocks_stay_bit_equal(frozen_runs: Path, held: Held) -> None:
    content = outcome(frozen_runs, "frozen", held, "fp32").checkpoint
    start = make_task("frozen").model
    frozen = {name for name, parameter in start.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[1] for name in frozen if name.startswith("blocks.")} == {"0", "1"}
    for key in ("model", "model_ema"):
        same = {name for name, value in start.state_dict().items() if torch.equal(value, content[key][name])}
        assert {name for name in same if name in dict(start.named_parameters())} == frozen


# ---- checkpoints cross


def crossing(source: Held, target: Held) -> str:
    return f"{source[0]}-{source[1]}-to-{target[0]}-{target[1]}"


CROSSED = [(source, target) for source in [PLAIN, *HELD] for target in [PLAIN, *HELD]]
ALONE = [(source, (name, 1)) for source in (FSDP, ZERO[3]) for name in ("zero1", "zero3")] if WITH_DEEPSPEED else []


@pytest.fixture(scope="module")
def crossed(all_runs: Path) -> Path:
    """Every strategy's checkpoint after three steps, taken up by every strategy."""
    cases: dict[tuple[int, bool], list[dict[str, str]]] = {}
    for source, target in [*CROSSED, *ALONE]:
        after3 = outcome(all_runs, "classify", source, "fp32").folder / "after3.pth"
        # DeepSpeed leaves a process group behind, also around one process, which a plain one must not have.
        group = cases.setdefault((target[1], target[0].startswith("zero")), [])
        group.append(case("classify", target, "fp32", after3, crossing(source, target)))
    run_cases([(size, found) for (size, _), found in cases.items()], all_runs)
    return all_runs


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("source", "target"), [*CROSSED, *ALONE], ids=lambda held: f"{held[0]}x{held[1]}")
def test_any_strategy_takes_up_the_checkpoint_of_any_other(crossed: Path, source: Held, target: Held) -> None:
    seen = Outcome(crossed / crossing(source, target), target[1])
    plain = outcome(crossed, "classify", PLAIN, "fp32")
    assert list(seen.steps) == list(range(KEPT, STEPS))
    for step, line in seen.steps.items():
        assert [line[name] for name in ("lr", "min_lr", "weight_decay")] == [
            plain.steps[step][name] for name in ("lr", "min_lr", "weight_decay")
        ]
    assert seen.rows == {step: plain.rows[step] for step in range(KEPT, STEPS)}
    assert_same("classify", seen, plain, FP32)
