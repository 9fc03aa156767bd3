"""What follows from a configuration: batch, learning rates, steps, tokens, views. Computed, never stored back.

`render_dry_run` prints it. Nothing here needs torch, a GPU or a video; the number of steps is counted from the list if
it is there, and is otherwise taken from the official size of the data set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from umt.config.checks import model_spec, token_grid
from umt.config.deepspeed import deepspeed_json
from umt.config.lists import list_files, sources, training_files
from umt.config.schema import Config, FinetuneConfig, OptimConfig, PretrainConfig
from umt.cores import usable_cores
from umt.data import catalog
from umt.data.labels.label_order import agreed, of_list
from umt.data.storage.urls import is_url
from umt.errors import ConfigError
from umt.models import timm_names
from umt.models.files.fetch import is_remote
from umt.optim.schedule import clips_per_step, scaled_lr, steps_per_epoch, warmup_length


@dataclass(frozen=True)
class Plan:
    """Derived values of a run. A step is one update of the optimiser; a clip is one copy of a video."""

    world_size: int
    accumulation: int  # micro-batches per step
    videos_per_step: int  # over all GPUs
    clips_per_step: int  # videos_per_step x --num_sample
    lr: float  # scaled, as are the next two
    min_lr: float
    warmup_lr: float
    videos: int | None  # in the training list; None where neither a list nor an official size is known
    videos_from: str
    steps_per_epoch: int | None
    total_steps: int | None
    warmup_steps: int | None
    grid: tuple[int, int, int]  # tokens of a clip in time, height, width
    visible: int | None  # tokens of a frame that the student sees, on average; None in finetuning
    num_workers: int  # per GPU
    notice: str | None  # how this run differs from the recipe


def plan(config: Config, *, world_size: int, videos: int | None = None) -> Plan:
    """Derived values on `world_size` GPUs (or processes); `videos` in the training list, counted here unless given.

    Raises ConfigError when the batch cannot be made, is larger than the data, or the warm-up is longer than the run.
    """
    optim, copies = config.optim, config.data.num_sample
    accumulated = accumulation(optim, world_size)
    total = clips_per_step(optim.batch_size, world_size, accumulated)
    source = "in the list"
    if videos is None:
        videos, source = training_videos(config)
    per_epoch = None if videos is None else steps_per_epoch(videos, optim.batch_size, world_size, accumulated)
    grid = token_grid(config)
    tokens = grid[1] * grid[2]
    return Plan(
        world_size=world_size,
        accumulation=accumulated,
        videos_per_step=total,
        clips_per_step=total * copies,
        lr=scaled_lr(optim.lr, total, copies),
        min_lr=scaled_lr(optim.min_lr, total, copies),
        warmup_lr=scaled_lr(optim.warmup_lr, total, copies),
        videos=videos,
        videos_from=source,
        steps_per_epoch=per_epoch,
        total_steps=None if per_epoch is None else per_epoch * optim.epochs,
        warmup_steps=None
        if per_epoch is None
        else warmup_length(
            epochs=optim.epochs,
            per_epoch=per_epoch,
            warmup_epochs=optim.warmup_epochs,
            warmup_steps=optim.warmup_steps,
        ),
        grid=grid,
        visible=tokens - int(tokens * config.teacher.mask_ratio) if isinstance(config, PretrainConfig) else None,
        num_workers=loader_processes(config),
        notice=_notice(optim, world_size, accumulated),
    )


def accumulation(optim: OptimConfig, world_size: int) -> int:
    """Micro-batches per step: --update_freq, or what --global_batch_size asks for; ConfigError if that is not whole."""
    wanted, at_once = optim.global_batch_size, optim.batch_size * world_size
    if wanted is None:
        return optim.update_freq
    if wanted % at_once:
        below = wanted // at_once * at_once
        near = " or ".join(str(n) for n in (below, below + at_once) if n)
        fits = max((b for b in range(1, optim.batch_size) if wanted % (b * world_size) == 0), default=None)
        keep = f", or keep {wanted} with --batch_size {fits}" if fits else ""
        raise ConfigError(
            f"--global_batch_size ({wanted}) is no multiple of GPUs x --batch_size = {world_size} x {optim.batch_size} "
            f"= {at_once}. The nearest that works: --global_batch_size {near}{keep}."
        )
    if optim.update_freq not in (1, wanted // at_once):
        raise ConfigError(
            f"--update_freq ({optim.update_freq}) contradicts --global_batch_size ({wanted}), which needs "
            f"{wanted // at_once}. Leave out --update_freq."
        )
    return wanted // at_once


def loader_processes(config: Config) -> int:
    """Processes per GPU that load data: --num_workers, else 10, or the CPU cores that this process may use if fewer."""
    if config.data.num_workers is not None:
        return config.data.num_workers
    return min(10, usable_cores())


def _notice(optim: OptimConfig, world_size: int, accumulated: int) -> str | None:
    if optim.recipe_gpus is None:
        return None
    recipe_batch = optim.recipe_batch or optim.batch_size
    recipe = clips_per_step(recipe_batch, optim.recipe_gpus)
    total = clips_per_step(optim.batch_size, world_size, accumulated)
    if total == recipe:
        return None
    keep = (
        f"--global_batch_size {recipe} keeps the recipe by accumulating"
        if recipe % (optim.batch_size * world_size) == 0
        else f"no accumulation gives {recipe} on {world_size} GPUs at --batch_size {optim.batch_size}; change one"
    )
    return (
        f"GPUs x batch x accumulation = {world_size} x {optim.batch_size} x {accumulated} = {total} videos a step, but "
        f"the recipe was made for {optim.recipe_gpus} x {recipe_batch} x 1 = {recipe}, so the "
        f"learning rate is {total / recipe:g} times the recipe's; {keep}."
    )


def training_videos(config: Config) -> tuple[int | None, str]:
    """Videos of the training list, or of all of them together, and where the number comes from."""
    name = config.data.data_set
    folders = isinstance(config, FinetuneConfig) and catalog.get(name).lists == "folders"
    given = [source.path for source in sources(config.data)]
    own = isinstance(config, FinetuneConfig) and (name == "video_list" or config.data.shots is not None)
    if own and all(map(os.path.isdir, given)):
        from umt.config.reading import read_split

        assert isinstance(config, FinetuneConfig)
        read = [read_split(config, "train", source) for source in sources(config.data)]
        return sum(map(len, read)), read[0].note.rstrip(".") or f"counted in {' and '.join(given)}"
    if folders and given[0] and all(map(os.path.isdir, given)):
        from umt.data.lists.class_folders import (
            read_folders,  # here, because numpy comes with it and takes half a dry run
        )

        return sum(len(read_folders(path, split="train")) for path in given), f"counted in {' and '.join(given)}"
    files = [path for path, _ in training_files(config)]
    if given[0] and all(map(os.path.isfile, files)):
        from umt.data.lists.reading import count_rows

        return sum(map(count_rows, files)), f"counted in {' and '.join(files)}"
    lacking = next((path for path in files if not os.path.isfile(path)), files[0])
    why = f"{lacking} is not looked at" if is_url(lacking) else f"{lacking or '.'} is not there"
    classes = config.data.nb_classes if isinstance(config, FinetuneConfig) else None
    official = catalog.official_size(name, classes) if len(files) == 1 else None
    return (None, f"unknown, {why}") if official is None else (official, f"official size, {why}")


def world_size_from(environ: Mapping[str, str]) -> int:
    """Processes that the environment announces: torchrun's, Open MPI's or srun's number, else GPUS, else 1.

    A batch script has SLURM_NTASKS without being one of the tasks; what `srun` starts has the number of its own step.
    """
    for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "GPUS"):
        if word := environ.get(name, ""):
            if not word.isdigit() or int(word) < 1:
                raise ConfigError(f"The environment variable {name} ({word}) must be a whole number above 0. Unset it.")
            return int(word)
    return 1


def render_dry_run(config: Config, environ: Mapping[str, str] | None = None) -> str:
    """The resolved run as text, one fact a line: the command, then `describe`."""
    environ = os.environ if environ is None else environ
    made = plan(config, world_size=world_size_from(environ))
    title, *facts = describe(config, made).splitlines()
    command = environ.get("UMT_LAUNCH_COMMAND", f"python -m umt {config.task} ...")
    return "\n".join([title, f"  {'command':<12} {command}", *facts, *_balance(config)])


def _balance(config: Config) -> list[str]:
    """Of one's own videos how many each class has, where they have been looked at."""
    if not isinstance(config, FinetuneConfig) or not config.chosen:
        return []
    from umt.config.reading import read_split  # here, because numpy comes with it
    from umt.data.lists.balance import balance_of

    return [
        f"  {line}"
        for line in balance_of(read_split(config, "train", sources(config.data)[0]), config.data.nb_classes).lines()
    ]


