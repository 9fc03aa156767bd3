"""Validation and the final test, and the weights that are tested."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from umt.assemble import classes
from umt.assemble.data import evaluation_list, test_loader, validation_loader
from umt.assemble.tasks import load_finetuned
from umt.config.schema import FinetuneConfig
from umt.data.labels.label_order import Order, Settled
from umt.data.lists.video_list import VideoList
from umt.engine import checkpoints, logs, runtime
from umt.engine.evaluate import Evaluation, evaluate, weights_digest
from umt.engine.runtime import Runtime
from umt.engine.watch import VALIDATION, Watch
from umt.errors import CheckpointError
from umt.evaluation.scores import ViewScores
from umt.evaluation.validation import ValidationScores
from umt.evaluation.view_results import ViewResults
from umt.tasks.base import Task

log = logging.getLogger(__name__)


def run_test(
    config: FinetuneConfig,
    task: Task,
    run: Runtime,
    watch: Watch,
    *,
    source: str,
    videos: VideoList | None = None,
    names: Sequence[str] | None = None,
) -> Evaluation:
    """Scores every view of the test list once, writes scores.npz and test.json, and prints the table."""
    evaluation, output = config.evaluation, Path(config.checkpoint.output_dir)
    videos = videos or evaluation_list(config, "test", run)
    watch.at(sys.maxsize, VALIDATION, "the test")
    log.info(
        "testing %s on %d videos, %d clips x %d crops",
        source, len(videos), evaluation.test_num_segment, evaluation.test_num_crop,
    )  # fmt: skip
    scores = ViewScores(
        rows=range(len(videos)),
        labels=videos.targets(),
        paths=[videos.path(row) for row in range(len(videos))],
        clips=evaluation.test_num_segment,
        crops=evaluation.test_num_crop,
        classes=config.data.nb_classes,
        class_names=names,
        provenance={
            "model": config.model.model,
            "weights": source,
            "weights_digest": weights_digest(task.model),
            "list": videos.source,
            "input_size": config.model.input_size,
            "num_frames": config.data.num_frames,
            "precision": run.precision,
            "decoder": config.data.decoder,
        },
    )
    with _bar(run, "test", "video") as bar:
        result = evaluate(
            task,
            functools.partial(test_loader, config, videos, run),
            ViewResults(scores),
            folder=output,
            batch_size=config.optim.batch_size,
            device=run.device,
            autocast=run.autocast,
            unreadable_is_wrong=evaluation.count_unreadable_as_wrong,
            progress=functools.partial(_advance, bar, watch),
            stop=lambda: watch.preemption.reason,
        )
    if run.is_main:
        summary = result.summary
        with checkpoints.replacing(output / "test.json") as file:
            file.write(json.dumps(summary.to_json(), indent=1).encode())
        headline = summary.metrics()
        logs.cut_lines(output / "log.txt", lambda line: not headline.keys().isdisjoint(line))  # of an earlier test
        logs.append_line(output / "log.txt", headline)
        log.info("%s\nscores of every view: %s", summary.table(), result.path)
    return result


def load_for_test(config: FinetuneConfig, task: Task, lists: Order) -> tuple[str, Settled]:
    """Weights for `--eval`: --resume, else --finetune, else the best (`--test_best`) or newest of the output folder.

    Their name, and the classes that they and the lists agree on. Raises CheckpointError.
    """
    saving, model = config.checkpoint, config.model
    if saving.resume or not model.finetune:
        folder = Path(saving.output_dir)
        if config.evaluation.test_best and not saving.resume:
            best = checkpoints.find_best(folder)
            return str(best), _load(best, task, lists)
        found = checkpoints.find_resume(folder, resume=saving.resume, auto_resume=True)
        if found is None:
            raise CheckpointError(
                f"--eval finds no weights: {folder} has no checkpoint. Name some with --finetune or --resume."
            )
        return str(found), _load(found, task, lists)
    settled = classes.settle(config, lists, test=True)
    report = load_finetuned(config, task.model, settled)
    if {"head.weight", "head.bias"} & set(report.new):
        raise CheckpointError(
            f"--finetune ({model.finetune}) has no head for {config.data.nb_classes} classes, so --eval would test a "
            "random one. Name a finetuned checkpoint."
        )
    return model.finetune, settled


def _load(path: Path, task: Task, lists: Order) -> Settled:
    content = checkpoints.load(path)
    settled = classes.settle_with_checkpoint(path, content["config"], lists)
    checkpoints.load_model(task.model, content, str(path))
    return settled


def load_best(config: FinetuneConfig, task: Task) -> str:
    best = checkpoints.find_best(Path(config.checkpoint.output_dir))
    checkpoints.load_model(runtime.unwrap(task.model), checkpoints.load(best), str(best))
    return str(best)


def validation(
    config: FinetuneConfig, task: Task, run: Runtime, watch: Watch, videos: VideoList
) -> Callable[[], Mapping[str, float]]:
    """Metrics of the task on the validation list `videos`, one view a video."""
    loader = validation_loader(config, videos, run)

    def validate() -> Mapping[str, float]:
        with _bar(run, "validation", "clip") as bar:
            result = evaluate(
                task,
                lambda finished: loader,
                ValidationScores(len(videos), multi_label=config.data.multi_label),
                device=run.device,
                autocast=run.autocast,
                unreadable_is_wrong=True,  # else the loader raises
                progress=functools.partial(_advance, bar, watch),
                stop=lambda: watch.preemption.reason,
            )
        return result.summary.metrics()

    return validate


def _bar(run: Runtime, what: str, unit: str) -> Any:
    return tqdm(desc=what, unit=unit, disable=None if run.is_main else True, leave=False, dynamic_ncols=True)


def _advance(bar: Any, watch: Watch, done: int, total: int) -> None:
    watch.tick()
    # Progress counts this process's share; every process has about the same.
    bar.total = -(-total // runtime.world_size()) or None
    bar.update(done - bar.n)
