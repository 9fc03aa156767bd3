"""Where a run computes: device, precision, threads, and the processes it shares the work with.

`start` is the only function with lasting effects (thread count, process group, deterministic kernels) and is called
once by whoever owns the process; importing this file changes nothing. The collective helpers work without a process
group, so a plain `python` needs no launcher.
"""

from __future__ import annotations

import datetime
import inspect
import logging
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from umt import devices
from umt.cores import usable_cores
from umt.devices import choose_precision, has_native_bf16
from umt.errors import ConfigError, PeerLostError
from umt.processes import World, find_world

__all__ = [
    "Runtime", "World", "barrier", "broadcast_object", "choose_device", "choose_precision", "choose_threads",
    "find_world", "gather_objects", "has_native_bf16", "is_main", "rank", "reduce_mean", "reduce_sum", "rendezvous",
    "start", "stop", "unwrap", "world_size",
]  # fmt: skip

log = logging.getLogger(__name__)
T = TypeVar("T")


def rendezvous(world: World, environ: Mapping[str, str]) -> tuple[str, int]:
    """Address and port where the processes meet: MASTER_ADDR and MASTER_PORT, else the first node of the SLURM step."""
    address = environ.get("MASTER_ADDR")
    if address is None and world.launcher == "slurm":
        # "node[03-07],other" -> node03; a plain list or a single name is taken as it stands.
        nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
        first = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
        address = "".join(part for part in first.groups() if part) if first else None
    port = environ.get("MASTER_PORT")
    if port is None and world.launcher == "slurm" and "SLURM_JOB_ID" in environ:
        port = str(20000 + int(environ["SLURM_JOB_ID"]) % 20000)
    if address is None or port is None:
        raise ConfigError(
            f"{world.size} processes were started by {world.launcher} but MASTER_ADDR or MASTER_PORT is not set. "
            "Export both, or start with torchrun, which sets them."
        )
    return address, int(port)


def choose_device(name: str, world: World) -> torch.device:
    """`auto`: this process's GPU if there is one, else the CPU. A GPU that is asked for and missing is refused."""
    return devices.choose_device(name, world.local_rank)


