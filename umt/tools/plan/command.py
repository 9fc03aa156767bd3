"""`umt plan`: its command line, and how an experiment script becomes a run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from umt.config.cli import parse
from umt.config.schema import CONFIGS, Config
from umt.errors import ConfigError
from umt.flags.command_line import COUNT, Number, Parser
from umt.spelling import did_you_mean
from umt.tools.plan.hardware import find_gpu

MARK = "UMT_FLAGS "


def _parser() -> Parser:
    parser = Parser(
        "umt plan",
        "What a run needs, before it is started: parameters, FLOPs, peak memory of a GPU by parts, hours.",
        "umt plan SCRIPT|pretrain|finetune [--gpu NAME] [--gpus N] [--measure] [--utilisation U] [--flag value ...]",
    )
    add = parser.add_argument
    example = "an experiment, e.g. exp/pretraining/l16_ptk710_f8_res224.sh; flags after it win, as in a run"
    add("script", metavar="SCRIPT", help=example)
    add("--gpu", metavar="NAME", help="a GPU of the table (A100-80, H100, ...); default: this machine's")
    add("--gpus", type=COUNT, metavar="N", help="how many; default: as many as the recipe was made for, else 1")
    add("--measure", action="store_true",
        help="time a real step on this machine's GPU, or CPU, instead of modelling its hours")  # fmt: skip
    share = Number(float, above=0, at_most=1, rule="is a share of the peak rate: above 0, at most 1")
    add("--utilisation", type=share, metavar="U",
        help="share of the peak rate that a modelled step reaches (default 0.35; 0.6 in fp32)")  # fmt: skip
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
            f"{' or '.join(CONFIGS)} with flags."
        )
    if {"-h", "--help"} & set(argv):
        return _parser().format_help()
    words, flags = _parser().known_words(argv)
    gpu = find_gpu(words.gpu) if words.gpu else None
    if words.measure and gpu is not None:
        raise ConfigError("--measure times this machine, --gpu models another one. Leave out one of them.")
    config = resolve(words.script, flags)

    from umt.tools.plan.report import report  # torch
    from umt.tools.plan.sizing_base import sizing_of

    return report(sizing_of(config), gpu=gpu, gpus=words.gpus, measured=words.measure, utilisation=words.utilisation)


def resolve(experiment: str, flags: Sequence[str]) -> Config:
    """The run of an experiment script, or of the task that `experiment` names, with `flags` after its own."""
    if experiment in CONFIGS:
        return parse(experiment, flags, files=False)
    if not Path(experiment).is_file():
        scripts = {path.stem: str(path) for path in sorted(Path("exp").rglob("*.sh"))}
        hint = did_you_mean(
            Path(experiment).stem, scripts, f"Name a file below exp/, or {' or '.join(CONFIGS)}.", count=3
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
