"""What `umt plan` prints of a run: parameters, batch, FLOPs, a table of memory, hours."""

from __future__ import annotations

import torch

from umt.engine.runtime import choose_precision
from umt.run.plan import plan
from umt.tasks.base.sizing import Sizing
from umt.tools.plan.hardware import Gpu, recognise
from umt.tools.plan.measure import measure
from umt.tools.plan.memory import FLAGS, GIB, STRATEGIES, parts, strategy_of
from umt.tools.plan.trace import Step, trace


def this_gpu() -> Gpu | None:
    """This machine's first GPU; None without one. The rate of a GPU that the table lacks is 0."""
    if not torch.cuda.is_available():
        return None
    facts = torch.cuda.get_device_properties(0)
    memory = facts.total_memory / GIB
    unknown = Gpu(facts.name, memory, 0.0 if facts.major >= 8 else None, 0.0, 0.0)
    return recognise(facts.name, memory) or unknown


def report(
    sizing: Sizing, *, gpu: Gpu | None, gpus: int | None, measured: bool = False, utilisation: float | None = None
) -> str:
    """The text of `umt plan`. `gpu` None: this machine's, else its CPU; `gpus` None: the recipe's number, else one.

    `measured`: a step is timed instead of modelled.
    """
    optim, asked = sizing.recipe.optim, sizing.recipe.runtime.precision
    gpu = gpu or this_gpu()
    precision = gpu.precision(asked) if gpu else choose_precision(asked, torch.device("cpu"))
    count = gpus or optim.recipe_gpus or 1
    source = "--gpus" if gpus else "the recipe's" if optim.recipe_gpus else "default"
    derived, recomputed = plan(sizing.recipe, world_size=count), sizing.recomputed()
    steps = {
        blocks: trace(sizing.recomputing(blocks), precision=precision, gpu=gpu is not None)
        for blocks in sorted({0, recomputed, sizing.blocks()})
    }
    step, accumulation, clips = steps[recomputed], derived.accumulation, derived.clips_per_step
    flops = step.flops / step.clips
    where = f"{count} x {gpu.name} ({source}), {gpu.memory:.1f} GiB each" if gpu else f"{count} process(es) on this CPU"
    teacher = f", {step.teacher / 1e6:.1f} M of the frozen teacher" if step.teacher else ""
    more = f" (+{100 * (step.flops / steps[0].flops - 1):.0f} % for recomputing {recomputed} blocks)"
    seconds, how = _seconds(sizing, flops, gpu, precision, measured, utilisation)
    lines = [
        f"umt plan: {sizing.title()}, {precision}, on {where}",
        f"  parameters  {step.trained / 1e6:.1f} M trained{teacher}",
        f"  batch       {count} x {optim.batch_size} videos x {sizing.copies()} copies x {accumulation} accumulated = "
        f"{clips} clips a step; {sizing.samples()} clips a GPU at once",
        f"  FLOPs       {step.flops * count * accumulation / 1e12:.1f} T a step over all GPUs, "
        f"{flops / 1e9:.0f} G a clip{more if recomputed else ''}",
        "",
        *_memory(sizing, steps, gpu, count, precision, accumulation),
        "",
        how if seconds is None else _hours(seconds * clips / count, derived.total_steps, optim.epochs, count),
    ]
    return "\n".join(lines if seconds is None else [*lines, f"  {how}."])


def _memory(
    sizing: Sizing, steps: dict[int, Step], gpu: Gpu | None, count: int, precision: str, accumulation: int
) -> list[str]:
    """The table: a line for each strategy and number of recomputed blocks; the run itself has a star."""
    lines = [
        f"Peak memory of one {'GPU' if gpu else 'process'} in GiB (traced from the code for DDP, modelled from the "
        "trace for the others):",
        f"  {'':<38}{'recompute':>10}{'weights':>9}{'grads':>7}{'optim':>7}{'EMA':>6}{'teacher':>9}{'activ.':>8}"
        f"{'CUDA':>6}{'total':>8}",
    ]
    of_run = strategy_of(sizing.recipe.parallel, count)
    for strategy in STRATEGIES if count > 1 else (of_run,):
        name = FLAGS[strategy] if strategy != "ddp" else "DDP" if count > 1 else "alone"
        for blocks, step in steps.items():
            part = parts(
                step, strategy, gpus=count, precision=precision, accumulation=accumulation, ema=sizing.averaged(),
                overhead=gpu is not None,
            )  # fmt: skip
            columns = zip((*vars(part).values(), part.total), (9, 7, 7, 6, 9, 8, 6, 8), strict=True)
            numbers = "".join(f"{size / GIB:>{width}.2f}" for size, width in columns)
            fits = "" if gpu is None else "  fits" if part.total <= gpu.memory * GIB else "  too large"
            mark = "*" if (blocks, strategy) == (sizing.recomputed(), of_run) else " "
            lines.append(f"{mark} {name:<38}{blocks:>10}{numbers}{fits}")
    return [*lines, "  * the run as its flags say; recompute: blocks, --use_checkpoint --checkpoint_num N"]


def _seconds(
    sizing: Sizing, flops: float, gpu: Gpu | None, precision: str, measured: bool, utilisation: float | None
) -> tuple[float | None, str]:
    """Seconds of a clip of so many FLOPs on one GPU, and where they come from; None, and why they are unknown."""
    if measured:
        step = measure(sizing)
        how = (
            f"measured: {step.seconds:.3f} s for {step.clips} clips on {step.device} = "
            f"{flops * step.clips / step.seconds / 1e12:.2f} TFLOP/s with {precision}; scaled to the batch, "
            "communication not counted"
        )
        peak = "" if step.peak_bytes is None else f"; peak of CUDA's allocator {step.peak_bytes / GIB:.2f} GiB"
        return step.seconds / step.clips, how + peak
    if gpu is None:
        return None, "Hours: this machine has no GPU; name one with --gpu, or time this CPU with --measure."
    rate, share = gpu.rate(precision), utilisation or (0.6 if precision == "fp32" else 0.35)
    if not rate:
        return None, f"Hours: the rate of {gpu.name} is not in the table; time a step with --measure."
    how = (
        f"modelled: {share:.0%} of the {rate / 1e12:g} TFLOP/s that the data sheet gives for {precision}, an "
        "assumption (--utilisation)"
    )
    return flops / (rate * share), how


def _hours(seconds: float, steps: int | None, epochs: int, gpus: int) -> str:
    if steps is None:
        return f"Hours: {seconds:.3g} s a step; the number of steps is unknown until the list is there."
    hours = seconds * steps / 3600
    return (
        f"Hours: {hours:.3g} for {epochs} epochs = {steps} steps of {seconds:.3g} s, {hours * gpus:.4g} GPU hours; "
        "reading videos, validation and test not counted."
    )
