"""Values held against each other and against the world, before torch or a GPU is touched.

`check` needs nothing but the configuration; `check_files` looks at lists, weights and the output folder. Each raises
one sentence that names the flag, its value and the remedy.
"""

from __future__ import annotations

import difflib
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from umt.config import deepspeed, lists
from umt.config.own import file_for_folder
from umt.config.recipe_flags import CLASS_WEIGHTS
from umt.config.schema import Config, FinetuneConfig, OptimConfig, PretrainConfig
from umt.data import catalog
from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, CheckpointError, ConfigError, OutputError
from umt.models import timm_names
from umt.models.files import fetch, published
from umt.models.specs import SPECS, ModelSpec
from umt.optim.schedule import warmup_length

log = logging.getLogger("umt")


def check(config: Config) -> None:
    """Raises ConfigError for the first contradiction between flags."""
    if isinstance(config, PretrainConfig):
        _check_student_and_teacher(config)
        _check_pretraining_frames(config)
    else:
        _check_classifier(config)
        _check_mixing(config)
        _check_testing(config)
    _check_data_set(config)
    _check_schedule(config.optim)
    _check_parallel(config)
    if config.model.checkpoint_num and not config.model.use_checkpoint:
        log.warning("--checkpoint_num (%d) has no effect without --use_checkpoint.", config.model.checkpoint_num)


def spec(flag: str, name: str, kind: str) -> ModelSpec:
    """Sizes of the model `name` that `flag` asks for; ConfigError unless it exists and is of that kind."""
    names = [n for n, s in SPECS.items() if s.kind == kind]
    if name in names:
        return SPECS[name]
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.4) or names
    what = f"is a {SPECS[name].kind}, not a {kind}" if name in SPECS else "is not a model of this library"
    raise ConfigError(f"--{flag} ({name}) {what}. Try --{flag} {' or '.join(near)}.")


class TeacherSizes(NamedTuple):
    """Of a teacher; None where only the library that has it can tell, which is asked when the run starts."""

    patch: int | None
    output: int | None
    depth: int | None


def teacher_sizes(name: str) -> TeacherSizes:
    """What is known of --clip_teacher without torch: all of a CLIP, and the patch that a name of timm's gives away."""
    if timm_names.is_timm(name):
        return TeacherSizes(timm_names.patch_size(name), None, None)
    sizes = spec("clip_teacher", name, "teacher")
    return TeacherSizes(sizes.patch_size, sizes.output_dim, sizes.depth)


def model_spec(config: Config) -> ModelSpec:
    """Sizes of the model that is trained."""
    return spec("model", config.model.model, "student" if isinstance(config, PretrainConfig) else "classifier")


