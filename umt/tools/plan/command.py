"""`umt plan`: the words of its command line, and what it prints."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from umt.config.cli import parse
from umt.config.plan import Plan, plan
from umt.config.schema import Config, FinetuneConfig
from umt.errors import ConfigError
from umt.spelling import did_you_mean
from umt.tools.plan.hardware import Gpu, find_gpu, recognise

if TYPE_CHECKING:
    from umt.tools.plan.measure import Measured

USAGE = """umt plan SCRIPT|pretrain|finetune [--gpu NAME] [--gpus N] [--measure] [--utilisation U] [--flag value ...]

What a run needs, before it is started: parameters, FLOPs, peak memory of a GPU by parts, hours.

  SCRIPT             an experiment, e.g. exp/pretraining/l16_ptk710_f8_res224.sh; flags after it win, as in a run
  --gpu NAME         a GPU of the table (A100-80, H100, ...); default: this machine's
  --gpus N           how many; default: the recipe's own number, else 1
  --measure          time a real step on this machine's GPU, or CPU, instead of modelling its hours
  --utilisation U    share of the peak rate that a modelled step reaches (default 0.35; 0.6 in fp32)"""
MARK = "UMT_FLAGS "


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"umt plan: {message}. See umt plan --help.")


def plan_command(argv: Sequence[str]) -> str:
    """What `umt plan ARGV` prints. Raises ConfigError for a script, GPU or flag that does not exist."""
    if not argv:
        raise ConfigError(
            "umt plan wants an experiment, e.g. umt plan exp/pretraining/l16_ptk710_f8_res224.sh --gpu A100-80, or "
            "pretrain or finetune and their flags."
        )
    if {"-h", "--help"} & set(argv):
        return USAGE
    words = _Parser(prog="umt plan", add_help=False, allow_abbrev=False)
    words.add_argument("--gpu")
    words.add_argument("--gpus", type=int)
    words.add_argument("--measure", action="store_true")
    words.add_argument("--utilisation", type=float)
    own, rest = words.parse_known_args(argv[1:])
    gpu = find_gpu(own.gpu) if own.gpu else None
    if own.gpus is not None and own.gpus < 1:
        raise ConfigError(f"--gpus ({own.gpus}) must be at least 1.")
    if own.utilisation is not None and not 0 < own.utilisation <= 1:
        raise ConfigError(f"--utilisation ({own.utilisation:g}) is a share of the peak rate: above 0, at most 1.")
    if own.measure and gpu is not None:
        raise ConfigError("--measure times this machine, --gpu models another one. Leave one of them out.")
    config = resolve(argv[0], rest)
    return report(config, gpu=gpu, gpus=own.gpus, measured=own.measure, utilisation=own.utilisation)


def resolve(what: str, flags: Sequence[str]) -> Config:
    """The run of an experiment script, or of the task that `what` names, with `flags` after its own."""
    if what in ("pretrain", "finetune"):
        return parse(what, flags, files=False)
    if not Path(what).is_file():
        scripts = {path.stem: str(path) for path in sorted(Path("exp").rglob("*.sh"))}
        hint = did_you_mean(Path(what).stem, scripts, "Name a file below exp/, or pretrain or finetune.", count=3)
        raise ConfigError(f"umt plan: {what} is no script. {hint}")
    environ = {k: v for k, v in os.environ.items() if k not in ("SUBMIT", "PARTITION", "GPUS", "NODES")}
    done = subprocess.run(
        ["bash", what, *flags, "--dry_run"],
        env={**environ, "UMT_PRINT_FLAGS": "1", "GPUS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    marked = [line[len(MARK) :] for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not marked:
        told = done.stderr.strip().splitlines()
        raise ConfigError(
            f"umt plan: {shlex.join(['bash', what, *flags, '--dry_run'])} gives no flags"
            + (f": {told[-1]}" if told else ". Is it an experiment that calls launch?")
        )
    task, *words = json.loads(marked[-1])
    return parse(task, [*words, "--dry_run", "False"], files=False)


def here() -> Gpu | None:
    """This machine's first GPU; None without one. One that the table lacks has no rate."""
    import torch

    if not torch.cuda.is_available():
        return None
    facts = torch.cuda.get_device_properties(0)
    memory = facts.total_memory / 2**30
    unknown = Gpu(facts.name, memory, 0.0 if facts.major >= 8 else None, 0.0, 0.0)
    return recognise(facts.name, memory) or unknown


