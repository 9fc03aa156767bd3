"""`umt plan`: its command line, and how an experiment script becomes a run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from umt.errors import ConfigError
from umt.flags.command_line import COUNT, Number, Parser
from umt.run.command_line import parse
from umt.spelling import did_you_mean
from umt.tasks.base import TASKS, Recipe
from umt.tools.plan.hardware import find_gpu

USAGE = """umt plan SCRIPT|pretrain|finetune [--gpu NAME] [--gpus N] [--measure] [--utilisation U] [--flag value ...]

What a run needs, before it is started: parameters, FLOPs, peak memory of a GPU by parts, hours.

  SCRIPT             an experiment, e.g. exp/pretraining/l16_ptk710_f8_res224.sh; flags after it win, as in a run
  --gpu NAME         a GPU of the table (A100-80, H100, ...); default: this machine's
  --gpus N           how many; default: as many as the recipe was made for, else 1
  --measure          time a real step on this machine's GPU, or CPU, instead of modelling its hours
  --utilisation U    share of the peak rate that a modelled step reaches (default 0.35; 0.6 in fp32)"""
MARK = "UMT_FLAGS "


def _parser() -> Parser:
    parser = Parser("umt plan", "")
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument("--gpu")
    parser.add_argument("--gpus", type=COUNT)
    parser.add_argument("--measure", action="store_true")
    share = Number(float, above=0, at_most=1, rule="is a share of the peak rate: above 0, at most 1")
    parser.add_argument("--utilisation", type=share)
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs `umt plan ARGV`; returns its exit code. Raises ConfigError for what the caller can mend."""
    print(plan_command(argv))
    return 0


def plan_command(argv: Sequence[str]) -> str:
    """What `umt plan ARGV` prints. Raises ConfigError for a script, GPU or flag that does not exist."""
    if not argv:
        raise ConfigError(
            "umt plan takes an experiment, e.g. umt plan exp/pretraining/l16_ptk710_f8_res224.sh --gpu A100-80, or "
            f"{' or '.join(TASKS)} with flags."
        )
    if {"-h", "--help"} & set(argv):
        return USAGE
    words, flags = _parser().known_words(argv)
    gpu = find_gpu(words.gpu) if words.gpu else None
    if words.measure and gpu is not None:
        raise ConfigError("--measure times this machine, --gpu models another one. Leave out one of them.")
    config = resolve(words.script, flags)

    from umt.tasks.base.sizing import sizing_of
    from umt.tools.plan.report import report  # torch

    return report(sizing_of(config), gpu=gpu, gpus=words.gpus, measured=words.measure, utilisation=words.utilisation)


def resolve(experiment: str, flags: Sequence[str]) -> Recipe:
    """The run of an experiment script, or of the task that `experiment` names, with `flags` after its own."""
    if experiment in TASKS:
        return parse(experiment, flags, files=False)
    if not Path(experiment).is_file():
        scripts = {path.stem: str(path) for path in sorted(Path("exp").rglob("*.sh"))}
        hint = did_you_mean(
            Path(experiment).stem, scripts, f"Name a file below exp/, or {' or '.join(TASKS)}.", count=3
        )
        raise ConfigError(f"umt plan: there is no script {experiment}. {hint}")
    environ = {k: v for k, v in os.environ.items() if k not in ("SUBMIT", "PARTITION", "GPUS", "NODES")}
    command = ["bash", experiment, *flags, "--dry_run"]
    done = subprocess.run(
        command, env={**environ, "UMT_PRINT_FLAGS": "1", "GPUS": "1"}, capture_output=True, text=True, check=False
    )
    marked = [line[len(MARK) :] for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not marked:
        errors = done.stderr.strip().splitlines()
        raise ConfigError(
            f"umt plan: {shlex.join(command)} prints no flags"
            + (f": {errors[-1]}" if errors else ". Is it an experiment that calls launch?")
        )
    task, *words = json.loads(marked[-1])
    return parse(task, [*words, "--dry_run", "False"], files=False)
