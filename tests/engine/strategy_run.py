"""Short real trainings of tiny models, each held by a strategy of choice: what the comparison of strategies runs.

`python strategy_run.py PLAN FOLDER`: PLAN is a JSON list of groups {"size": processes, "cases": [case, ...]}. The
processes of a group are forked from this one, which has only imported, and go through the cases together. A case:
{"name", "task": distill | classify | frozen, "strategy": ddp | fsdp | zero0 .. zero3, "precision", "resume": file or
""}.
It leaves in FOLDER/name: steps.jsonl, checkpoint-latest.pth after 5 steps, after3.pth after 3, rows-<rank>.json.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.fsdp
from torch import nn
from torch.optim import Optimizer

from umt import randomness
from umt.data.loading.batch import Failure
from umt.data.loading.clip_batch import ClipBatch, collate
from umt.data.loading.clips import Sample
from umt.data.loading.loaders import TrainLoader
from umt.engine import runtime
from umt.engine.logs import RunLog
from umt.engine.runtime import Runtime
from umt.engine.strategies.base import Strategy
from umt.engine.strategies.replicated import Replicated
from umt.engine.strategies.sharded import Sharded
from umt.engine.trainer import Trainer, TrainerOptions
from umt.models import create_model
from umt.models.vit.freezing import freeze_blocks
from umt.optim.build import create_optimizer
from umt.optim.param_groups import param_groups
from umt.run.deepspeed import deepspeed_json
from umt.tasks.base import Task, recipe_class
from umt.tasks.classify.task import Classify
from umt.tasks.distill.task import Distill

FRAMES, PIXELS, CLASSES = 2, 48, 3  # 3 classes: no two processes have the same share of the head
FROZEN = 2  # of 4 blocks
STEPS, KEPT, MICRO_BATCH, CLIPS_PER_STEP = 5, 3, 2, 8
CLIP_GRAD = {"distill": 0.5, "classify": 0.2, "frozen": 0.2}  # below every norm that is seen


class SyntheticClips:
    """64 rows whose pixels, label and mask noise are functions of (epoch, row)."""

    def __len__(self) -> int:
        return 64

    def fetch_ahead(self, rows: Sequence[int]) -> None:
        """Nothing is far away."""

    def collate(self, samples: list[Sample], failures: list[Failure]) -> ClipBatch:
        return collate(samples, failures)

    def read(self, epoch: int, row: int) -> tuple[list[Sample], list[Failure]]:
        rng = randomness.generator(0, epoch, row)
        label = row % CLASSES
        video = (rng.integers(0, 128, (FRAMES, PIXELS, PIXELS, 3)) + 40 * label).astype(np.uint8)
        noise = ((rng.integers(0, 1 << 23, (FRAMES, (PIXELS // 8) ** 2)) + 0.5) / (1 << 23)).astype(np.float32)
        return [Sample(video=video, label=label, row=row, path=f"{row}.mp4", seed=row, noise=noise)], []


class Data:
    """The real loader; writes down which rows it gave, and keeps the checkpoint of step `KEPT`."""

    def __init__(self, place: Runtime, folder: Path, accumulation: int) -> None:
        world = place.world
        self.loader = TrainLoader(
            SyntheticClips(),
            batch_size=MICRO_BATCH,
            rank=world.rank,
            world_size=world.size,
            accumulation=accumulation,
        )
        self.rows: dict[int, list[int]] = {}
        self.folder, self.rank, self.accumulation = folder, world.rank, accumulation

    def batches(self, epoch: int, start: int = 0) -> Iterator[ClipBatch]:
        for micro, batch in enumerate(self.loader.batches(epoch, start), start):
            if micro == KEPT * self.accumulation != start and self.rank == 0:
                shutil.copy(self.folder / "checkpoint-latest.pth", self.folder / "after3.pth")
            self.rows[micro] = batch.row.tolist()
            yield batch


def make_task(name: str) -> Task:
    """Mixup and drop path off; the first block recomputes its activations."""
    torch.manual_seed(0)
    if name in ("classify", "frozen"):
        model = create_model("vit_tiny_patch8_48", num_frames=FRAMES, num_classes=CLASSES, checkpoint_num=1)
        freeze_blocks(model, FROZEN if name == "frozen" else 0)
        return Classify(model)
    teacher = create_model("clip_tiny_patch8_48")
    return Distill(create_model("pretrain_umt_tiny_patch8_48", num_frames=FRAMES, checkpoint_num=1), teacher)


def hold(
    strategy: str, model: nn.Module, optimizer: Optimizer, place: Runtime, accumulation: int, clip: float
) -> Strategy:
    """`model` and `optimizer` held as `strategy` says."""
    if strategy == "ddp":
        return Replicated(model, optimizer, runtime=place, clip_grad=clip)
    if strategy == "fsdp":
        return Sharded(model, optimizer, runtime=place, clip_grad=clip)
    from umt.engine.strategies.deepspeed import DeepSpeed

    flags = {"batch_size": MICRO_BATCH, "clip_grad": clip, "enable_deepspeed": True, "zero_stage": int(strategy[-1])}
    recipe = recipe_class("finetune").from_values(flags)
    content = deepspeed_json(
        recipe.optim,
        recipe.parallel,
        precision=place.precision,
        world_size=place.world.size,
        accumulation=accumulation,
    )
    return DeepSpeed(model, optimizer, config=content, runtime=place)


def run(case: dict[str, str], folder: Path, place: Runtime) -> None:
    """One case on one process."""
    place = dataclasses.replace(place, precision=case["precision"])
    accumulation = CLIPS_PER_STEP // MICRO_BATCH // place.world.size
    task = make_task(case["task"])
    groups = param_groups(task.model, weight_decay=0.05, layer_decay=0.75)
    optimizer = create_optimizer(groups, lr=1e-3, betas=(0.9, 0.95))
    if place.is_main:
        folder.mkdir(parents=True)
    runtime.barrier()
    strategy = hold(case["strategy"], task.model, optimizer, place, accumulation, CLIP_GRAD[case["task"]])
    data = Data(place, folder, accumulation)
    fixed = [next(TrainLoader(SyntheticClips(), batch_size=4, seed=s).batches(9)) for s in range(2)]

    def validate() -> dict[str, float]:
        # The second batch is the main process's alone: an evaluation that communicates hangs here.
        scores = [task.evaluation_step(batch) for batch in fixed[: 2 if place.is_main else 1]]
        return {"acc1": float(torch.cat(scores).square().mean())}

    classifies = case["task"] != "distill"
    trainer = Trainer(
        task,
        strategy,
        data,
        options=TrainerOptions(
            epochs=1, steps_per_epoch=STEPS, accumulation=accumulation, output_dir=folder, save_every_steps=KEPT
        ),
        lr=[1e-3 * (1 - step / 10) for step in range(STEPS)],
        weight_decay=[0.05 + 0.01 * step for step in range(STEPS)],
        runtime=place,
        run_log=RunLog(folder, log_every=1, steps_file=True, main=place.is_main),
        validate=validate if classifies else None,
        ema=strategy.make_ema(0.9) if classifies else None,
    )
    if case["resume"]:
        trainer.resume(Path(case["resume"]))
    trainer.fit()
    (folder / f"rows-{place.world.rank}.json").write_text(json.dumps(data.rows))


def main() -> None:
    """See the module's docstring. The exit code is 1 when a process of any group failed."""
    groups, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    failed = False
    for group in groups:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("fork")
        ranks = [context.Process(target=work, args=(group, folder, rank, port)) for rank in range(group["size"])]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        failed |= any(process.exitcode for process in ranks)
    sys.exit(int(failed))


def work(group: dict[str, Any], folder: Path, rank: int, port: int) -> None:
    """All cases of a group on process `rank`."""
    size = {"RANK": str(rank), "WORLD_SIZE": str(group["size"])} if group["size"] > 1 else {}
    os.environ.update(size, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    place = runtime.start(device="cpu", precision="fp32", threads=1, timeout_minutes=1)
    logging.getLogger("umt").setLevel(logging.WARNING)
    for case in group["cases"]:
        run(case, folder / case["name"], place)
    runtime.stop()


if __name__ == "__main__":
    main()
