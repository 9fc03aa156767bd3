"""A run that is out of memory says so in a sentence: the device, the batch, and which changes would fit."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from umt.errors import ConfigError, UserError
from umt.processes import announced_size
from umt.tasks.base import Recipe
from umt.tasks.base.sizing import Sizing, sizing_of
from umt.tools.plan.memory import FLAGS, GIB, parts, strategy_of

if TYPE_CHECKING:
    from umt.tools.plan.trace import Step

log = logging.getLogger(__name__)
_HALVINGS = 3  # of the batch, that are named where the limit is unknown
_MANY = 8  # processes, for which a run on a single one is told what the strategies need


class OutOfMemoryError(UserError):
    """The memory of the device or of the machine is too small for what the run holds at once."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, on a GPU or a CPU, or Python itself could not get memory."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("can't allocate memory" in text or "CUDA out of memory" in text))
    )


def explain(recipe: Recipe, cause: str) -> OutOfMemoryError:
    """The sentence. `cause` is the first line of the error that ended the run."""
    gc.collect()  # a model has cycles; what it held counts below
    sizing, batch = sizing_of(recipe), recipe.optim.batch_size
    device, limit = _device(recipe.runtime.device)
    where = (
        f"{device} is out of memory at --batch_size {batch} ({sizing.samples()} clips of {sizing.sample()} at once): "
        f"{_first_line(cause)}"
    )
    if recipe.only_tests:
        return OutOfMemoryError(f"{where}. Test with a smaller --batch_size, e.g. {max(1, batch // 2)}.")
    try:
        remedies = _Remedies(sizing, limit)
        needed, changes = remedies.peak(), remedies.described()
    except (RuntimeError, MemoryError, ConfigError) as error:  # the trace itself needs some memory
        log.warning("what would fit cannot be computed", exc_info=error)
        return OutOfMemoryError(
            f"{where}. Of least cost first, these help: --enable_deepspeed --zero_stage 1 or --fsdp on several GPUs, a "
            "smaller --batch_size with --global_batch_size, --use_checkpoint --checkpoint_num N; see umt plan."
        )
    available = "" if limit is None else f" of the {limit / GIB:.3g} GiB that it can have"
    return OutOfMemoryError(
        f"{where}. A step needs {needed / GIB:.3g} GiB as modelled{available}; with the least cost first: "
        f"{'; '.join(changes)}."
    )


class _Remedies:
    """Peak memory of a step, as the run is and with each change that makes it smaller. `limit`: bytes it can have."""

    def __init__(self, sizing: Sizing, limit: float | None) -> None:
        from umt.engine.runtime import choose_precision
        from umt.tools.plan.trace import torch

        recipe = sizing.recipe
        self.sizing, self.limit = sizing, limit
        self.gpu = recipe.runtime.device != "cpu" and torch.cuda.is_available()
        self.precision = choose_precision(recipe.runtime.precision, torch.device("cuda" if self.gpu else "cpu"))
        self.processes = announced_size(os.environ)
        self.accumulation = recipe.optim.accumulation(self.processes)
        self.strategy = strategy_of(recipe.parallel, self.processes)
        self.steps: dict[Sizing, Step] = {}

    def step(self, sizing: Sizing) -> Step:
        from umt.tools.plan.trace import trace

        if sizing not in self.steps:
            self.steps[sizing] = trace(sizing, precision=self.precision, gpu=self.gpu)
        return self.steps[sizing]

    def peak(
        self,
        sizing: Sizing | None = None,
        *,
        strategy: str = "",
        processes: int | None = None,
        accumulation: int | None = None,
    ) -> float:
        """Bytes of one process; what is not given is as in the run."""
        return parts(
            self.step(sizing or self.sizing), strategy or self.strategy, gpus=processes or self.processes,
            precision=self.precision, accumulation=accumulation or self.accumulation, ema=self.sizing.averaged(),
            overhead=self.gpu,
        ).total  # fmt: skip

    def described(self) -> list[str]:
        """Changes with what each leaves, the one with the least cost first."""
        lines = [f"{flags}: {size / GIB:.3g} GiB{self.verdict(size)}" for flags, size in self.changes()]
        for strategy in ("zero1", "fsdp") if self.processes == 1 else ():
            size = self.peak(strategy=strategy, processes=_MANY)
            lines.append(f"{_MANY} processes with {FLAGS[strategy]}: {size / GIB:.3g} GiB each{self.verdict(size)}")
        return lines

    def changes(self) -> Iterator[tuple[str, float]]:
        """Flags, and the peak with them."""
        sizing, optim = self.sizing, self.sizing.recipe.optim
        for strategy in ("zero1", "zero2", "fsdp", "zero3") if self.processes > 1 else ():
            if strategy != self.strategy:
                yield FLAGS[strategy], self.peak(strategy=strategy)
        total = optim.batch_size * self.processes * self.accumulation
        for batch in self._smaller_batches(total)[: _HALVINGS if self.limit is None else None]:
            smaller = sizing.with_flags(batch_size=batch, update_freq=1, global_batch_size=total)
            size = self.peak(smaller, accumulation=total // (batch * self.processes))
            yield f"--batch_size {batch} --global_batch_size {total}", size
            if self.verdict(size) == " (fits)":
                break
        for blocks in sorted({sizing.blocks() // 2, sizing.blocks()}):
            if blocks > sizing.recomputed():
                recomputing = sizing.recomputing(blocks)
                slower = 100 * (self.step(recomputing).flops / self.step(sizing).flops - 1)
                yield f"--use_checkpoint --checkpoint_num {blocks} (+{slower:.0f} % FLOPs)", self.peak(recomputing)

    def verdict(self, size: float) -> str:
        """Whether a process with this peak runs here; "" where the limit is unknown."""
        if self.limit is None:
            return ""
        # The heap of a CPU fragments: recomputing was seen to need 1.5 times the sum of its tensors.
        fits, too_large = (0.95, 1.0) if self.gpu else (0.65, 1.2)
        return (
            " (fits)" if size <= fits * self.limit
            else " (may fit)" if size <= too_large * self.limit
            else " (too large)"
        )  # fmt: skip

    def _smaller_batches(self, total: int) -> list[int]:
        """Half of the batch, a quarter and so on, or what near them keeps the step's videos and mixup's pairs."""
        batch, least = self.sizing.recipe.optim.batch_size, self.sizing.least_batch()
        possible = [n for n in range(least, batch, least) if total % (n * self.processes) == 0]
        fractions = (2**n for n in range(1, batch.bit_length()))
        return sorted({max(m) for part in fractions if (m := [n for n in possible if n <= batch / part])}, reverse=True)


def _device(device: str) -> tuple[str, float | None]:
    """Name of --device, and the bytes that a process may have there."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()  # others may hold some of it
        name = torch.cuda.get_device_name()
        return f"{name} ({total / GIB:.1f} GiB)", float(free + torch.cuda.memory_reserved())
    return "This machine", _cpu_limit()


def _cpu_limit() -> float | None:
    """What a step may take in addition to what this process still holds after the run; None if unknown."""
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


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "an allocation failed"
    line = line.split("DefaultCPUAllocator: ")[-1].split(" Error code")[0]
    return line.split(" GPU ")[0].rstrip(". ")
