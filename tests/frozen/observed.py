"""What a user sees of the library: command line, dry runs and files, in a form that can be compared and stored.

Everything goes through the command line. Only `umt.__main__.run` and `umt.models.create_model` are imported, so that
modules may move without a change here.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.end_to_end.conftest import environment
from tests.recipes.conftest import GOLDEN, ROOT, SCRIPTS, run_script
from umt.__main__ import run
from umt.models import create_model

FROZEN = GOLDEN / "frozen"
VIDEOS = FROZEN / "videos"

# ---- dry runs


def dry_run(script: str, gpus: int | None = None) -> list[str]:
    """The lines of `bash exp/<script>.sh --dry_run`, by default on the GPUs that its recipe was made for."""
    recipe_gpus = re.search(r"--recipe_gpus (\d+)", SCRIPTS[script].read_text(encoding="utf-8"))
    assert recipe_gpus is not None
    # Lists and weights of this machine must not be found: their sizes would be printed.
    done = run_script(
        script, "--dry_run", GPUS=str(gpus or recipe_gpus[1]), PYTHON=sys.executable,
        DATA_ROOT="/nowhere/data", OUTPUT_ROOT="/nowhere/outputs",
    )  # fmt: skip
    assert (done.returncode, done.errors) == (0, "")
    text = done.output.replace(sys.executable, "python")
    return re.sub(r"\d+ loader processes", "N loader processes", text).splitlines()  # as many as there are cores


def dry_runs() -> dict[str, list[str]]:
    """Dry runs of all scripts, and of one script per task on one GPU, where a note says how the batch differs."""
    single = {f"{script} on 1 GPU": dry_run(script, gpus=1) for script in ONE_SCRIPT_PER_TASK}
    return {**{script: dry_run(script) for script in SCRIPTS}, **single}


ONE_SCRIPT_PER_TASK = ("pretraining/b16_ptk710_f8_res224", "finetuning/k400/b16_ptk710_ftk710_ftk400_f8_res224")

# ---- flags

COMMANDS = (
    *("pretrain", "finetune", "test", "plan", "doctor", "predict", "extract", "probe", "visualize", "ensemble"),
    *("verify", "export", "weights clip"),
    *("data prepare", "data transcode", "data check", "data shard", "data show"),
)
TASKS = COMMANDS[:3]


def printed(*words: str) -> str:
    """What `umt words` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        run(words)
    return output.getvalue()


def commands(*words: str) -> list[str]:
    """Names of the commands that `umt words --help` lists."""
    return sorted(set(re.findall(r"^  umt ([a-z]\w*(?: [a-z]\w*)*)", printed(*words, "--help"), re.MULTILINE)))


def flag_table(command: str) -> dict[str, str]:
    """Flags and positional arguments in the help of a command -> what they take, and `= default` if it is a value.

    Choices read `a|b` and several values `X ...`, however the help writes them. Prose is left out, and so is a default
    that words describe.
    """
    text = printed(*command.split(), "--help")
    positional = re.search(r"^positional arguments:\n((?: .*\n)+)", text, re.MULTILINE)
    table = {}
    # Two spaces, a head, and the help behind two more spaces or on the next lines, which stand further in.
    for match in re.finditer(r"^  (\S.*?)(?:  +(.*))?$((?:\n {4,}\S.*)*)", text, re.MULTILINE):
        head, default = match[1], _default(f"{match[2]} {match[3]}")
        if head.startswith("-"):
            flag = re.fullmatch(r"((?:-[\w-]+, )*-[\w-]+)(?: (.*))?", head)
            assert flag is not None, head
            table[flag[1]] = " ".join(filter(None, [_takes(flag[2] or ""), default and f"= {default}"]))
        elif positional and positional.start() < match.start() < positional.end():
            table[head] = "positional"
    if command in TASKS:
        last_paragraph = text.rstrip().rpartition("\n\n")[2]
        table |= dict.fromkeys(re.findall(r"--[\w-]+", last_paragraph), "without effect")
    return table


def _takes(metavar: str) -> str:
    metavar = re.sub(r"(\S+) \[\1 \.\.\.\]", r"\1 ...", metavar)
    return re.sub(r"[{[](\w+(?:[,|][\w-]+)+)[]}]", lambda choices: choices[1].replace(",", "|"), metavar)


def _default(text: str) -> str | None:
    """The value of `(default: 5)`, `default: none` or `(5)`."""
    text = " ".join(text.split())
    value = re.search(r"default:? ('.*?'|\([^)]*\)|[^;,)]+)", text) or re.search(
        r"\((-?\d[\d.e-]*)[);]|\(([a-z]+\d*)\)$", text
    )
    if value is None or value[0] == "(default)":
        return None
    words = (value[1] or value[2]).strip()
    return words if " " not in words or re.fullmatch(r"'.*'|\(.*\)|[\d. ]+", words) else None


