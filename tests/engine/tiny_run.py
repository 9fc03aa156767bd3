"""A real training process of a few hundred weights, for tests that start, kill and resume it."""

import argparse
import importlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from umt import randomness
from umt.data.loading.clip_batch import ClipBatch
from umt.engine import checkpoints, runtime
from umt.engine.ema import Ema
from umt.engine.logs import RunLog, setup_console
from umt.engine.preemption import Preemption
from umt.engine.record import save_record
from umt.engine.runtime import Runtime
from umt.engine.strategies.replicated import Replicated
from umt.engine.trainer import Trainer, TrainerOptions
from umt.engine.watch import Watch
from umt.errors import EXIT_PREEMPTED, PeerLostError, PreemptedError
from umt.tasks.base import StepOutput, Task

CLASSES = 3
VIDEO = (3, 2, 4, 4)  # C, T, H, W


class TinyTask(Task):
    """Classifies tiny clips by two linear layers; draws dropout and a factor of the loss, unless `dropout` is 0.

    `seen` is state beside the model.
    """

    def __init__(self, width: int = 8, dropout: float = 0.2, die_in_state: int = 0, poison: int = -1) -> None:
        torch.manual_seed(0)
        size = VIDEO[0] * VIDEO[1] * VIDEO[2] * VIDEO[3]
        self.model = nn.Sequential(
            nn.Flatten(), nn.Linear(size, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, CLASSES)
        )
        self.jitter = 0.1 if dropout else 0.0
        self.seen = 0
        self.poison = poison  # the loss of a batch that has this row is no number
        self.states, self.die_in_state = 0, die_in_state

    def training_step(self, batch: ClipBatch, seed: int) -> StepOutput:
        self.seen += len(batch)
        logits = self.model(batch.video.float() / 255).float()
        jitter = torch.rand((), generator=torch.Generator().manual_seed(seed)).item()
        loss = nn.functional.cross_entropy(logits, batch.label) * (1 + self.jitter * jitter)
        if self.poison in batch.row.tolist():
            loss = loss * float("nan")
        return StepOutput(loss, {"correct": (logits.argmax(1) == batch.label).float().mean()})

    def evaluation_step(self, batch: ClipBatch) -> Tensor:
        return self.model(batch.video.float() / 255).float()

    def batch_from(self, state: Mapping[str, Any]) -> ClipBatch:
        return ClipBatch(**state)

    def state_dict(self) -> dict[str, int]:
        self.states += 1
        if self.states == self.die_in_state:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


def clips(epoch: int, rows: list[int]) -> ClipBatch:
    """Clips whose pixels and label are functions of (epoch, row)."""
    videos, labels = [], []
    for row in rows:
        rng = randomness.generator(0, epoch, row)
        label = row % CLASSES
        videos.append(torch.from_numpy(rng.integers(0, 128, VIDEO, dtype="uint8") + 40 * label).to(torch.uint8))
        labels.append(label)
    row, zero = torch.tensor(rows), torch.zeros(len(rows), dtype=torch.int64)
    seed = torch.tensor([randomness.key(0, epoch, r, 0) for r in rows])
    paths = [f"videos/{r}.mp4" for r in rows]
    return ClipBatch(torch.stack(videos), torch.tensor(labels), row, zero, zero, zero, seed, paths=paths)


class TinyData:
    """An endless list, dealt as the real loader does: micro-batch b of rank r takes rows from (b * W + r) * size on."""

    def __init__(
        self,
        batch_size: int = 4,
        *,
        rank: int = 0,
        size: int = 1,
        die_at: tuple[int, int] | None = None,
        signal_name: str = "SIGKILL",
        hang: bool = False,
    ) -> None:
        """Before micro-batch `die_at` (epoch, number) the process sends itself the signal, or hangs."""
        self.hang = hang
        self.batch_size, self.rank, self.size, self.die_at = batch_size, rank, size, die_at
        self.signal = signal.Signals[signal_name]

    def batches(self, epoch: int, start: int = 0) -> Iterator[ClipBatch]:
        micro = start
        while True:
            if self.die_at == (epoch, micro) and self.hang:
                time.sleep(10_000)
            if self.die_at == (epoch, micro):
                os.kill(os.getpid(), self.signal)
            first = (micro * self.size + self.rank) * self.batch_size
            yield clips(epoch, list(range(first, first + self.batch_size)))
            micro += 1


