"""A run of a net with batch normalisation and a class memory on several gloo processes, for test_buffers.py.

`python tests/engine/buffers_run.py FOLDER [--validate FILE] [--die_at N] [--save_at N] [--by SIGNAL]`
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.engine.tiny_run import CLASSES, VIDEO, clips
from umt.data.loading.clip_batch import ClipBatch
from umt.engine import checkpoints, runtime
from umt.engine.ema import Ema
from umt.engine.evaluate import evaluate
from umt.engine.preemption import Preemption
from umt.engine.runtime import Runtime
from umt.engine.strategies.replicated import Replicated
from umt.engine.trainer import Trainer, TrainerOptions
from umt.engine.watch import Watch
from umt.errors import EXIT_PREEMPTED, PreemptedError
from umt.evaluation.validation import Validation, ValidationScores
from umt.tasks.base import StepOutput, Task

STEPS, EPOCHS, BATCH, VALIDATED = 4, 2, 4, 13


class Net(nn.Module):
    """Two layers with batch normalisation between them, and a count of the samples of each class."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        size = VIDEO[0] * VIDEO[1] * VIDEO[2] * VIDEO[3]
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(size, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, CLASSES)
        )
        self.register_buffer("seen", torch.zeros(CLASSES))

    def forward(self, video: Tensor) -> Tensor:
        logits: Tensor = self.layers(video)
        return logits


class NetTask(Task):
    """Classifies tiny clips, and counts those of each class in the model."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Net()
        self.counts: list[list[float]] = []
        self.net = self.model

    def training_step(self, batch: ClipBatch, seed: int) -> StepOutput:
        self.net.seen += torch.bincount(batch.label, minlength=CLASSES)
        return StepOutput(nn.functional.cross_entropy(self.model(batch.video.float() / 255), batch.label))

    def evaluation_step(self, batch: ClipBatch) -> Tensor:
        scores: Tensor = self.model(batch.video.float() / 255)
        return scores

    def summed_buffers(self) -> list[str]:
        return ["seen"]

    def end_step(self) -> None:
        self.counts.append(self.net.seen.tolist())

    def batch_from(self, state: Mapping[str, Any]) -> ClipBatch:
        return ClipBatch(**state)


class Data:
    """An endless list; before micro-batch `die_at` of the run the process sends itself a signal."""

    def __init__(self, place: Runtime, die_at: int, by: str) -> None:
        self.place, self.die_at, self.by = place, die_at, signal.Signals[by]

    def batches(self, epoch: int, start: int = 0) -> Iterator[ClipBatch]:
        world, number = self.place.world, start
        while True:
            if epoch * STEPS + number == self.die_at:
                os.kill(os.getpid(), self.by)
            first = (number * world.size + world.rank) * BATCH
            yield clips(epoch, list(range(first, first + BATCH)))
            number += 1


def validate(task: Task, place: Runtime) -> dict[str, float]:
    rows = range(place.world.rank, VALIDATED, place.world.size)
    results = ValidationScores(VALIDATED)
    outcome = evaluate(task, lambda finished: (clips(1000, [row]) for row in rows), results)
    assert isinstance(outcome.summary, Validation)
    return outcome.summary.metrics()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--validate", type=Path)
    parser.add_argument("--die_at", type=int, default=-1)
    parser.add_argument("--by", default="SIGKILL")
    parser.add_argument("--save_every_steps", type=int, default=0)
    words = parser.parse_args()
    place = runtime.start(device="cpu", precision="fp32", threads=1)
    task = NetTask()
    try:
        if words.validate:
            checkpoints.load_model(task.model, checkpoints.load(words.validate), str(words.validate))
            if place.is_main:
                words.folder.mkdir(exist_ok=True)
            (words.folder / f"validated{place.world.size}-{place.world.rank}.json").write_text(
                json.dumps(validate(task, place))
            )
            return 0
        with Preemption() as preemption, Watch.over(place, timeout_minutes=5, preemption=preemption) as watch:
            options = TrainerOptions(
                epochs=EPOCHS, steps_per_epoch=STEPS, output_dir=words.folder, save_every_minutes=0,
                save_every_steps=words.save_every_steps,
            )  # fmt: skip
            trainer = Trainer(
                task,
                Replicated(task.model, torch.optim.AdamW(task.model.parameters(), lr=0.05), runtime=place),
                Data(place, words.die_at, words.by),
                options=options,
                lr=[0.05] * (STEPS * EPOCHS),
                runtime=place,
                validate=lambda: validate(task, place),
                ema=Ema(task.model, decay=0.9),
                watch=watch,
            )
            latest = words.folder / checkpoints.LATEST
            if runtime.broadcast_object(latest.exists() if place.is_main else None):
                trainer.resume(latest)
            trainer.fit()
            (words.folder / f"counts{place.world.rank}.json").write_text(json.dumps(task.counts))
    except PreemptedError:
        return EXIT_PREEMPTED
    finally:
        runtime.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
