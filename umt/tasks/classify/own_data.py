"""A finetuning of which nothing is said but the data: every other value is chosen here, by what is found.

Nothing said means: --data_path is one folder of this machine, and there is neither --data_set nor --nb_classes nor
--recipe_gpus; or --data_set auto, which asks for it. A flag that is given always wins. A run that goes on takes what
was chosen for it from its checkpoint, so that data or GPUs that come or go do not change it half-way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umt.data.storage.urls import is_url
from umt.errors import AnnotationError, ConfigError
from umt.flags.flag_groups import Choice
from umt.models.files.peek import Start, peek
from umt.models.specs import SPECS
from umt.tasks.classify import small_data

RANDOM_START = (
    "the model starts from random weights, from which a few thousand videos teach it little. Give --finetune: a file, "
    "a URL, or a name of the published zoo, e.g. --finetune b16_ptk710_ftk710_ftk400_f8_res224 (MODEL_ZOO.md)."
)
AUTO = "auto"
LIST_ENDINGS = (".csv", ".parquet")
LATEST, BEST = "checkpoint-latest.pth", "checkpoint-best.pth"
_SAY_THE_REST = ("data_set", "nb_classes", "recipe_gpus")
# Looked at again whenever a run is started; it keeps the rest of its choices.
_OF_THE_DATA = frozenset(["data_set", "nb_classes", "split", "prefix", "use_decord", "multi_label", "output_dir"])


def asked_for(values: Mapping[str, Any]) -> bool:
    """Whether the flags `values` leave the rest to be chosen. Raises ConfigError, AnnotationError."""
    path = values.get("data_path", "")
    if isinstance(path, str) and path and not is_url(path) and os.path.isfile(path):
        raise file_for_folder(path)
    explicit = values.get("data_set") == AUTO
    if explicit and not (isinstance(path, str) and path and not is_url(path)):
        shown = path if isinstance(path, str) else " ".join(path)
        raise ConfigError(
            f"--data_set auto looks into one folder of this machine, not '{shown}'. Give --data_path DIR."
        )
    if not isinstance(path, str) or not os.path.isdir(path):
        if explicit:
            raise AnnotationError(f"--data_path ({path}) is no folder. --data_set auto looks into one. Check the path.")
        return False
    return explicit or not any(name in values for name in _SAY_THE_REST)


def file_for_folder(path: str) -> AnnotationError:
    """A --data_path of finetuning that is a file."""
    parent = Path(path).parent
    hint = f" Try --data_path {parent}." if any((parent / f"train{end}").is_file() for end in LIST_ENDINGS) else ""
    return AnnotationError(
        f"--data_path ({path}) is a file; finetuning takes the folder of train.csv, val.csv and test.csv, or one of "
        f"class folders.{hint}"
    )


@dataclass
class _Choices:
    """What was given and what is chosen; the former wins."""

    given: dict[str, Any]
    made: list[Choice]

    def get(self, flag: str, default: Any = None) -> Any:
        """The value of `flag`, given or chosen; `default` if it is neither."""
        if flag in self.given:
            return self.given[flag]
        return next((choice.value for choice in self.made if choice.flag == flag), default)

    def choose(self, flag: str, value: Any, why: str) -> None:
        """Sets `flag` unless it was given, or chosen before."""
        if flag not in self.given and all(choice.flag != flag for choice in self.made):
            self.made.append(Choice(flag, value, why))


def complete(values: Mapping[str, Any], *, world_size: int = 1) -> tuple[dict[str, Any], tuple[Choice, ...]]:
    """`values` together with everything that was chosen, and these choices. Raises AnnotationError, ConfigError."""
    from umt.data.lists.own_folder import Columns, FolderContents, look  # here, because numpy comes with it

    given = {name: value for name, value in values.items() if (name, value) != ("data_set", AUTO)}
    choices = _Choices(given, [])
    frame_folders = given.get("use_decord")
    found: FolderContents = look(
        str(given["data_path"]),
        Columns(
            separator=given.get("split"),
            prefix=given.get("prefix"),
            frame_folders=None if frame_folders is None else not frame_folders,
            multi_label=given.get("multi_label"),
        ),
    )
    _choose_data(choices, found)
    testing = bool(given.get("eval"))
    run = _tested_run(given) if testing else None  # its output folder
    named = given.get("resume") or given.get("finetune")
    start = peek(str(named or (run / LATEST if run else "")))
    _choose_model(choices, start, random=not named and not testing)
    name = Path(str(given["data_path"])).resolve().name or "own"
    if given.get("resume"):
        choices.choose("output_dir", str(Path(str(given["resume"])).parent), "the folder of --resume")
    elif run is not None:
        choices.choose("output_dir", str(run), "the run of this data")
    choices.choose("output_dir", f"outputs/{name}-{choices.get('model')}", "data and model")
    if not testing:
        _choose_head(choices, start, found.names, found.classes)
    videos = found.splits["train"]
    if given.get("shots"):
        videos = min(videos, int(given["shots"]) * found.classes)
    task = small_data.Task(
        videos=videos,
        classes=found.classes,
        depth=SPECS[choices.get("model")].depth if choices.get("model") in SPECS else 12,
        random=not given.get("finetune"),
        world_size=world_size,
    )
    _choose_recipe(choices, task, multi_label=bool(choices.get("multi_label")), names=found.names)
    _keep_what_was_chosen(choices)
    chosen = {choice.flag: choice.value for choice in choices.made}
    return {**given, **chosen}, tuple(choices.made)


def _choose_data(choices: _Choices, found: Any) -> None:
    many = ", several labels a video" if found.multi_label else ""
    choices.choose("data_set", found.data_set, "; ".join([found.what + many, *found.notes]))
    empty = [label for label, count in enumerate(found.counts) if not count]
    lacking = f"; {len(empty)} of them have no training video" if empty else ""
    lacking += ": the list seems to count from 1, labels start at 0" if empty == [0] and found.names is None else ""
    choices.choose("nb_classes", found.classes, f"counted{lacking}")
    if found.multi_label:
        choices.choose("multi_label", True, "labels of the training list")
    if found.data_set == "video_list":
        choices.choose("split", found.separator, "what parts the columns of the training list")
        choices.choose("prefix", found.prefix, "where the videos of the list are")
        if found.frame_folders:
            choices.choose("use_decord", False, "the list names folders of frames")


def _choose_model(choices: _Choices, start: Start, *, random: bool) -> None:
    source = f"by {start.source}" if start.source else ""
    if start.model is not None:
        choices.choose("model", start.model, source)
    elif random and not has_gpu(choices.given.get("device", "auto")):
        choices.choose("model", "vit_tiny_patch8_64", "no GPU and no weights: what a CPU can train")
    else:
        why = f"{start.source} does not tell, it is looked at when it is loaded" if start.source else "the common one"
        choices.choose("model", "vit_base_patch16_224", why)
    spec = SPECS.get(choices.get("model"))
    choices.choose("tubelet_size", start.tubelet_size or 1, source if start.tubelet_size else "as published")
    frames = 8 * choices.get("tubelet_size")
    choices.choose(
        "num_frames", start.num_frames or frames, source if start.num_frames else "8 steps in time, as published"
    )
    size = start.input_size or (spec.image_size if spec else 224)
    choices.choose("input_size", size, source if start.input_size else "the model's")


def _choose_head(choices: _Choices, start: Start, names: tuple[str, ...] | None, classes: int) -> None:
    if start.source and start.model is None and not start.head:
        choices.choose("delete_head", True, "what head the weights have is not known before they are loaded")
    if not start.head:
        return
    same = start.names is not None and start.names == names and start.head == classes
    why = "the weights know these classes" if same else f"the {start.head} classes of the weights are others"
    choices.choose("delete_head", not same, why)


def _choose_recipe(
    choices: _Choices, task: small_data.Task, *, multi_label: bool, names: tuple[str, ...] | None
) -> None:
    n, given = f"{task.videos} training videos", choices.given
    start = ", random weights" if task.random else ""
    choices.choose("num_sample", small_data.num_sample(task), n)
    if not {"batch_size", "update_freq", "global_batch_size"} & given.keys():
        batch = small_data.batch(task)
        per_step = batch.batch_size * batch.update_freq * task.world_size
        choices.choose("batch_size", batch.batch_size, f"{per_step} videos a step of {n}")
        choices.choose("update_freq", batch.update_freq, f"{per_step} videos a step of {n}")
    choices.choose("epochs", small_data.epochs(task), n + start)
    choices.choose("warmup_epochs", small_data.warmup_epochs(choices.get("epochs")), "a tenth of the epochs, 5 at most")
    videos_per_step = choices.get("global_batch_size") or (
        choices.get("batch_size", 64) * choices.get("update_freq", 1) * task.world_size
    )
    clips = max(videos_per_step * choices.get("num_sample"), 1)  # numbers below one are refused with the other flags
    choices.choose("lr", small_data.lr(task, clips), f"{clips} clips a step{start}")
    for flag in ("min_lr", "warmup_lr"):
        choices.choose(flag, float(f"{choices.get('lr') / 100:.3g}"), "a hundredth of --lr")
    choices.choose("layer_decay", small_data.layer_decay(task), n + start)
    choices.choose("drop_path", small_data.drop_path(task), n + start)
    pairs = choices.get("num_sample") * choices.get("batch_size", 64) % 2 == 0
    mixes = small_data.mixes(task) and pairs
    why = f"{n} of {task.classes} classes" if pairs else "clips are mixed in pairs, and their number is odd"
    choices.choose("mixup", 0.8 if mixes else 0.0, why)
    choices.choose("cutmix", 1.0 if mixes else 0.0, why)
    if small_data.small_frames(choices.get("input_size", 224)):
        for flag, value in (("aa", "none"), ("crop_scale", (0.5, 1.0)), ("reprob", 0.0)):
            choices.choose(flag, value, "small frames: little of them may be lost")
    if multi_label:
        choices.choose("smoothing", 0.0, "several labels a video")
    sided = [name for name in names or () if {"left", "right", "clockwise"} & set(_words(name))]
    if sided:
        choices.choose("flip", False, f"a mirror image of '{sided[0]}' is another class")
    choices.choose("test_num_segment", 4, "as published")
    choices.choose("test_num_crop", 3, "as published")
    best = Path(str(choices.get("output_dir"))) / BEST
    if best.is_file() if given.get("eval") else not given.get("disable_eval_during_finetuning"):
        choices.choose("test_best", True, "of little data the last epoch is seldom the best")


def _words(name: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in name.lower()).split()


def _tested_run(given: Mapping[str, Any]) -> Path | None:
    """The folder of the run that `umt test` of this data means where no weights are named: the only one that there is.

    Raises ConfigError where there are several.
    """
    if given.get("resume") or given.get("finetune"):
        return None
    if "output_dir" in given:
        return Path(str(given["output_dir"]))
    name = Path(str(given["data_path"])).resolve().name or "own"
    runs = sorted(path.parent for path in Path("outputs").glob(f"{name}-*/{LATEST}"))
    if len(runs) > 1:
        raise ConfigError(f"{' and '.join(map(str, runs[:3]))} are runs of this data. Say which with --output_dir.")
    return runs[0] if runs else None


def _keep_what_was_chosen(choices: _Choices) -> None:
    """A run that goes on keeps its recipe: what its checkpoint has, where nothing else is given."""
    given = choices.given
    if not given.get("auto_resume", True) and not given.get("resume"):
        return
    latest = Path(str(given.get("resume") or Path(str(choices.get("output_dir"))) / LATEST))
    then = peek(str(latest)).config
    if then.get("task") != "finetune":
        return
    for number, choice in enumerate(choices.made):
        if choice.flag in then and choice.flag not in _OF_THE_DATA:
            was = then[choice.flag]
            was = tuple(was) if isinstance(was, list) else was
            choices.made[number] = Choice(choice.flag, was, f"as {latest} has it")


def has_gpu(device: str) -> bool:
    """Whether a run on `device` would find a GPU of NVIDIA or AMD, by what the system shows without torch."""
    if device != "auto":
        return device == "cuda"
    seen = any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd"))
    return seen and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
