"""Validation and the final test, and the weights that are tested."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from umt.engine import checkpoints, logs, runtime
from umt.engine.evaluate import Evaluation, evaluate, weights_digest
from umt.engine.runtime import Runtime
from umt.engine.watch import VALIDATION, Watch
from umt.errors import CheckpointError
from umt.tasks.base import EvaluationSet, Recipe, Start, Task
from umt.writing import replacing

log = logging.getLogger(__name__)


def run_test(task: Task, test: EvaluationSet, run: Runtime, watch: Watch, *, source: str, output: Path) -> Evaluation:
    """Tests every row of the list once, writes the results and test.json into `output`, and logs the table.

    `source`: what the weights are called.
    """
    watch.at(sys.maxsize, VALIDATION, "the test")
    log.info("testing %s on %s", source, test.about)
    results = test.results(
        {"weights": source, "weights_digest": weights_digest(task.model), "precision": run.precision}
    )
    outcome = _evaluate("test", task, test, results, run, watch, folder=output)
    if run.is_main:
        summary = outcome.summary
        with replacing(output / "test.json") as file:
            file.write(json.dumps(summary.to_json(), indent=1).encode())
        metrics = summary.metrics()
        logs.cut_lines(output / "log.txt", lambda line: not metrics.keys().isdisjoint(line))  # of an earlier test
        logs.append_line(output / "log.txt", metrics)
        log.info("%s\nscores of every view: %s", summary.table(), outcome.path)
    return outcome


def validation(task: Task, validated: EvaluationSet, run: Runtime, watch: Watch) -> Callable[[], Mapping[str, float]]:
    """A function that gives the metrics of the task on the validation list."""

    def validate() -> Mapping[str, float]:
        return _evaluate("validation", task, validated, validated.results({}), run, watch).summary.metrics()

    return validate


def _evaluate(
    what: str,
    task: Task,
    evaluated: EvaluationSet,
    results: Any,
    run: Runtime,
    watch: Watch,
    folder: Path | None = None,
) -> Evaluation:
    with tqdm(
        desc=what, unit=evaluated.unit, disable=None if run.is_main else True, leave=False, dynamic_ncols=True
    ) as bar:
        return evaluate(
            task,
            evaluated.loader,
            results,
            folder=folder,
            batch_size=evaluated.batch_size,
            device=run.device,
            autocast=run.autocast,
            unreadable_is_wrong=evaluated.unreadable_is_wrong,
            progress=functools.partial(_advance, bar, watch),
            stop=lambda: watch.preemption.reason,
        )


def _advance(bar: Any, watch: Watch, done: int, total: int) -> None:
    watch.tick()
    # Progress counts this process's share; every process has about the same.
    bar.total = -(-total // runtime.world_size()) or None
    bar.update(done - bar.n)


def find_tested(recipe: Recipe) -> Path | None:
    """The checkpoint that a test alone takes: --resume, else the best or newest of the output folder.

    None where the recipe names weights itself. Raises CheckpointError where there are none.
    """
    saving = recipe.checkpoint
    if recipe.weights().get(recipe.initial_weights()) and not saving.resume:
        return None
    folder = Path(saving.output_dir)
    if recipe.tests_best and not saving.resume:
        return checkpoints.find_best(folder)
    path = checkpoints.find_resume(folder, resume=saving.resume, auto_resume=True)
    if path is None:
        raise CheckpointError(
            f"--eval finds no weights: {folder} has no checkpoint. Name some with --finetune or --resume."
        )
    return path


def load_tested(task: Task, start: Start) -> None:
    """The weights of a checkpoint into the task's model. Raises CheckpointError."""
    checkpoints.load_model(task.model, checkpoints.load(start.path), str(start.path))


def load_best(task: Task, output: Path) -> str:
    """The weights of the run's best checkpoint; its name."""
    best = checkpoints.find_best(output)
    checkpoints.load_model(runtime.unwrap(task.model), checkpoints.load(best), str(best))
    return str(best)