def choose_threads(requested: int, world: World, environ: Mapping[str, str]) -> int:
    """Threads of this process: as asked, else OMP_NUM_THREADS, else its share of the cores that it may use."""
    if requested > 0:
        return requested
    if environ.get("OMP_NUM_THREADS", "").isdigit():
        return max(1, int(environ["OMP_NUM_THREADS"]))
    return max(1, usable_cores() // max(world.local_size, 1))


@dataclass(frozen=True)
class Runtime:
    """What `start` settled. Everything that depends on device, precision or processes goes through here."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "fp32"  # bf16 | fp16 | fp32
    world: World = field(default_factory=World)
    threads: int = 1
    deterministic: bool = True

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks on the console."""
        return self.world.rank == 0

    def autocast(self) -> torch.autocast:
        """Context of forward passes. fp16 and bf16 keep fp32 master weights."""
        return devices.autocast(self.device, self.precision)

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler: active under fp16, a pass-through otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` ready to train: DistributedDataParallel where there are several processes, itself otherwise."""
        if not dist.is_initialized():
            return model
        # Each process keeps the buffers that its samples move (engine/buffers.py); exchanging them at every forward
        # would also hang ranks whose validation has fewer batches. PyTorch 2.15 renamed the flag.
        renamed = "forward_sync_buffers" in inspect.signature(nn.parallel.DistributedDataParallel).parameters
        apart: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **apart,
        )

    def seed(self, value: int) -> None:
        """Seeds torch on the CPU and this device; `torch.manual_seed` would format a stack trace each time."""
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(value)

    def synchronise(self) -> None:
        """Waits until the device has done what it was given; for wall-clock measurements only."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def facts(self) -> dict[str, int | str | bool]:
        """What a checkpoint records, so that a resumed run can say what changed."""
        return {
            "device": self.device.type,
            "precision": self.precision,
            "world_size": self.world.size,
            "threads": self.threads,
            "deterministic": self.deterministic,
        }


def start(
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    deterministic: bool = True,
    timeout_minutes: float = 30,
    environ: Mapping[str, str] | None = None,
) -> Runtime:
    """Settles device, precision, threads and, if a launcher started several processes, their group.

    Args:
        device: auto | cpu | cuda | cuda:N.
        precision: auto | bf16 | fp16 | fp32.
        threads: CPU threads of this process; 0 decides (`choose_threads`). Sums depend on it, so checkpoints record it.
        deterministic: kernels whose results do not vary from run to run, which a bit-exact resume needs on a GPU.
        timeout_minutes: how long a rank waits for another before the job ends, at the least.
        environ: the environment to read instead of the process's own.

    Raises:
        ConfigError: a device that is missing, an unknown precision, an incomplete launcher environment.
        PeerLostError: some of the processes did not come.
    """
    environ = os.environ if environ is None else environ
    world = find_world(environ)
    chosen = choose_device(device, world)
    settled = choose_precision(precision, chosen)
    count = choose_threads(threads, world, environ)
    torch.set_num_threads(count)
    if deterministic:
        # cuBLAS reads this once, when the first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling fresh memory guards against reading it uninitialised; nothing here does, and it costs bandwidth.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world.size > 1 and not dist.is_initialized():
        address, port = rendezvous(world, environ)
        log.debug("rank %d of %d meets the others at %s:%d", world.rank, world.size, address, port)
        # watch.py ends the job at the timeout and names the rank; the group's own is only the last resort.
        timeout = datetime.timedelta(minutes=1.25 * timeout_minutes + 1)
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo",
                store=_meet(address, port, world, timeout, environ),
                rank=world.rank,
                world_size=world.size,
                timeout=timeout,
                device_id=chosen if chosen.type == "cuda" else None,
            )
        except RuntimeError as error:  # DistError is one, and gloo has no type of its own
            if "EADDRINUSE" not in str(error):
                cause = str(error).splitlines()[0]
                raise PeerLostError(
                    f"Rank {world.rank} on {socket.gethostname()} did not meet all of the {world.size} processes at "
                    f"{address}:{port}: {cause}. See what the others said, then start the same command again."
                ) from error
            raise ConfigError(
                f"Port {port} of {address}, where the processes were to meet, is in use. "
                "Export another MASTER_PORT, or unset it where scripts/launch.sh chooses a free one."
            ) from error
    return Runtime(chosen, settled, world, count, deterministic)


def _meet(address: str, port: int, world: World, timeout: datetime.timedelta, environ: Mapping[str, str]) -> dist.Store:
    """The store through which the processes find each other: torchrun's own, else rank 0's.

    torchrun keeps its store when it starts the processes again, with the addresses of those that died in it: each
    attempt gets names of its own.
    """
    launchers = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(
        address, port, world.size, is_master=world.rank == 0 and not launchers, timeout=timeout, multi_tenant=True
    )
    return dist.PrefixStore(f"umt/attempt{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def stop() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel and torch.compile wrappers; its state-dict names are the model's own."""
    while True:
        inner = getattr(model, "module", None) if isinstance(model, nn.parallel.DistributedDataParallel) else None
        inner = inner or model.__dict__.get("_modules", {}).get("_orig_mod")
        if inner is None:
            return model
        model = inner


def rank() -> int:
    """This process's number; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes share the run; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and speaks on the console."""
    return rank() == 0


def barrier() -> None:
    """Waits for all processes; nothing without a process group."""
    if dist.is_initialized():
        dist.barrier()


def reduce_sum(value: Tensor) -> Tensor:
    """Sum of `value` over processes, on every process; a new tensor."""
    value = value.clone()
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def reduce_mean(value: Tensor) -> Tensor:
    """Mean of `value` over processes, on every process; a new tensor."""
    return reduce_sum(value) / world_size()


def broadcast_object(value: T) -> T:
    """Rank 0's `value` on every process. Pickled: for what the program itself made."""
    if not dist.is_initialized():
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: T) -> list[T]:
    """Every process's `value`, by rank, on every process. Pickled: for what the program itself made."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