def token_grid(config: Config) -> tuple[int, int, int]:
    """(T', H', W') tokens of a clip; ConfigError where frames or pixels do not divide into tokens."""
    model, data, patch = config.model, config.data, model_spec(config).patch_size
    _check_divides("input_size", model.input_size, patch, f"the patch of {model.model}")
    if data.num_frames % model.tubelet_size:
        nearest = max(data.num_frames // model.tubelet_size, 1) * model.tubelet_size
        raise ConfigError(
            f"--num_frames ({data.num_frames}) must be a multiple of --tubelet_size ({model.tubelet_size}). "
            f"Try --num_frames {nearest}."
        )
    side = model.input_size // patch
    return data.num_frames // model.tubelet_size, side, side


def _check_divides(flag: str, size: int, patch: int, what: str) -> None:
    if size % patch:
        near = [n * patch for n in (size // patch, size // patch + 1) if n]
        raise ConfigError(
            f"--{flag} ({size}) must be a multiple of {patch}, {what}. Try --{flag} {' or '.join(map(str, near))}."
        )


def _check_student_and_teacher(config: PretrainConfig) -> None:
    model, asked = config.model, config.teacher
    student, teacher = model_spec(config), teacher_sizes(asked.clip_teacher)
    grid = token_grid(config)
    resolution = asked.clip_input_resolution
    if teacher.patch is not None:
        _check_divides("clip_input_resolution", resolution, teacher.patch, f"the patch of {asked.clip_teacher}")
        side = resolution // teacher.patch
        if side != grid[1]:
            raise ConfigError(
                f"--clip_input_resolution ({resolution}) gives {asked.clip_teacher} {side} x {side} tokens a frame, "
                f"but --input_size ({model.input_size}) gives the student {grid[1]} x {grid[2]}. "
                f"Try --clip_input_resolution {grid[1] * teacher.patch}."
            )
    if model.tubelet_size != 1:
        raise ConfigError(
            f"--tubelet_size ({model.tubelet_size}) must be 1: the image teacher has tokens for every frame. "
            f"Try --tubelet_size 1."
        )
    for flag, value, width, whose in (
        ("clip_decoder_embed_dim", model.clip_decoder_embed_dim, student.width, f"the width of {model.model}"),
        ("clip_output_dim", model.clip_output_dim, teacher.output, f"the output of {asked.clip_teacher}"),
    ):
        if None not in (value, width) and value != width:
            raise ConfigError(f"--{flag} ({value}) must be {width}, {whose}. Leave it out or give --{flag} {width}.")
    for flag, interval, depth in (
        ("clip_student_return_interval", model.clip_student_return_interval, student.depth),
        ("clip_return_interval", asked.clip_return_interval, teacher.depth),
    ):
        reach = int((asked.clip_return_layer - 1) * interval) + 1
        if depth is not None and reach > depth:
            raise ConfigError(
                f"--clip_return_layer ({asked.clip_return_layer}) with --{flag} ({interval:g}) reaches {reach} "
                f"blocks back, but there are {depth}. Try --clip_return_layer {int((depth - 1) / interval) + 1}."
            )


def _check_pretraining_frames(config: PretrainConfig) -> None:
    data = config.data
    if data.num_segments not in (1, data.num_frames):
        raise ConfigError(
            f"--num_segments ({data.num_segments}) must be 1 (a dense clip) or equal --num_frames ({data.num_frames}), "
            f"one frame from each segment. Try --num_segments {data.num_frames}."
        )


def _check_classifier(config: FinetuneConfig) -> None:
    token_grid(config)
    heads = model_spec(config)
    if config.model.checkpoint_num > heads.depth:
        raise ConfigError(
            f"--checkpoint_num ({config.model.checkpoint_num}) exceeds the {heads.depth} blocks of "
            f"{config.model.model}. Try --checkpoint_num {heads.depth}."
        )


def _check_mixing(config: FinetuneConfig) -> None:
    augment, clips = config.augment, config.optim.batch_size * config.data.num_sample
    mixes = augment.mixup > 0 or augment.cutmix > 0 or augment.cutmix_minmax is not None
    if mixes and clips % 2:
        raise ConfigError(
            f"--batch_size ({config.optim.batch_size}) x --num_sample ({config.data.num_sample}) must be even "
            f"for mixup and cutmix. Try --batch_size {config.optim.batch_size + 1}, or --mixup 0 --cutmix 0."
        )
    if augment.crop_scale[0] > augment.crop_scale[1]:
        least, most = augment.crop_scale
        raise ConfigError(f"--crop_scale ({least:g} {most:g}) must be ascending. Try --crop_scale {most:g} {least:g}.")
    if augment.cutmix_minmax is not None and augment.cutmix_minmax[0] > augment.cutmix_minmax[1]:
        least, most = augment.cutmix_minmax
        raise ConfigError(
            f"--cutmix_minmax ({least:g} {most:g}) must be ascending. Try --cutmix_minmax {most:g} {least:g}."
        )


def _check_testing(config: FinetuneConfig) -> None:
    evaluation, side = config.evaluation, config.augment.short_side_size
    if evaluation.test_best and evaluation.disable_eval_during_finetuning:
        raise ConfigError(
            "--test_best needs the validation that --disable_eval_during_finetuning turns off. Leave out one of them."
        )
    # A test crop is a square of the short side, so the model would get another size than it was built for.
    if side is not None and side != config.model.input_size:
        raise ConfigError(
            f"--short_side_size ({side}) must equal --input_size ({config.model.input_size}), the side that the model "
            f"takes. Try --short_side_size {config.model.input_size}."
        )


def _check_data_set(config: Config) -> None:
    facts = catalog.get(config.data.data_set)
    if isinstance(config, FinetuneConfig) and facts.classes not in (None, config.data.nb_classes):
        raise ConfigError(
            f"--nb_classes ({config.data.nb_classes}) must be {facts.classes} for --data_set {config.data.data_set}. "
            f"Try --nb_classes {facts.classes}."
        )
    if isinstance(config, FinetuneConfig):
        _check_own_classes(config)
    found = lists.sources(config.data)
    if not all(source.separator for source in found):
        raise ConfigError("--split () must be the character between the columns of the lists. Try --split ','.")
    if config.data.shard_shuffle and not config.data.cache_dir and any(is_url(source.prefix) for source in found):
        raise ConfigError(
            f"--shard_shuffle ({config.data.shard_shuffle}) reads remote shards as a whole and needs a place for them. "
            "Add --cache_dir, or leave it out."
        )


def _check_own_classes(config: FinetuneConfig) -> None:
    data, model = config.data, config.model
    if data.multi_label and catalog.get(data.data_set).lists == "folders":
        raise ConfigError(
            f"--multi_label needs lists, `path,3|17`: in --data_set {data.data_set} a video is in one folder. Leave it "
            "out, or write train.csv."
        )
    if data.class_weights not in CLASS_WEIGHTS and not os.path.isfile(data.class_weights):
        raise ConfigError(
            f"--class_weights ({data.class_weights}) is neither a file of lines `class,weight` nor one of "
            f"{', '.join(CLASS_WEIGHTS)}. Try --class_weights balanced."
        )
    if data.shots is not None and not isinstance(data.data_path, str):
        raise ConfigError(f"--shots ({data.shots}) takes videos of one list. Give one --data_path.")
    depth = model_spec(config).depth
    if model.freeze_blocks > depth:
        raise ConfigError(
            f"--freeze_blocks ({model.freeze_blocks}) exceeds the {depth} blocks of {model.model}. "
            f"Try --freeze_blocks {depth}, which trains the head alone."
        )
    if model.freeze_blocks and not model.finetune:
        log.warning("--freeze_blocks (%d) keeps random weights without --finetune.", model.freeze_blocks)


def _check_schedule(optim: OptimConfig) -> None:
    if optim.warmup_steps <= 0:
        warmup_length(epochs=optim.epochs, per_epoch=1, warmup_epochs=optim.warmup_epochs)
    for flag, value in (("min_lr", optim.min_lr), ("warmup_lr", optim.warmup_lr)):
        if value > optim.lr:
            raise ConfigError(
                f"--{flag} ({value:g}) must not exceed --lr ({optim.lr:g}). Try --{flag} {optim.lr / 100:g}."
            )


def _check_parallel(config: Config) -> None:
    parallel, opt = config.parallel, config.optim.opt
    if parallel.enable_deepspeed and parallel.fsdp:
        raise ConfigError("--enable_deepspeed and --fsdp both say how weights are held. Leave out one of them.")
    if not parallel.enable_deepspeed:
        for flag, value in (("zero_stage", parallel.zero_stage), ("deepspeed_config", parallel.deepspeed_config)):
            if value:
                raise ConfigError(f"--{flag} ({value}) needs --enable_deepspeed. Add it, or leave out --{flag}.")
    elif parallel.zero_stage and opt.lower() not in deepspeed.BY_ELEMENT:
        raise ConfigError(
            f"--opt ({opt}) looks at whole weights, of which ZeRO stage {parallel.zero_stage} gives it parts. "
            f"Use --opt {', '.join(deepspeed.BY_ELEMENT[:-1])} or {deepspeed.BY_ELEMENT[-1]}, or --zero_stage 0."
        )


def check_files(config: Config) -> None:
    """Raises AnnotationError, CheckpointError or OutputError for lists, weights or output that do not serve.

    And ConfigError where DeepSpeed is asked for and cannot run.
    """
    if config.parallel.enable_deepspeed:
        deepspeed.check_installed()
        if config.runtime.device == "cpu":
            deepspeed.check_compiler()
    _check_lists(config)
    weights = {"resume": config.checkpoint.resume}
    if isinstance(config, PretrainConfig):
        weights["clip_teacher_weights"] = config.teacher.clip_teacher_weights
        name = config.teacher.clip_teacher
        if not config.teacher.clip_teacher_weights and not timm_names.is_timm(name):  # timm downloads its own
            raise CheckpointError(
                f"--clip_teacher_weights is missing: {name} would teach from random weights. "
                "Give the file of CLIP's weights, e.g. --clip_teacher_weights data/clip/vit_b16.pth; "
                "umt weights clip makes it."
            )
    else:
        weights["finetune"] = config.model.finetune
        _check_published_size(config)
    for flag, path in weights.items():
        away = flag != "resume" and fetch.is_remote(path)
        if path and not away and not Path(path.split("#sha256=")[0]).exists():
            if near := fetch.hint(path):
                raise CheckpointError(f"--{flag} ({path}) does not exist. {near}")
            variable = {"finetune": "MODEL_PATH", "clip_teacher_weights": "TEACHER_PATH"}.get(flag)
            remedy = f"; the scripts of exp/ take it from {variable}" if variable else ", or leave the flag out"
            raise CheckpointError(f"--{flag} ({path}) does not exist. Check the path{remedy}.")
    if config.checkpoint.output_dir:
        check_writable(config.checkpoint.output_dir)
    else:
        raise OutputError(
            "--output_dir is missing: checkpoints and logs would be lost. Try --output_dir outputs/my_run."
        )


def _check_published_size(config: FinetuneConfig) -> None:
    """A published name says which size it is, before more than a gigabyte of it is fetched."""
    source, name = config.model.finetune, config.model.model
    row = published.find(Path(source.split("#sha256=")[0]).name) if source else None
    if row is None or not fetch.is_remote(source) or SPECS[row.model].width == SPECS[name].width:
        return
    near = row.model if SPECS[row.model].kind == "classifier" else f"vit_{row.model.removeprefix('pretrain_umt_')}"
    raise ConfigError(f"--finetune ({source}) is of another size than --model ({name}). Try --model {near}.")


def _check_lists(config: Config) -> None:
    if not config.data.data_path:
        wanted = (
            "the list file" if isinstance(config, PretrainConfig) else "the folder of train.csv, val.csv and test.csv"
        )
        raise AnnotationError(f"--data_path is missing. Give {wanted}.")
    for source in lists.sources(config.data):
        if not is_url(source.path):  # what a store has is found when it is read
            _check_path(config, source.path)
    if catalog.get(config.data.data_set).lists == "csv" and isinstance(config, FinetuneConfig):
        for path, source in lists.list_files(config):
            if not is_url(path) and not os.path.isfile(path):
                split = os.path.splitext(os.path.basename(path))[0]
                folders = split == "train" and any(entry.is_dir() for entry in Path(source.path).iterdir())
                raise AnnotationError(
                    f"{path} does not exist: --data_path ({source.path}) must hold the {split} list."
                    + (" If its folders are the classes, give --data_set image_folder." if folders else "")
                )
    _check_lines(config)
    if isinstance(config, FinetuneConfig) and config.chosen and not config.evaluation.eval:
        _check_classes(config)
    for source in lists.sources(config.data):
        if source.prefix and not is_url(source.prefix) and not os.path.isdir(source.prefix):
            raise AnnotationError(
                f"--prefix ({source.prefix}) is not a folder. It is joined before the paths of the lists."
            )


def _check_path(config: Config, given: str) -> None:
    folder = Path(given)
    if not folder.exists():
        raise AnnotationError(
            f"--data_path ({given}) does not exist. Check the path; the scripts of exp/ take it from DATA_PATH."
        )
    if isinstance(config, PretrainConfig) and folder.is_dir():
        raise AnnotationError(
            f"--data_path ({given}) is a folder; pretraining takes the list itself. "
            f"Try --data_path {folder / 'train.csv'}."
        )
    if isinstance(config, FinetuneConfig) and not folder.is_dir():
        raise file_for_folder(given)


def _check_lines(config: Config) -> None:
    """Reads the lists before torch is imported, and before a launcher starts processes that would all say the same."""
    from umt.config.reading import read_split  # here, because numpy comes with it
    from umt.data.labels import label_order
    from umt.data.lists.reading import read_list

    data = config.data
    if isinstance(config, PretrainConfig):
        for path, source in lists.list_files(config):
            read_list(path, separator=source.separator, frame_folders=not data.use_decord, labels_optional=True)
        return
    order: dict[str, Any] = {
        "data_set": data.data_set,
        "classes": config.data.nb_classes,
        "flag": config.data.label_order,
    }
    label_order.agreed([label_order.of_list(source.path, **order) for source in lists.sources(data)])
    if catalog.get(data.data_set).lists != "csv":
        return
    read = [(source, read_split(config, split, source)) for split, source in lists.splits(config)]
    label_order.agreed([label_order.of_list(source.path, **order, videos=videos) for source, videos in read])


def _check_classes(config: FinetuneConfig) -> None:
    """One's own videos: that every class has one to learn from."""
    from umt.config.reading import read_split  # here, because numpy comes with them
    from umt.data.lists.own_folder import require_readable

    require_readable(read_split(config, "train", lists.sources(config.data)[0]), config.data.decoder)


def check_writable(folder: str) -> None:
    """Makes the output folder and writes a byte into it. Raises OutputError when either fails."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
            probe.flush()
    except OSError as error:
        raise OutputError(
            f"--output_dir ({folder}) cannot be written: {error.strerror or error}. "
            "Give another folder with --output_dir."
        ) from error