def report(
    config: Config, *, gpu: Gpu | None, gpus: int | None, measured: bool = False, utilisation: float | None = None
) -> str:
    """The text of `umt plan`. `gpu` None: this machine's, else its CPU."""
    from umt.tools.plan.measure import measure
    from umt.tools.plan.memory import FLAGS, GIB, STRATEGIES, parts
    from umt.tools.plan.trace import depth, recomputing, trace

    gpu = gpu or here()
    recipe = config.optim.recipe_gpus
    count = gpus or recipe or 1
    said = "--gpus" if gpus else "the recipe's" if recipe else "default"
    made = plan(config, world_size=count)
    precision = _precision(config, gpu)
    averaged = isinstance(config, FinetuneConfig) and config.model.model_ema
    blocks, all_blocks = config.model.checkpoint_num if config.model.use_checkpoint else 0, depth(config)
    wanted = sorted({0, blocks, all_blocks})
    steps = {n: trace(recomputing(config, n), precision=precision, gpu=gpu is not None) for n in wanted}
    step = steps[blocks]
    clips, per = made.clips_per_step, config.optim.batch_size * config.data.num_sample

    where = f"{count} x {gpu.name} ({said}), {gpu.memory:.1f} GiB each" if gpu else f"{count} process(es) on this CPU"
    lines = [
        f"umt plan: {config.model.model}, {precision}, on {where}",
        f"  parameters  {step.trained / 1e6:.1f} M trained"
        + (f", {step.teacher / 1e6:.1f} M of the frozen teacher" if step.teacher else ""),
        f"  batch       {count} x {config.optim.batch_size} videos x {config.data.num_sample} copies x "
        f"{made.accumulation} accumulated = {clips} clips a step; {per} clips a GPU at once",
        f"  FLOPs       {step.flops * count * made.accumulation / 1e12:.1f} T a step over all GPUs, "
        f"{step.flops / step.clips / 1e9:.0f} G a clip"
        + (f" (+{100 * (step.flops / steps[0].flops - 1):.0f} % for recomputing {blocks} blocks)" if blocks else ""),
        "",
        f"Peak memory of one {'GPU' if gpu else 'process'} in GiB (traced from the code for DDP, modelled from the "
        "trace for the others):",
        f"  {'':<38}{'recompute':>10}{'weights':>9}{'grads':>7}{'optim':>7}{'EMA':>6}{'teacher':>9}{'activ.':>8}"
        f"{'CUDA':>6}{'total':>8}",
    ]
    for strategy in STRATEGIES if count > 1 else ("ddp",):
        for n in wanted:
            part = parts(
                steps[n], strategy, gpus=count, precision=precision, accumulation=made.accumulation, ema=averaged,
                overhead=gpu is not None,
            )  # fmt: skip
            numbers = [v / GIB for v in vars(part).values()]
            fits = "" if gpu is None else "  fits" if part.total <= gpu.memory * GIB else "  too large"
            mark = "*" if n == blocks and strategy == _strategy(config) else " "
            lines.append(
                f"{mark} {FLAGS[strategy] if strategy != 'ddp' else 'DDP' if count > 1 else 'alone':<38}{n:>10}"
                f"{numbers[0]:>9.2f}{numbers[1]:>7.2f}{numbers[2]:>7.2f}{numbers[3]:>6.2f}{numbers[4]:>9.2f}"
                f"{numbers[5]:>8.2f}{numbers[6]:>6.2f}{sum(numbers):>8.2f}{fits}"
            )
    lines += ["  * the run as its flags say; recompute: blocks, --use_checkpoint --checkpoint_num N", ""]
    lines += _hours(config, made, step.flops / step.clips, gpu, precision, count, utilisation,
                    measure(config) if measured else None)  # fmt: skip
    return "\n".join(lines)


def _strategy(config: Config) -> str:
    parallel = config.parallel
    if parallel.enable_deepspeed and parallel.zero_stage:
        return f"zero{parallel.zero_stage}"
    return "fsdp" if parallel.fsdp else "ddp"


def _precision(config: Config, gpu: Gpu | None) -> str:
    if gpu is not None:
        return gpu.precision(config.runtime.precision)
    import torch

    from umt.engine.runtime import choose_precision

    return choose_precision(config.runtime.precision, torch.device("cpu"))


def _hours(
    config: Config,
    made: Plan,
    flops: float,
    gpu: Gpu | None,
    precision: str,
    count: int,
    utilisation: float | None,
    measured: Measured | None,
) -> list[str]:
    """Lines about the time; `flops` are of one clip."""
    if measured is not None:
        seconds = measured.seconds / measured.clips * made.clips_per_step / count
        rate = flops * measured.clips / measured.seconds
        how = (
            f"measured: {measured.seconds:.3f} s for {measured.clips} clips on {measured.device} = {rate / 1e12:.2f} "
            f"TFLOP/s with {precision}; scaled to the batch, communication not counted"
        )
        if measured.peak_bytes is not None:
            how += f"; peak of CUDA's allocator {measured.peak_bytes / 2**30:.2f} GiB"
    elif gpu is None:
        return ["Hours: this machine has no GPU; name one with --gpu, or time this CPU with --measure."]
    elif not gpu.rate(precision):
        return [f"Hours: the rate of {gpu.name} is not in the table; time a step with --measure."]
    else:
        share = utilisation or (0.6 if precision == "fp32" else 0.35)
        seconds = flops * made.clips_per_step / count / (gpu.rate(precision) * share)
        how = (
            f"modelled: {share:.0%} of the {gpu.rate(precision) / 1e12:g} TFLOP/s that the data sheet gives for "
            f"{precision}, an assumption (--utilisation)"
        )
    if made.total_steps is None:
        return [f"Hours: {seconds:.3g} s a step; the number of steps is unknown until the list is there.", f"  {how}."]
    hours = seconds * made.total_steps / 3600
    return [
        f"Hours: {hours:.3g} for {config.optim.epochs} epochs = {made.total_steps} steps of {seconds:.3g} s, "
        f"{hours * count:.4g} GPU hours; reading videos, validation and test not counted.",
        f"  {how}.",
    ]


def replaced(config: Config, **optim: object) -> Config:
    """`config` with other values of its batch."""
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, **optim))  # type: ignore[arg-type]
