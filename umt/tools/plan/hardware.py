"""GPUs by name: memory and peak rates as their data sheets state them. No torch.

Rates are dense (no sparsity) TFLOP/s of the matrix units, with fp32 accumulation where the sheet states it; `fp32` is
plain fp32, since TF32 is not used. Sources: NVIDIA's data sheet of each board (SXM where there are several).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from umt.errors import ConfigError
from umt.spelling import did_you_mean


@dataclass(frozen=True)
class Gpu:
    """One board. `bf16` is None where the hardware has no bf16."""

    name: str
    memory: float  # GiB that a process can allocate, a little less than the sheet's
    bf16: float | None  # TFLOP/s, as are the next two
    fp16: float
    fp32: float

    def rate(self, precision: str) -> float:
        """Peak FLOP/s in `precision`; bf16 without hardware runs no faster than fp32."""
        value = {"bf16": self.bf16 or self.fp32, "fp16": self.fp16, "fp32": self.fp32}[precision]
        return value * 1e12

    def precision(self, flag: str) -> str:
        """The precision of `--precision FLAG` here: auto is bf16 where the hardware has it."""
        return flag if flag != "auto" else "bf16" if self.bf16 else "fp16"


GPUS = {
    "a10": Gpu("A10", 22.0, 125, 125, 31.2),
    "a100-40": Gpu("A100-40", 39.4, 312, 312, 19.5),
    "a100-80": Gpu("A100-80", 79.2, 312, 312, 19.5),
    "h100": Gpu("H100", 79.1, 989, 989, 66.9),
    "h200": Gpu("H200", 139.8, 989, 989, 66.9),
    "l4": Gpu("L4", 22.0, 121, 121, 30.3),
    "l40s": Gpu("L40S", 44.4, 362, 362, 91.6),
    "rtx3090": Gpu("RTX3090", 23.6, 71, 71, 35.6),
    "rtx4090": Gpu("RTX4090", 23.5, 165, 165, 82.6),
    "t4": Gpu("T4", 14.6, None, 65, 8.1),
    "v100-16": Gpu("V100-16", 15.8, None, 125, 15.7),
    "v100": Gpu("V100", 31.7, None, 125, 15.7),
}


def find_gpu(name: str) -> Gpu:
    """The board called `name`, whatever its case, spaces and dashes. ConfigError with the nearest names otherwise."""
    plain = {key.replace("-", ""): gpu for key, gpu in GPUS.items()}
    plain |= {"a100": GPUS["a100-80"], "3090": GPUS["rtx3090"], "4090": GPUS["rtx4090"], "v10032": GPUS["v100"]}
    word = "".join(c for c in name.lower() if c.isalnum()).removesuffix("gb")
    if word in plain:
        return plain[word]
    hint = did_you_mean(word, {key: gpu.name for key, gpu in plain.items()}, count=4, cutoff=0.5)
    raise ConfigError(f"--gpu ({name}) is not in the table. {hint}")


def recognise(device_name: str, memory_gib: float) -> Gpu | None:
    """The board that the driver calls `device_name`, with its real memory; None for one that the table lacks."""
    words = re.split(r"[^a-z0-9]+", device_name.lower().replace("rtx ", "rtx"))
    for key, gpu in GPUS.items():
        if key.split("-")[0] in words:
            return replace(gpu, name=device_name, memory=memory_gib)
    return None