def describe(config: Config, made: Plan, *, precision: str | None = None) -> str:
    """What a run is going to do, one fact a line: `name  value`; how it differs from its recipe comes last.

    `precision`: bf16, fp16 or fp32 where the machine has settled it.
    """
    facts = {**_model_facts(config, made), **_data_facts(config, made), **_run_facts(config, made)}
    if config.parallel.enable_deepspeed:
        facts["deepspeed"] = _deepspeed_fact(config, made, precision or config.runtime.precision)
    lines = [f"umt {config.task} {job_name(config)}", *(f"  {name:<12} {value}" for name, value in facts.items())]
    if isinstance(config, FinetuneConfig) and config.chosen:
        lines += _chosen(config)
    if made.notice:
        lines.append(f"  NOTE: {made.notice}")
    return "\n".join(lines)


RANDOM_START = (
    "the model starts from random weights, from which a few thousand videos teach it little. Give --finetune: a file, "
    "a URL, or a name of the published zoo, e.g. --finetune b16_ptk710_ftk710_ftk400_f8_res224 (MODEL_ZOO.md)."
)


def _chosen(config: FinetuneConfig) -> list[str]:
    """What nobody gave, and why it is what it is; a warning where that cannot be enough."""
    width = max(len(f"--{choice.flag} {choice.shown}") for choice in config.chosen)
    lines = ["  chosen, since nothing else was said; a flag that is given wins:"]
    lines += [f"    {f'--{choice.flag} {choice.shown}':<{width}}  {choice.why}" for choice in config.chosen]
    if not (config.model.finetune or config.evaluation.eval):
        lines.append(f"  WARNING: {RANDOM_START}")
    return lines


