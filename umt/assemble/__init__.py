"""Composition root: a configuration becomes a task, its data and a trainer, and runs. Only here all parts meet.

Reading order: `execute`; `_pretrain` and `_finetune`, one run each; then tasks.py, data.py and testing.py: each
makes its part from the flags that concern it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from umt.assemble import classes, sanity
from umt.assemble.data import evaluation_list, failure_budget, train_loader, training_list
from umt.assemble.strategies import build_strategy, check_strategy
from umt.assemble.tasks import build_task, record_of, task_from_record
from umt.assemble.testing import load_best, load_for_test, run_test, validation
from umt.assemble.weights import at_hand, started_from
from umt.config import recipe
from umt.config.plan import RANDOM_START, Plan, describe, plan
from umt.config.schema import Config, FinetuneConfig, PretrainConfig
from umt.data.labels.label_order import Order, Settled
from umt.data.lists.balance import balance_of
from umt.data.loading.loaders import TrainLoader
from umt.engine import checkpoints, logs, record, replay, runtime
from umt.engine import preemption as preemption_of
from umt.engine.preemption import Preemption
from umt.engine.runtime import Runtime
from umt.engine.trainer import Trainer, TrainerOptions
from umt.engine.watch import Watch
from umt.errors import CheckpointError, PreemptedError, UserError
from umt.optim.build import create_optimizer
from umt.optim.param_groups import param_groups
from umt.optim.schedule import lr_schedule, weight_decay_schedule
from umt.tasks.base import Task

log = logging.getLogger(__name__)


def execute(config: Config, preemption: Preemption | None = None) -> None:
    """Runs what `config` asks for, from wherever an earlier start of it stopped.

    Raises:
        PreemptedError: `preemption` asked for it; what was done is saved, and on SLURM the job is requeued.
        PeerLostError: another process of the run is dead; one that hangs ends this process from a thread (watch.py).
    """
    settings, minutes = config.runtime, config.parallel.timeout_minutes
    run = runtime.start(
        device=settings.device, precision=settings.precision, threads=settings.threads or 0, timeout_minutes=minutes
    )
    logs.setup_console(main=run.is_main)
    try:
        with Watch.over(run, timeout_minutes=minutes, preemption=preemption) as watch:
            _run(config, run, watch)
    finally:
        runtime.stop()


def _run(config: Config, run: Runtime, watch: Watch) -> None:
    try:
        check_strategy(config, run)
        if isinstance(config, PretrainConfig):
            _pretrain(config, run, watch)
        else:
            _finetune(config, run, watch)
    except PreemptedError as error:
        sentence = f"{error}. {_next_start(config)}" if run.is_main else ""
        runtime.barrier()  # a process that leaves may take the others with it, and the main one has had things to do
        raise PreemptedError(sentence) from None


def _next_start(config: Config) -> str:
    """Asks SLURM to start this job again, where there is one; a sentence on who is to do what now."""
    job = preemption_of.job_of(os.environ)
    if job is None or not config.runtime.requeue:
        return "The same command goes on from here."
    if not config.checkpoint.save_ckpt:
        return f"SLURM job {job} is not requeued: without checkpoints it would start from the beginning each time."
    return preemption_of.requeue(job)


def replay_step(path: Path) -> Iterator[str]:
    """Recomputes the step that a run saved because it was not finite; lines to print. Raises CheckpointError."""
    content = replay.load(path)
    run = runtime.start(precision=content["precision"])
    return replay.replay(path, task_from_record, runtime=run).lines()


# ---- runs


def _pretrain(config: PretrainConfig, run: Runtime, watch: Watch) -> None:
    videos = training_list(config)
    made = plan(config, world_size=run.world.size, videos=len(videos))
    at_hand(config.teacher.clip_teacher_weights)
    task = build_task(config, run)
    train = train_loader(config, videos, run, made)
    _trainer(config, made, task, train, run, watch, _resume_from(config, run, Order(None))[0]).fit()
    train.close()


def _finetune(config: FinetuneConfig, run: Runtime, watch: Watch) -> None:
    evaluation = config.evaluation
    if evaluation.eval:
        test_list = evaluation_list(config, "test", run)
        task = build_task(config, run, weights=False)
        at_hand("" if config.checkpoint.resume else config.model.finetune)
        source, numbered = load_for_test(config, task, classes.listed(config, test_list))
        run_test(config, task, run, watch, source=source, videos=test_list, names=numbered.names)
        return
    videos = training_list(config)
    made = plan(config, world_size=run.world.size, videos=len(videos))
    lists = classes.listed(config, videos)
    start, numbered = _resume_from(config, run, lists)
    if start is None:
        at_hand(config.model.finetune)
        numbered = classes.settle(config, lists)
    weights = classes.loss_weights(config, videos, numbered.names, start)
    task = build_task(config, run, weights=start is None, classes=numbered, loss_weights=weights)
    test_list = evaluation_list(config, "test", run)  # a faulty list is found before the training, not after it
    val_list = None if evaluation.disable_eval_during_finetuning else evaluation_list(config, "val", run)
    train = train_loader(config, videos, run, made)
    validate = None if val_list is None else validation(config, task, run, watch, val_list)
    if sanity.is_own(config) and run.is_main:
        log.info("\n".join(balance_of(videos, config.data.nb_classes).lines()))
    trainer = _trainer(config, made, task, train, run, watch, start, validate, numbered, weights)
    trainer.fit()
    train.close()
    runtime.barrier()  # what rank 0 has written last is what all ranks now read
    with trainer.evaluating():
        source = "the last epoch"
        if evaluation.test_best and validate is not None:
            source = load_best(config, task)
        result = run_test(config, task, run, watch, source=source, videos=test_list, names=numbered.names)
    if sanity.is_own(config) and run.is_main:
        sanity.report(config, task, result, trainer.progress, videos=videos, validation=val_list, test=test_list)


def _trainer(
    config: Config,
    made: Plan,
    task: Task,
    train: TrainLoader,
    run: Runtime,
    watch: Watch,
    start: Path | None,
    validate: Callable[[], Mapping[str, float]] | None = None,
    numbered: Settled | None = None,
    loss_weights: Sequence[float] | None = None,
) -> Trainer:
    """A trainer that stands where the checkpoint `start` does, and has recorded what it is going to do."""
    optim, saving, model = config.optim, config.checkpoint, task.model
    output = Path(saving.output_dir)
    numbered = numbered or Settled()
    content = record_of(config, numbered.names, loss_weights)
    classes.write(output, numbered, run)
    if run.is_main:
        output.mkdir(parents=True, exist_ok=True)
        derived = {"derived": dataclasses.asdict(made), "weights": started_from(config)}
        if isinstance(config, FinetuneConfig) and config.chosen:
            derived["chosen"] = {choice.flag: choice.why for choice in config.chosen}
            if start is None and not config.model.finetune:
                log.warning(RANDOM_START)
        record.save_record(output, {**content, **derived}, run.facts())
        log.info(describe(config, made, precision=run.precision))
        log.info(
            "running on %s in %s, %d threads a process, %d trained parameters",
            run.device, run.precision, run.threads, sum(p.numel() for p in model.parameters() if p.requires_grad),
        )  # fmt: skip
    steps = train.steps_per_epoch
    rates = lr_schedule(
        lr=made.lr,
        min_lr=made.min_lr,
        warmup_lr=made.warmup_lr,
        epochs=optim.epochs,
        per_epoch=steps,
        warmup_epochs=optim.warmup_epochs,
        warmup_steps=optim.warmup_steps,
    )
    decay = weight_decay_schedule(
        weight_decay=optim.weight_decay, weight_decay_end=optim.weight_decay_end, epochs=optim.epochs, per_epoch=steps
    )
    groups = param_groups(model, weight_decay=optim.weight_decay, layer_decay=getattr(optim, "layer_decay", 1.0))
    averaged = isinstance(config, FinetuneConfig) and config.model.model_ema
    optimizer = create_optimizer(
        groups, name=optim.opt, lr=made.lr, eps=optim.opt_eps, betas=optim.opt_betas, momentum=optim.momentum
    )
    strategy = build_strategy(config, model, optimizer, run)
    trainer = Trainer(
        task,
        strategy,
        train,
        options=TrainerOptions(
            epochs=optim.epochs,
            steps_per_epoch=steps,
            accumulation=made.accumulation,
            seed=config.runtime.seed,
            output_dir=output,
            save_ckpt=saving.save_ckpt,
            save_ckpt_freq=saving.save_ckpt_freq,
            save_every_minutes=saving.save_every_minutes,
            save_every_steps=saving.save_every_steps,
            keep_last=saving.keep_last,
            save_in_background=saving.save_in_background,
            best_metric="map" if isinstance(config, FinetuneConfig) and config.data.multi_label else "acc1",
            on_nan=config.runtime.on_nan,
            failure_budget=failure_budget(config.data.max_failures, len(train.clips)),
        ),
        lr=rates,
        weight_decay=decay,
        runtime=run,
        run_log=logs.RunLog(
            output,
            tensorboard_dir=Path(saving.log_dir) if saving.log_dir else output,
            log_every=config.runtime.log_every,
            main=run.is_main,
        ),
        validate=validate,
        ema=strategy.make_ema(config.model.model_ema_decay) if averaged else None,  # type: ignore[union-attr]
        config=content,
        watch=watch,
    )
    if start is not None:
        trainer.resume(start)
    return trainer


def _resume_from(config: Config, run: Runtime, lists: Order) -> tuple[Path | None, Settled]:
    """The checkpoint to go on from, and its classes; rank 0 decides, so that no rank sees others while files change."""
    outcome: tuple[Path | None, Settled] | UserError = (None, Settled())
    if run.is_main:
        try:
            outcome = _find_start(config, lists)
        except UserError as error:  # the other ranks wait for this one: they raise the same
            outcome = error
    outcome = runtime.broadcast_object(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def _find_start(config: Config, lists: Order) -> tuple[Path | None, Settled]:
    saving = config.checkpoint
    found = checkpoints.find_resume(Path(saving.output_dir), resume=saving.resume, auto_resume=saving.auto_resume)
    if found is None:
        return None, Settled()
    content = checkpoints.load(found, lazily=True)
    named = bool(saving.resume)
    changed = recipe.require_same(str(found), config.task, content["config"], record_of(config), named=named)
    if changed:
        log.warning("changed since %s was made: %s", found, ", ".join(changed))
    done = content["progress"]["epoch"]
    if done > config.optim.epochs:
        raise CheckpointError(
            f"{found} stands after {done} epochs, but --epochs is {config.optim.epochs}. "
            "Give the --epochs of that run, another --output_dir, or --no_auto_resume to start anew."
        )
    return found, classes.settle_with_checkpoint(found, content["config"], lists)
