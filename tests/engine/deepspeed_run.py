"""Steps of a tiny model under DDP and DeepSpeed, for tests/engine/test_deepspeed.py; run by torchrun or alone.

`python deepspeed_run.py FILE --cases ddp-fp32,zero1-fp32,...` leaves in FILE what the main process saw of each case.
Sizes are odd, so that no flat part ends where a parameter does.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from umt.engine import runtime
from umt.engine.ema import Ema
from umt.engine.runtime import Runtime
from umt.engine.strategies.base import Strategy
from umt.engine.strategies.deepspeed import DeepSpeed
from umt.engine.strategies.replicated import Replicated
from umt.optim.build import create_optimizer
from umt.run.command_line import parse
from umt.run.deepspeed import deepspeed_json

STEPS, KEPT, ACCUMULATION, CLIP = 5, 3, 2, 0.05
LR, BETAS, EPS = 0.02, (0.8, 0.9), 1e-6


class Tiny(nn.Module):
    """Two layers, a normalisation, frozen numbers (one used, which bf16 holds, one not) and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(7, 13), nn.LayerNorm(13), nn.GELU(), nn.Linear(13, 3))
        self.scale = nn.Parameter(torch.full((5,), 0.25), requires_grad=False)
        self.mark = nn.Parameter(torch.full((5,), 1 / 3), requires_grad=False)
        self.register_buffer("shift", torch.full((7,), 1 / 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x + self.shift) * self.scale.mean()


def hold(kind: str, place: Runtime) -> Strategy:
    """A new tiny model under `kind`: ddp or zero0 .. zero3."""
    model = Tiny().to(place.device)
    parameters = list(model.body.parameters())
    groups = [
        {"params": parameters[:3], "weight_decay": 0.1, "lr_scale": 0.5, "decays": True},
        {"params": parameters[3:], "weight_decay": 0.0, "lr_scale": 1.0, "decays": False},
    ]
    optimizer = create_optimizer(groups, lr=LR, betas=BETAS, eps=EPS)
    if kind == "ddp":
        return Replicated(model, optimizer, runtime=place, clip_grad=CLIP)
    words = f"--enable_deepspeed --zero_stage {kind[-1]} --batch_size 2 --clip_grad {CLIP}".split()
    recipe = parse("finetune", words, files=False)
    entries = deepspeed_json(
        recipe.optim,
        recipe.parallel,
        precision=place.precision,
        world_size=place.world.size,
        accumulation=ACCUMULATION,
    )
    return DeepSpeed(model, optimizer, config=entries, runtime=place)


def gradients(strategy: Strategy, place: Runtime, step: int, *, bad: bool = False) -> tuple[float, float]:
    """Micro-batches of `step` -> this rank's mean loss and the norm. `bad`: the last rank's loss is no number."""
    for group in strategy.optimizer.param_groups:
        group["lr"] = LR * group["lr_scale"] * (1 - step / (STEPS + 1))
    strategy.start_step()
    total = 0.0
    for micro in range(ACCUMULATION):
        # As many samples a step, and the same ones, whatever the number of processes.
        size = 4 // place.world.size
        generator = torch.Generator().manual_seed(100 * step + micro)
        x, y = torch.randn(4, 7, generator=generator), torch.randint(0, 3, (4,), generator=generator)
        mine = slice(place.world.rank * size, (place.world.rank + 1) * size)
        with strategy.micro_step(micro + 1 == ACCUMULATION):
            with place.autocast():
                scores = strategy.trained(x[mine].to(place.device)).float()
                loss = nn.functional.cross_entropy(scores, y[mine].to(place.device))
            if bad and place.world.rank == place.world.size - 1:
                loss = loss * float("nan")
            strategy.backward(loss / ACCUMULATION, last=micro + 1 == ACCUMULATION)
        total += loss.item() / ACCUMULATION
    return total, strategy.gradient_norm().item()


def steps(strategy: Strategy, place: Runtime, first: int, last: int, ema: Ema | None = None) -> list[list[float]]:
    """Steps [first, last) -> (loss, norm) of each, the loss averaged over ranks."""
    seen = []
    for step in range(first, last):
        loss, norm = gradients(strategy, place, step)
        strategy.update()
        if ema is not None:
            strategy.update_ema(ema)
        seen.append([runtime.reduce_mean(torch.tensor(loss)).item(), norm])
    return seen


def state_of(strategy: Strategy) -> dict[str, Any]:
    """Collective. A copy of what a checkpoint would hold."""
    state = strategy.state_dict()
    model = {name: value.detach().cpu().clone() for name, value in state["model"].items()}
    moments = {
        index: {key: value.detach().cpu().clone() for key, value in held.items()}
        for index, held in state["optimizer"]["state"].items()
    }
    groups = state["optimizer"]["param_groups"]
    return {"model": model, "optimizer": {"state": moments, "param_groups": groups}, "scaler": state["scaler"]}


def case(kind: str, place: Runtime, starts: dict[str, Any]) -> dict[str, Any]:
    """What the tests look at; `starts`: states after `KEPT` steps to go on from, by name."""
    strategy = hold(kind, place)
    with strategy.whole_model() as model:
        outset = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    ema = strategy.make_ema(0.9)
    seen = steps(strategy, place, 0, KEPT, ema)
    kept = state_of(strategy)
    # A gradient that is none leaves everything as it was, and the run goes on as if that step had not been.
    norms: list[Any] = [None] * place.world.size
    gathered = gradients(strategy, place, 77, bad=True)[1]
    if dist.is_initialized():
        dist.all_gather_object(norms, gathered)
    after_bad = state_of(strategy)
    seen += steps(strategy, place, KEPT, STEPS, ema)
    with strategy.whole_model() as model, torch.no_grad():
        scores = model(torch.ones(1, 7, device=place.device)).float().cpu()
    outcome = {
        "outset": outset,
        "seen": seen,
        "kept": kept,
        "bad_norms": norms,
        "after_bad": after_bad,
        "end": state_of(strategy),
        "ema": {name: value.detach().cpu().clone() for name, value in strategy.ema_state(ema).items()},
        "trained_parameters": strategy.trained_parameters(),
        "scores": scores,
        "resumed": {},
    }
    for name, start in starts.items():
        strategy.load_state_dict(copy.deepcopy(start), name)  # over a run that stands elsewhere, as a rollback does
        steps(strategy, place, KEPT, STEPS)
        outcome["resumed"][name] = state_of(strategy)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--starts", type=Path, help="what another run left, whose kept states are resumed too")
    arguments = parser.parse_args()
    starts = torch.load(arguments.starts) if arguments.starts else {}
    outcome: dict[str, Any] = {}
    place = runtime.start(device=arguments.device, precision="fp32", threads=1)
    for name in arguments.cases.split(","):
        kind, precision = name.split("-")
        here = Runtime(place.device, precision, place.world, 1, True)
        same = {start: done["kept"] for start, done in {**starts, **outcome}.items() if start.endswith(precision)}
        outcome[name] = case(kind, here, dict(runtime.broadcast_object(same)))
    if place.is_main:
        torch.save(outcome, arguments.file)
    runtime.stop()


if __name__ == "__main__":
    main()