def _deepspeed_fact(config: Config, made: Plan, precision: str) -> str:
    settled = "bf16" if precision == "auto" else precision
    entries = deepspeed_json(config, precision=settled, world_size=made.world_size, accumulation=made.accumulation)
    note = " (with --precision auto settled as bf16)" if precision == "auto" else ""
    return f"{json.dumps(entries)}{note}"


def job_name(config: Config) -> str:
    """--job_name, else the name of the output folder."""
    return config.checkpoint.job_name or Path(config.checkpoint.output_dir).name or "run"


def _there(path: str) -> str:
    there = is_url(path) or is_remote(path) or Path(path.split("#sha256=")[0]).exists()
    return path if there else f"{path} (not there)"


def _model_facts(config: Config, made: Plan) -> dict[str, str]:
    model, sizes, (t, h, w) = config.model, model_spec(config), made.grid
    recompute = (
        f"; first {model.checkpoint_num} blocks recompute" if model.use_checkpoint and model.checkpoint_num else ""
    )
    facts = {
        "model": f"{model.model}: width {sizes.width}, {sizes.depth} blocks, {sizes.heads} heads, "
        f"drop path {model.drop_path:g}{recompute}",
        "input": f"{config.data.num_frames} frames of {model.input_size} x {model.input_size}, "
        f"tubelet {model.tubelet_size}",
        "tokens": f"{t} x {h} x {w} = {t * h * w}",
    }
    if isinstance(config, PretrainConfig):
        teacher = config.teacher
        unnamed = "timm's own, downloaded" if timm_names.is_timm(teacher.clip_teacher) else "none"
        source = _there(teacher.clip_teacher_weights) if teacher.clip_teacher_weights else unnamed
        facts["teacher"] = (
            f"{teacher.clip_teacher} at {teacher.clip_input_resolution} px, last {teacher.clip_return_layer} layers, "
            f"{teacher.clip_loss_type} loss, weights {source}"
        )
        facts["mask"] = f"{teacher.mask_type} {teacher.mask_ratio:g}: {made.visible} of {h * w} tokens a frame visible"
    else:
        start = config.model
        facts["start from"] = _there(start.finetune) if start.finetune else "random weights"
        facts["start from"] += ", with a new head" if start.delete_head else ""
        if start.freeze_blocks:
            alone = ": the head alone is trained" if start.freeze_blocks == sizes.depth else ""
            facts["frozen"] = f"the embedding and the first {start.freeze_blocks} of {sizes.depth} blocks{alone}"
    return facts