def build(
    options: TrainerOptions,
    *,
    task: Task | None = None,
    data: object = None,
    place: Runtime | None = None,
    ema: bool = True,
    lr: float = 0.05,
    clip_grad: float | None = None,
    run_log: RunLog | None = None,
    watch: Watch | None = None,
) -> Trainer:
    """A trainer of the tiny task with AdamW, cosine-like rates, EMA and a validation on fixed clips."""
    place = place or Runtime()
    task = task or TinyTask()
    task.to(place.device)
    average = Ema(task.model, decay=0.9) if ema else None
    layers = list(task.model.parameters())
    groups = [
        {"params": layers[:2], "weight_decay": 0.05, "lr_scale": 0.5},
        {"params": layers[2:], "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    total = options.epochs * options.steps_per_epoch
    fixed = clips(1000, list(range(12)))

    def validate() -> dict[str, float]:
        scores = task.evaluation_step(fixed.to(place.device))
        return {"acc1": 100 * float((scores.argmax(1).cpu() == fixed.label).float().mean())}

    return Trainer(
        task,
        Replicated(task.model, torch.optim.AdamW(groups, lr=lr), runtime=place, clip_grad=clip_grad),
        data or TinyData(rank=place.world.rank, size=place.world.size),
        options=options,
        lr=[lr * (1 - i / (total + 1)) for i in range(total)],
        weight_decay=[0.05 + 0.01 * i / total for i in range(total)],
        runtime=place,
        run_log=run_log or RunLog(options.output_dir, log_every=1, steps_file=True, main=place.is_main),
        validate=validate,
        ema=average,
        config={"width": 8},
        watch=watch,
    )


def die_in_write(folder: Path) -> None:
    """From now on: kills the process at its second checkpoint, of which the disk then holds a half."""
    latest, writing = folder / "checkpoint-latest.pth", folder / ".checkpoint-new.pth.writing"

    def at_the_end_of_a_write(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(arguments[0]) == writing and latest.exists():
            os.truncate(writing, writing.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(at_the_end_of_a_write)


def run(words: list[str]) -> int:
    """One run, resumed if its folder has a checkpoint -> its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--save_every_steps", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument(
        "--die_at", type=int, nargs=2, help="epoch and micro-batch before which the process kills itself"
    )
    parser.add_argument("--by", default="SIGKILL", help="the signal of --die_at")
    parser.add_argument("--die_on_rank", type=int, help="where --die_at happens; default: everywhere")
    parser.add_argument("--max_hours", type=float)
    parser.add_argument("--timeout_minutes", type=float, default=30)
    parser.add_argument("--hang", action="store_true", help="--die_at sleeps for ever instead")
    parser.add_argument("--on_nan", default="stop")
    parser.add_argument("--keep_last", type=int)
    parser.add_argument("--save_in_background", action="store_true")
    parser.add_argument("--poison", type=int, default=-1, help="row of the list whose loss is no number")
    parser.add_argument("--die_in_state", type=int, default=0, help="the process kills itself in the Nth checkpoint")
    parser.add_argument(
        "--die_in_write", action="store_true", help="... in the middle of writing the second checkpoint"
    )
    arguments = parser.parse_args(words)
    if arguments.die_in_write:
        die_in_write(arguments.output_dir)
    place = runtime.start(device=arguments.device, precision=arguments.precision, threads=1)
    setup_console(main=place.is_main)
    with Preemption(max_hours=arguments.max_hours) as preemption:
        try:
            with Watch.over(place, timeout_minutes=arguments.timeout_minutes, preemption=preemption) as watch:
                train(arguments, place, watch)
        except PreemptedError as error:
            logging.getLogger("umt").info("%s", error)
            return EXIT_PREEMPTED
        except PeerLostError as error:
            logging.getLogger("umt").error("%s", error)
            return error.code
        finally:
            runtime.stop()
    return 0


def train(arguments: argparse.Namespace, place: Runtime, watch: Watch) -> None:
    options = TrainerOptions(
        epochs=arguments.epochs,
        steps_per_epoch=arguments.steps,
        accumulation=arguments.accumulation,
        output_dir=arguments.output_dir,
        save_every_steps=arguments.save_every_steps,
        save_ckpt_freq=2,
        keep_last=arguments.keep_last,
        save_in_background=arguments.save_in_background,
        on_nan=arguments.on_nan,
    )
    world = place.world
    here = arguments.die_on_rank in (None, world.rank)
    die_at = tuple(arguments.die_at) if arguments.die_at and here else None
    trainer = build(
        options,
        task=TinyTask(arguments.width, arguments.dropout, arguments.die_in_state, arguments.poison),
        data=TinyData(
            arguments.batch_size,
            rank=world.rank,
            size=world.size,
            die_at=die_at,
            signal_name=arguments.by,
            hang=arguments.hang,
        ),
        place=place,
        watch=watch,
        clip_grad=1.0,
    )
    if place.is_main:
        save_record(arguments.output_dir, vars(arguments) | {"output_dir": "."}, place.facts())
    found = runtime.broadcast_object(checkpoints.find_resume(arguments.output_dir) if place.is_main else None)
    if found is not None:
        trainer.resume(found)
    logging.getLogger("umt").info("%s", json.dumps(trainer.fit()))


def main() -> None:
    """Arguments of one run, or a file of JSON lines with the arguments of several, each of which is a process."""
    if not sys.argv[1].endswith(".jsonl"):
        sys.exit(run(sys.argv[1:]))
    importlib.import_module(
        "torch._inductor.config"
    )  # what the first optimiser would import, 3 s of it, in every child
    for line in Path(sys.argv[1]).read_text().splitlines():
        # A fork of a process that has only imported torch: as clean as a new one, without the seconds of the import.
        child = os.fork()
        if child == 0:
            os._exit(run(json.loads(line)))
        status = os.waitpid(child, 0)[1]
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    main()
