"""The order of a run: a recipe becomes parts, and they are trained, validated and tested.

Reading order: `execute`; `_train` and `_test`, one run each; `_trainer`, where all parts meet.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from umt.engine import checkpoints, logs, record, replay, runtime
from umt.engine import preemption as preemption_of
from umt.engine.preemption import Preemption
from umt.engine.runtime import Runtime
from umt.engine.trainer import Trainer, TrainerOptions
from umt.engine.watch import Watch
from umt.errors import CheckpointError, PreemptedError, UserError
from umt.optim.build import create_optimizer
from umt.optim.schedule import lr_schedule, weight_decay_schedule
from umt.run import same_recipe
from umt.run.plan import Plan, describe, plan
from umt.run.strategies import build_strategy, check_strategy
from umt.run.testing import find_tested, load_best, load_tested, run_test, validation
from umt.run.weights import at_hand, started_from
from umt.tasks.base import Outcome, Parts, Recipe, Start, kind_of, resolve
from umt.writing import replacing

log = logging.getLogger(__name__)


def execute(recipe: Recipe, preemption: Preemption | None = None) -> None:
    """Runs what `recipe` asks for, from wherever an earlier start of it stopped.

    Raises:
        PreemptedError: `preemption` asked for it; what was done is saved, and on SLURM the job is requeued.
        PeerLostError: another process of the run is dead; one that hangs ends this process from a thread (watch.py).
    """
    settings, minutes = recipe.runtime, recipe.parallel.timeout_minutes
    run = runtime.start(
        device=settings.device, precision=settings.precision, threads=settings.threads or 0, timeout_minutes=minutes
    )
    logs.setup_console(main=run.is_main)
    try:
        with Watch.over(run, timeout_minutes=minutes, preemption=preemption) as watch:
            _run(recipe, run, watch)
    finally:
        runtime.stop()


def _run(recipe: Recipe, run: Runtime, watch: Watch) -> None:
    try:
        check_strategy(recipe, run)
        if recipe.only_tests:
            _test(recipe, run, watch)
        else:
            _train(recipe, run, watch)
    except PreemptedError as error:
        sentence = f"{error}. {_next_start(recipe)}" if run.is_main else ""
        runtime.barrier()  # a process that leaves may take the others with it, and the main one has had things to do
        raise PreemptedError(sentence) from None


def _next_start(recipe: Recipe) -> str:
    """Asks SLURM to start this job again, where there is one; a sentence on who is to do what now."""
    job = preemption_of.job_of(os.environ)
    if job is None or not recipe.runtime.requeue:
        return "The same command goes on from here."
    if not recipe.checkpoint.save_ckpt:
        return f"SLURM job {job} is not requeued: without checkpoints it would start from the beginning each time."
    return preemption_of.requeue(job)


def replay_step(path: Path) -> Iterator[str]:
    """Recomputes the step that a run saved because it was not finite; lines to print. Raises CheckpointError."""
    content = replay.load(path)
    run = runtime.start(precision=content["precision"])
    task = resolve(kind_of(content["config"]["task"]).task)
    return replay.replay(path, task, runtime=run).lines()


# ---- runs


def _test(recipe: Recipe, run: Runtime, watch: Watch) -> None:
    start = _on_main(lambda: _start(find_tested(recipe)), run)
    if start is None:
        for source in recipe.weights().values():
            at_hand(source)
    parts = recipe.build(run, start)
    assert parts.test is not None
    source = recipe.weights().get(recipe.initial_weights(), "")
    if start is not None:
        load_tested(parts.task, start)
        source = str(start.path)
    run_test(parts.task, parts.test, run, watch, source=source, output=Path(recipe.checkpoint.output_dir))


def _train(recipe: Recipe, run: Runtime, watch: Watch) -> None:
    output = Path(recipe.checkpoint.output_dir)
    start = _on_main(lambda: _find_start(recipe), run)
    for flag, source in recipe.weights().items():
        if start is None or flag != recipe.initial_weights():
            at_hand(source)
    parts = recipe.build(run, start)
    assert parts.train is not None
    derived = plan(recipe, world_size=run.world.size, videos=len(parts.train))
    trainer = _trainer(recipe, parts, derived, run, watch, start)
    trainer.fit()
    parts.train.close()
    if parts.test is None:
        return
    runtime.barrier()  # what rank 0 has written last is what all ranks now read
    with trainer.evaluating():
        source = "the last epoch"
        if recipe.tests_best and parts.validation is not None:
            source = load_best(parts.task, output)
        tested = run_test(parts.task, parts.test, run, watch, source=source, output=output)
    if parts.report is not None and run.is_main:
        progress = trainer.progress
        parts.report(Outcome(tested.summary, tested.path, progress.best_epoch, progress.failed_rows))


def _trainer(recipe: Recipe, parts: Parts, derived: Plan, run: Runtime, watch: Watch, start: Start | None) -> Trainer:
    """A trainer that stands where the checkpoint `start` does, and has recorded what it is going to do."""
    optim, saving, task, train = recipe.optim, recipe.checkpoint, parts.task, parts.train
    assert train is not None
    output = Path(saving.output_dir)
    if run.is_main:
        _write_record(recipe, parts, derived, run, new=start is None)
    steps = train.steps_per_epoch
    rates = lr_schedule(
        lr=derived.lr,
        min_lr=derived.min_lr,
        warmup_lr=derived.warmup_lr,
        epochs=optim.epochs,
        per_epoch=steps,
        warmup_epochs=optim.warmup_epochs,
        warmup_steps=optim.warmup_steps,
    )
    decay = weight_decay_schedule(
        weight_decay=optim.weight_decay, weight_decay_end=optim.weight_decay_end, epochs=optim.epochs, per_epoch=steps
    )
    optimizer = create_optimizer(
        parts.parameter_groups, name=optim.opt, lr=derived.lr, eps=optim.opt_eps, betas=optim.opt_betas,
        momentum=optim.momentum,
    )  # fmt: skip
    strategy = build_strategy(recipe, task.model, optimizer, run)
    trainer = Trainer(
        task,
        strategy,
        train,
        options=TrainerOptions(
            epochs=optim.epochs,
            steps_per_epoch=steps,
            accumulation=derived.accumulation,
            seed=recipe.runtime.seed,
            output_dir=output,
            save_ckpt=saving.save_ckpt,
            save_ckpt_freq=saving.save_ckpt_freq,
            save_every_minutes=saving.save_every_minutes,
            save_every_steps=saving.save_every_steps,
            keep_last=saving.keep_last,
            save_in_background=saving.save_in_background,
            best_metric=parts.best_metric,
            on_nan=recipe.runtime.on_nan,
            failure_budget=recipe.loading.failure_budget(len(train)),
        ),
        lr=rates,
        weight_decay=decay,
        runtime=run,
        run_log=logs.RunLog(
            output,
            tensorboard_dir=Path(saving.log_dir) if saving.log_dir else output,
            log_every=recipe.runtime.log_every,
            main=run.is_main,
        ),
        validate=None if parts.validation is None else validation(task, parts.validation, run, watch),
        ema=None if parts.ema_decay is None else strategy.make_ema(parts.ema_decay),
        config=parts.record,
        watch=watch,
    )
    if start is not None:
        trainer.resume(start.path)
    return trainer


def _write_record(recipe: Recipe, parts: Parts, derived: Plan, run: Runtime, *, new: bool) -> None:
    """The files that say what the run is, and the first lines of its log."""
    output, model = Path(recipe.checkpoint.output_dir), parts.task.model
    output.mkdir(parents=True, exist_ok=True)
    for name, text in parts.files.items():
        with replacing(output / name) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
    facts = {
        "derived": {**dataclasses.asdict(derived), **recipe.derived()},
        "weights": started_from(recipe.weights()),
    }
    if recipe.choices:
        facts["chosen"] = {choice.flag: choice.why for choice in recipe.choices}
        if new and (warning := recipe.warning()):
            log.warning(warning)
    record.save_record(output, {**parts.record, **facts}, run.facts())
    log.info(describe(recipe, derived, precision=run.precision))
    log.info(
        "running on %s in %s, %d threads a process, %d trained parameters",
        run.device, run.precision, run.threads, sum(p.numel() for p in model.parameters() if p.requires_grad),
    )  # fmt: skip
    if parts.notes:
        log.info("\n".join(parts.notes))


# ---- what a run goes on from


def _on_main(find: Callable[[], Start | None], run: Runtime) -> Start | None:
    """What rank 0 finds, on every rank, so that no rank sees other files than the rest; its error likewise."""
    outcome: Start | UserError | None = None
    if run.is_main:
        try:
            outcome = find()
        except UserError as error:  # the other ranks wait for this one: they raise the same
            outcome = error
    outcome = runtime.broadcast_object(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def _start(path: Path | None) -> Start | None:
    return None if path is None else Start(path, checkpoints.load(path, lazily=True)["config"])


def _find_start(recipe: Recipe) -> Start | None:
    saving = recipe.checkpoint
    path = checkpoints.find_resume(Path(saving.output_dir), resume=saving.resume, auto_resume=saving.auto_resume)
    if path is None:
        return None
    content = checkpoints.load(path, lazily=True)
    changed = same_recipe.require_same(
        str(path), type(recipe), content["config"], recipe.record(), named=bool(saving.resume)
    )
    if changed:
        log.warning("changed since %s was made: %s", path, ", ".join(changed))
    done = content["progress"]["epoch"]
    if done > recipe.optim.epochs:
        raise CheckpointError(
            f"{path} stands after {done} epochs, but --epochs is {recipe.optim.epochs}. "
            "Give the --epochs of that run, another --output_dir, or --no_auto_resume to start from the beginning."
        )
    return Start(path, content["config"])
