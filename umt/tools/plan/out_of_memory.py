"""Memory that ends in the middle of a run becomes a sentence: the device, the batch, what would fit, by how much."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from umt.config.plan import accumulation, world_size_from
from umt.config.schema import Config, FinetuneConfig
from umt.errors import ConfigError, UserError
from umt.tools.plan.command import replaced
from umt.tools.plan.memory import FLAGS, GIB, parts

if TYPE_CHECKING:
    from umt.tools.plan.trace import Step

log = logging.getLogger(__name__)
_HALVINGS = 3  # of the batch that are told where the limit is unknown
_MANY = 8  # processes for which a single one is told what sharing out would leave


class OutOfMemoryError(UserError):
    """The device, or the memory of the machine, is too small for what the run holds at once."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, on a GPU or a CPU, or Python itself could not get memory."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("can't allocate memory" in text or "CUDA out of memory" in text))
    )


def explain(config: Config, cause: str) -> OutOfMemoryError:
    """The sentence. `cause` is the first line of the error that ended the run."""
    gc.collect()  # a model has cycles; what it held counts below
    optim = config.optim
    clips = optim.batch_size * config.data.num_sample
    device, limit = _device(config)
    where = (
        f"{device} is out of memory at --batch_size {optim.batch_size} ({clips} clips of {config.data.num_frames} x "
    )
    where += f"{config.model.input_size} x {config.model.input_size} at once): {_first_line(cause)}"
    if isinstance(config, FinetuneConfig) and config.evaluation.eval:
        return OutOfMemoryError(f"{where}. Test with a smaller --batch_size, e.g. {max(1, optim.batch_size // 2)}.")
    try:
        now, measures = _measures(config, limit)
    except (RuntimeError, MemoryError, ConfigError) as error:  # the trace itself wants some memory
        log.warning("no model", exc_info=error)
        return OutOfMemoryError(
            f"{where}. Of least cost first, these help: --enable_deepspeed --zero_stage 1 or --fsdp on several GPUs, a "
            "smaller --batch_size with --global_batch_size, --use_checkpoint --checkpoint_num N; see umt plan."
        )
    return OutOfMemoryError(
        f"{where}. A step needs {now / GIB:.3g} GiB as modelled{_of(limit)}; with the least cost first: "
        f"{'; '.join(measures)}."
    )


def _measures(config: Config, limit: float | None) -> tuple[float, list[str]]:
    from umt.engine.runtime import choose_precision
    from umt.tools.plan.trace import depth, recomputing, torch, trace

    gpu = config.runtime.device != "cpu" and torch.cuda.is_available()
    precision = choose_precision(config.runtime.precision, torch.device("cuda" if gpu else "cpu"))
    count = world_size_from(os.environ)
    accumulated = accumulation(config.optim, count)
    averaged = isinstance(config, FinetuneConfig) and config.model.model_ema

    def peak(tried: Config, strategy: str, accumulated: int) -> float:
        step = steps[tried] if tried in steps else steps.setdefault(tried, trace(tried, precision=precision, gpu=gpu))
        return parts(
            step, strategy, gpus=count, precision=precision, accumulation=accumulated, ema=averaged, overhead=gpu
        ).total

    def options() -> Iterator[tuple[str, float]]:
        for strategy in ("zero1", "zero2", "fsdp", "zero3") if count > 1 else ():
            if strategy != own:
                yield FLAGS[strategy], peak(config, strategy, accumulated)
        total = config.optim.batch_size * count * accumulated
        for size in _smaller(config, total, count)[: _HALVINGS if limit is None else None]:
            smaller = replaced(config, batch_size=size, update_freq=1, global_batch_size=total)
            value = peak(smaller, own, total // (size * count))
            yield f"--batch_size {size} --global_batch_size {total}", value
            if verdict(value) == " (fits)":
                break
        blocks = depth(config)
        done = config.model.checkpoint_num if config.model.use_checkpoint else 0
        for number in sorted({blocks // 2, blocks}):
            if number > done:
                tried = recomputing(config, number)
                value = peak(tried, own, accumulated)
                slower = 100 * (steps[tried].flops / steps[config].flops - 1)
                yield f"--use_checkpoint --checkpoint_num {number} (+{slower:.0f} % FLOPs)", value

    def verdict(value: float) -> str:
        if limit is None:
            return ""
        # The heap of a CPU goes to pieces: recomputing was seen to need 1.5 times the sum of its tensors.
        fits, too_large = (0.95, 1.0) if gpu else (0.65, 1.2)
        return " (fits)" if value <= fits * limit else " (may fit)" if value <= too_large * limit else " (too large)"

    steps: dict[Config, Step] = {}
    parallel = config.parallel
    zero = f"zero{parallel.zero_stage}" if parallel.enable_deepspeed and parallel.zero_stage else "ddp"
    own = "fsdp" if parallel.fsdp and count > 1 else zero
    now = peak(config, own, accumulated)
    told = []
    for words, value in options():
        told.append(f"{words}: {value / GIB:.3g} GiB{verdict(value)}")
    if count == 1:
        for strategy in ("zero1", "fsdp"):
            value = parts(
                steps[config], strategy, gpus=_MANY, precision=precision, accumulation=accumulated, ema=averaged,
                overhead=gpu,
            ).total  # fmt: skip
            told.append(f"{_MANY} processes with {FLAGS[strategy]}: {value / GIB:.3g} GiB each{verdict(value)}")
    return now, told


def _smaller(config: Config, total: int, count: int) -> list[int]:
    """Half of the batch, a quarter and so on, or what near them keeps the step's videos and mixup's pairs."""
    now, copies = config.optim.batch_size, config.data.num_sample
    mixes = isinstance(config, FinetuneConfig) and (config.augment.mixup > 0 or config.augment.cutmix > 0)
    fit = [n for n in range(1, now) if total % (n * count) == 0 and not (mixes and n * copies % 2)]
    fractions = (2**n for n in range(1, now.bit_length()))
    return sorted({max(m) for part in fractions if (m := [n for n in fit if n <= now / part])}, reverse=True)


def _device(config: Config) -> tuple[str, float | None]:
    """Its name, and the bytes that a process may have there."""
    import torch

    if config.runtime.device != "cpu" and torch.cuda.is_available():
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()  # others may hold some of it
        name = torch.cuda.get_device_name()
        return f"{name} ({total / GIB:.1f} GiB)", float(free + torch.cuda.memory_reserved())
    return "This machine", _cpu_limit()


def _cpu_limit() -> float | None:
    """What a step may take beside what this process holds already, now that the run has let go; None if unknown."""
    limits = []
    try:
        import resource

        page = os.sysconf("SC_PAGE_SIZE")
        virtual, resident = (int(n) * page for n in Path("/proc/self/statm").read_text().split()[:2])
        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(float(soft - virtual))
        limits.append(float(page * os.sysconf("SC_PHYS_PAGES") - resident))
    except (ImportError, ValueError, OSError):  # not a Linux
        pass
    return min(limits, default=None)


def _of(limit: float | None) -> str:
    return "" if limit is None else f" of the {limit / GIB:.3g} GiB that it can have"


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "an allocation failed"
    line = line.split("DefaultCPUAllocator: ")[-1].split(" Error code")[0]
    return line.split(" GPU ")[0].rstrip(". ")