def _data_facts(config: Config, made: Plan) -> dict[str, str]:
    data = config.data
    found = sources(data)
    files = list(dict.fromkeys(path for path, _ in list_files(config)))
    lists = ", ".join(map(_there, files)) if data.data_path else "none"
    if isinstance(config, FinetuneConfig) and catalog.get(data.data_set).lists == "folders" and data.data_path:
        lists = ", ".join(f"the class folders of {_there(source.path)}" for source in found)
    separators, prefixes = ([*dict.fromkeys(x)] for x in zip(*((s.separator, s.prefix) for s in found), strict=True))
    facts = {
        "data": f"{data.data_set}, separator {' '.join(map(repr, separators))}, prefix {' '.join(map(repr, prefixes))}",
        "lists": lists,
        "videos": f"{'?' if made.videos is None else made.videos} for training ({made.videos_from})",
        "copies": f"{data.num_sample} of a video in a batch",
    }
    if len(found) > 1:
        shares = "their sizes" if data.data_weights is None else " : ".join(f"{w:g}" for w in data.data_weights)
        facts["mixture"] = f"{len(found)} training lists, drawn like {shares}"
    if data.shard_shuffle:
        facts["order"] = f"shard by shard, {data.shard_shuffle} at a time"
    if data.cache_dir:
        facts["cache"] = f"{data.cache_dir}, at most {data.cache_size_gb:g} GB"
    if isinstance(config, FinetuneConfig):
        facts["data"] += f", {config.data.nb_classes} classes" + ", several a video" * config.data.multi_label
        if config.data.class_weights != "none":
            facts["weighted"] = f"classes count in the loss by {config.data.class_weights}"
        classes, flag = config.data.nb_classes, config.data.label_order
        order = agreed([of_list(s.path, data_set=data.data_set, classes=classes, flag=flag) for s in found])
        if order.names is not None:
            facts["labels"] = str(order)
        clips, crops = config.evaluation.test_num_segment, config.evaluation.test_num_crop
        facts["views"] = f"{clips} clips x {crops} crops = {clips * crops}"
    return facts


def _run_facts(config: Config, made: Plan) -> dict[str, str]:
    optim, runtime = config.optim, config.runtime
    steps = "steps unknown until the list is there"
    if made.total_steps is not None:
        steps = f"{made.steps_per_epoch} = {made.total_steps} steps, warm-up {made.warmup_steps}"
    betas = "" if optim.opt_betas is None else f", betas {optim.opt_betas[0]:g} {optim.opt_betas[1]:g}"
    decay = f", layer decay {optim.layer_decay:g}" if hasattr(optim, "layer_decay") else ""
    recipe = "" if optim.recipe_gpus is None else f" (recipe: {optim.recipe_gpus} GPUs)"
    return {
        "batch": f"{made.world_size} GPUs x {optim.batch_size} videos x {made.accumulation} accumulated = "
        f"{made.videos_per_step} videos = {made.clips_per_step} clips a step{recipe}",
        "lr": f"{optim.lr:g} x {made.clips_per_step} / 256 = {made.lr:g}, from {made.warmup_lr:g}, to {made.min_lr:g}",
        "schedule": f"{optim.epochs} epochs x {steps}",
        "optimiser": f"{optim.opt}{betas}, weight decay {optim.weight_decay:g}{decay}",
        "machine": f"device {runtime.device}, precision {runtime.precision}, {made.num_workers} loader processes a GPU",
        "output": config.checkpoint.output_dir or "none (--output_dir is missing)",
    }