# ---- files

PRETRAIN = (
    "pretrain", "--model", "pretrain_umt_tiny_patch8_64", "--clip_teacher", "clip_tiny_patch8_64",
    "--clip_teacher_weights", "teacher.pth", "--clip_input_resolution", "64", "--clip_return_layer", "2",
    "--mask_ratio", "0.8", "--data_path", "videos/train.csv",
)  # fmt: skip
FINETUNE = (
    "finetune", "--model", "vit_tiny_patch8_64", "--data_set", "Kinetics_sparse", "--nb_classes", "4",
    "--data_path", "videos", "--num_sample", "2", "--model_ema", "--model_ema_decay", "0.9", "--init_scale", "1",
    "--test_num_segment", "2", "--test_num_crop", "3",
)  # fmt: skip
# Two steps of one thread in fp32, at a learning rate at which they count: 0.001 for finetuning's 4 clips a step.
SMALL = (
    "--input_size", "64", "--num_frames", "8", "--tubelet_size", "1", "--prefix", "videos", "--split", ",",
    "--decoder", "pyav", "--batch_size", "2", "--epochs", "1", "--warmup_epochs", "0", "--lr", "0.064",
    "--drop_path", "0.1", "--seed", "0", "--num_workers", "0", "--threads", "1", "--device", "cpu",
    "--precision", "fp32", "--output_dir", "out",
)  # fmt: skip


def make_run(flags: tuple[str, ...], folder: Path, code: int = 0) -> Path:
    """Runs `umt flags` on the stored videos, in `folder`, to the exit code `code`; the folder of its output."""
    shutil.copytree(VIDEOS, folder / "videos")
    torch.manual_seed(0)
    torch.save(create_model("clip_tiny_patch8_64").state_dict(), folder / "teacher.pth")
    done = subprocess.run(
        [sys.executable, "-m", "umt", *flags, *SMALL],
        cwd=folder, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return folder / "out"


def pretraining(folder: Path) -> Path:
    """The output of a whole pretraining."""
    return make_run(PRETRAIN, folder)


def finetuning(folder: Path) -> Path:
    """The output of a whole finetuning with its test."""
    return make_run(FINETUNE, folder)


def stopped_pretraining(folder: Path) -> Path:
    """The output of a pretraining that has reached its time limit within an epoch, after the first step."""
    return make_run((*PRETRAIN, "--max_hours", "1e-6"), folder, code=75)


def files(output: Path) -> dict[str, Any]:
    """Names of the files of a run, and the structure of those that others read."""
    read = {
        "names": sorted(re.sub(r"(?<=tfevents\.).*", "*", path.name) for path in output.iterdir()),
        "config.json": structure(json.loads((output / "config.json").read_text())),
        **{path.name: structure(_checkpoint(path)) for path in sorted(output.glob("*.pth"))},
    }
    if (output / "log.txt").exists():
        read["log.txt"] = [structure(json.loads(line)) for line in (output / "log.txt").read_text().splitlines()]
    if (output / "test.json").exists():
        read["test.json"] = structure(json.loads((output / "test.json").read_text()))
    return read


# How torch computes a step; which of them there are differs between its versions.
_SWITCHES_OF_TORCH = (
    *("amsgrad", "capturable", "decoupled_weight_decay", "differentiable", "foreach", "fused", "maximize"),
)


def _checkpoint(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    for group in content["optimizer"]["param_groups"]:
        for name in _SWITCHES_OF_TORCH:
            group.pop(name, None)
    return content


def structure(value: Any) -> Any:
    """Keys and types without values: a list becomes the different structures of its entries, a tensor its shape."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, dict) and value and all(isinstance(key, int) for key in value):
        return {"by number": structure(list(value.values()))}
    if isinstance(value, dict):
        return {key: structure(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        entries = [structure(entry) for entry in value]
        return [entry for i, entry in enumerate(entries) if entry not in entries[:i]]
    return type(value).__name__


def scores(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of a score file, and what its `meta` says, without the digest of the weights: it changes with a bit."""
    with np.load(path) as content:
        arrays = {name: content[name] for name in content.files}
    meta = json.loads(arrays.pop("meta").tobytes())
    assert re.fullmatch(r"[0-9a-f]{64}", meta["provenance"].pop("weights_digest"))
    return arrays, meta


def golden(name: str) -> Any:
    """What tests/frozen/record.py stored under a name."""
    return json.loads((FROZEN / name).read_text(encoding="utf-8"))
