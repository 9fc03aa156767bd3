"""What `umt plan` prints of a run: parameters, batch, FLOPs, a table of memory, hours."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from umt.engine.runtime import choose_precision
from umt.run.plan import Plan, plan
from umt.tasks.base.sizing import Sizing
from umt.tools.plan.hardware import Gpu, recognise
from umt.tools.plan.measure import Measured, measure
from umt.tools.plan.memory import FLAGS, GIB, STRATEGIES, parts, strategy_of
from umt.tools.plan.trace import Step, trace


@dataclass(frozen=True)
class Setting:
    """Where a run is planned. `gpu` None: on a CPU; `gpus_from`: who said how many."""

    gpu: Gpu | None
    gpus: int
    gpus_from: str
    precision: str

    @property
    def place(self) -> str:
        """The machines, for the first line."""
        if self.gpu is None:
            return f"{self.gpus} process(es) on this CPU"
        return f"{self.gpus} x {self.gpu.name} ({self.gpus_from}), {self.gpu.memory:.1f} GiB each"


def setting_of(sizing: Sizing, gpu: Gpu | None, gpus: int | None) -> Setting:
    """`gpu` None: this machine's, else its CPU. `gpus` None: as many as the recipe was made for, else one."""
    recipe = sizing.recipe
    gpu = gpu or this_gpu()
    source = "--gpus" if gpus else "the recipe's" if recipe.optim.recipe_gpus else "default"
    asked = recipe.runtime.precision
    precision = gpu.precision(asked) if gpu else choose_precision(asked, torch.device("cpu"))
    return Setting(gpu, gpus or recipe.optim.recipe_gpus or 1, source, precision)


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
    """The text of `umt plan`; see `setting_of` for None. `measured`: time a step instead of modelling it."""
    setting = setting_of(sizing, gpu, gpus)
    derived = plan(sizing.recipe, world_size=setting.gpus)
    recomputed = sizing.recomputed()
    steps = {
        blocks: trace(sizing.recomputing(blocks), precision=setting.precision, gpu=setting.gpu is not None)
        for blocks in sorted({0, recomputed, sizing.blocks()})
    }
    step = steps[recomputed]
    more = f" (+{100 * (step.flops / steps[0].flops - 1):.0f} % for recomputing {recomputed} blocks)"
    batch, accumulation = sizing.recipe.optim.batch_size, derived.accumulation
    lines = [
        f"umt plan: {sizing.title()}, {setting.precision}, on {setting.place}",
        f"  parameters  {step.trained / 1e6:.1f} M trained"
        + (f", {step.teacher / 1e6:.1f} M of the frozen teacher" if step.teacher else ""),
        f"  batch       {setting.gpus} x {batch} videos x {sizing.copies()} copies x {accumulation} accumulated = "
        f"{derived.clips_per_step} clips a step; {sizing.samples()} clips a GPU at once",
        f"  FLOPs       {step.flops * setting.gpus * accumulation / 1e12:.1f} T a step over all GPUs, "
        f"{step.flops / step.clips / 1e9:.0f} G a clip" + (more if recomputed else ""),
        "",
        *_memory(sizing, setting, steps, accumulation),
        "",
    ]
    flops = step.flops / step.clips
    if measured:
        seconds, source = _measured(measure(sizing), flops, derived, setting)
    elif setting.gpu is None:
        return _text(lines, "Hours: this machine has no GPU; name one with --gpu, or time this CPU with --measure.")
    elif not setting.gpu.rate(setting.precision):
        return _text(lines, f"Hours: the rate of {setting.gpu.name} is not in the table; time a step with --measure.")
    else:
        seconds, source = _modelled(setting.gpu, flops, derived, setting, utilisation)
    return _text(lines, _hours(seconds, derived, sizing.recipe.optim.epochs, setting.gpus), f"  {source}.")


def _text(lines: list[str], *last: str) -> str:
    return "\n".join([*lines, *last])


def _memory(sizing: Sizing, setting: Setting, steps: dict[int, Step], accumulation: int) -> list[str]:
    """The table: a line for each strategy and number of recomputed blocks; the run itself has a star."""
    on_gpu, alone = setting.gpu is not None, setting.gpus == 1
    lines = [
        f"Peak memory of one {'GPU' if on_gpu else 'process'} in GiB (traced from the code for DDP, modelled from the "
        "trace for the others):",
        f"  {'':<38}{'recompute':>10}{'weights':>9}{'grads':>7}{'optim':>7}{'EMA':>6}{'teacher':>9}{'activ.':>8}"
        f"{'CUDA':>6}{'total':>8}",
    ]
    strategy_of_run = strategy_of(sizing.recipe.parallel, setting.gpus)
    for strategy in (strategy_of_run,) if alone else STRATEGIES:
        name = FLAGS[strategy] if strategy != "ddp" else "alone" if alone else "DDP"
        for blocks, step in steps.items():
            part = parts(
                step, strategy, gpus=setting.gpus, precision=setting.precision, accumulation=accumulation,
                ema=sizing.averaged(), overhead=on_gpu,
            )  # fmt: skip
            columns = zip((v / GIB for v in (*vars(part).values(), part.total)), (9, 7, 7, 6, 9, 8, 6, 8), strict=True)
            fits = "" if setting.gpu is None else "  fits" if part.total <= setting.gpu.memory * GIB else "  too large"
            mark = "*" if (blocks, strategy) == (sizing.recomputed(), strategy_of_run) else " "
            numbers = "".join(f"{value:>{width}.2f}" for value, width in columns)
            lines.append(f"{mark} {name:<38}{blocks:>10}{numbers}{fits}")
    return [*lines, "  * the run as its flags say; recompute: blocks, --use_checkpoint --checkpoint_num N"]


def _measured(measured: Measured, flops: float, derived: Plan, setting: Setting) -> tuple[float, str]:
    """Seconds of a step, and where they come from; `flops` are of one clip."""
    rate = flops * measured.clips / measured.seconds
    source = (
        f"measured: {measured.seconds:.3f} s for {measured.clips} clips on {measured.device} = {rate / 1e12:.2f} "
        f"TFLOP/s with {setting.precision}; scaled to the batch, communication not counted"
    )
    if measured.peak_bytes is not None:
        source += f"; peak of CUDA's allocator {measured.peak_bytes / GIB:.2f} GiB"
    return measured.seconds / measured.clips * derived.clips_per_step / setting.gpus, source


def _modelled(gpu: Gpu, flops: float, derived: Plan, setting: Setting, utilisation: float | None) -> tuple[float, str]:
    """The same from the data sheet."""
    rate, share = gpu.rate(setting.precision), utilisation or (0.6 if setting.precision == "fp32" else 0.35)
    source = (
        f"modelled: {share:.0%} of the {rate / 1e12:g} TFLOP/s that the data sheet gives for {setting.precision}, an "
        "assumption (--utilisation)"
    )
    return flops * derived.clips_per_step / setting.gpus / (rate * share), source


def _hours(seconds: float, derived: Plan, epochs: int, gpus: int) -> str:
    if derived.total_steps is None:
        return f"Hours: {seconds:.3g} s a step; the number of steps is unknown until the list is there."
    hours = seconds * derived.total_steps / 3600
    return (
        f"Hours: {hours:.3g} for {epochs} epochs = {derived.total_steps} steps of {seconds:.3g} s, {hours * gpus:.4g} "
        "GPU hours; reading videos, validation and test not counted."
    )
