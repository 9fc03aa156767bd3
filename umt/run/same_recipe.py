"""Whether a checkpoint belongs to the run that finds it: what may change between two starts of one run, and what not.

A run that is started again goes on from its own checkpoint without being asked. So it must not take up another
recipe's, left in the same folder, unless a person names that file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from umt.config.schema import CONFIGS, groups
from umt.errors import CheckpointError

# Where things lie, how fast they are read and computed, what is tested and written: not what is learnt.
_FREE_GROUPS = ("evaluation", "checkpoint", "parallel", "runtime")
_FREE_FLAGS = frozenset(
    [
        "finetune",
        "clip_teacher_weights",
        "model_key",
        "model_prefix",
        "delete_head",
        "init_scale",
        "use_checkpoint",
        "checkpoint_num",
        "data_path",
        "prefix",
        "split",
        "cache_dir",
        "cache_size_gb",
        "use_decord",
        "decoder",
        "decode_timeout",
        "max_failures",
        "num_workers",
        "pin_mem",
        "label_order",  # the names that it stands for are compared
        "head_label_order",
    ]
)
# What people change in a run on purpose, to go on longer, on other machines, or past a loss that is no number.
_SAID_FLAGS = frozenset(
    [
        "epochs",
        "warmup_epochs",
        "warmup_steps",
        "batch_size",
        "global_batch_size",
        "update_freq",
        "recipe_gpus",
        "recipe_batch",
        "clip_grad",
        "model_ema",
        "model_ema_decay",
    ]
)


def changes(task: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(flags that make another recipe, flags whose change is only said), as `--name then -> now`.

    Args:
        task: what is run now.
        then: flags by name, as a checkpoint has them; a flag that it does not know is no change.
        now: the same of this run.
    """
    if then.get("task", task) != task:
        return [f"task {then['task']} -> {task}"], []
    refused: list[str] = []
    said: list[str] = []
    for name, group in groups(CONFIGS[task]).items():
        if name in _FREE_GROUPS:
            continue
        for flag in (f.name for f in dataclasses.fields(group)):
            if flag in _FREE_FLAGS or flag not in then or flag not in now or _plain(then[flag]) == _plain(now[flag]):
                continue
            change = f"--{flag} {_shown(then[flag])} -> {_shown(now[flag])}"
            (said if flag in _SAID_FLAGS else refused).append(change)
    return refused, said


def require_same(path: str, task: str, then: Mapping[str, Any], now: Mapping[str, Any], *, named: bool) -> list[str]:
    """What changed since the checkpoint `path` was made and may change; `named`: a person asked for this file.

    Raises:
        CheckpointError: it is another recipe's and nobody asked for it, or another task's.
    """
    refused, said = changes(task, then, now)
    other_task = then.get("task", task) != task
    if refused and (other_task or not named):
        more = f" and {len(refused) - 4} more" if len(refused) > 4 else ""
        go_on = "" if other_task else f", or --resume {path} to go on from it all the same"
        raise CheckpointError(
            f"{path} is of another recipe ({', '.join(refused[:4])}{more}), so this run does not go on from it. "
            f"Give another --output_dir, or --no_auto_resume to start anew in this one{go_on}."
        )
    return refused + said


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
