"""The findings, each made by doing what a run would do: importing, decoding a rendered clip, writing a file."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from umt import __version__
from umt.cores import usable_cores
from umt.data.video import reader
from umt.errors import UserError, install

GIB = 2**30
_TRAINING = ("torch", "numpy", "timm", "torchvision", "av", "cv2", "tensorboardX", "tqdm")
_DISTRIBUTIONS = {"cv2": "opencv-python-headless"}
# Package -> what it is for, and the extra that installs it.
_OPTIONAL = {
    "safetensors": ("weights as safetensors", "hub"),
    "huggingface_hub": ("weights from and to the hub", "hub"),
    "onnxscript": ("umt export --format onnx", "onnx"),
    "onnxruntime": ("the check of such an export", "onnx"),
    "pyarrow": ("lists and features as parquet", "parquet"),
    "fsspec": ("lists and videos by URL", "storage"),
    "s3fs": ("lists and videos at s3://", "storage"),
}


@dataclass(frozen=True)
class Finding:
    """One line. `needed_for`: training, readers, options, devices, deepspeed, ...; `remedy`: what to do, or ''."""

    needed_for: str
    name: str
    state: str  # ok | warning | missing
    detail: str
    remedy: str = ""


def findings(folders: Sequence[str]) -> Iterator[Finding]:
    """Everything, in groups. `folders` are checked for free space and permission to write."""
    yield from packages()
    yield from writable(folders)
    yield from readers()
    yield from options()
    yield from devices()
    yield from deepspeed()
    yield from cluster()
    yield from machine()


def packages() -> Iterator[Finding]:
    """Versions of what training imports."""
    python = platform.python_version()
    yield Finding("training", "umt", "ok", f"{__version__}, Python {python}, {platform.platform()}")
    for name in _TRAINING:
        remedy = f"pip install {name}" if name in ("torch", "numpy") else install("train")
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken wheel raises anything
            cause = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                cause = "not installed"
            yield Finding("training", name, "missing", cause, remedy)
        else:
            yield Finding("training", name, "ok", _version(name))


def _version(name: str) -> str:
    try:
        return metadata.version(_DISTRIBUTIONS.get(name, name))
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(name), "__version__", "version unknown"))


def writable(folders: Sequence[str]) -> Iterator[Finding]:
    """Whether a file can be written there, or in the nearest folder above that exists, and how much space is free."""
    for name in folders:
        folder = Path(name).absolute()
        while not folder.exists():
            folder = folder.parent
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
        except OSError as error:
            remedy = "give another --output_dir, or change its permissions"
            yield Finding("training", "folder", "missing", f"{name}: {error.strerror}", remedy)
            continue
        free = shutil.disk_usage(folder).free / GIB
        state, remedy = ("ok", "") if free >= 10 else ("warning", "a checkpoint of L/16 takes 3.6 GiB: free some space")
        yield Finding("training", "folder", state, f"{name}: writable, {free:.0f} GiB free", remedy)


def readers() -> Iterator[Finding]:
    """Each video reader decodes a clip that PyAV renders."""
    if util.find_spec("av") is None:
        yield Finding("training", "video", "missing", "no PyAV, which every file needs", install("train"))
        return
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        try:
            _render(clip)
        except Exception as error:  # noqa: BLE001 - any error of FFmpeg is the finding
            yield Finding("training", "video", "missing", f"PyAV cannot write a clip: {error}", "pip install -U av")
            return
        for name in reader.ORDER:
            group, problem = ("training", "missing") if name == "pyav" else ("readers", "warning")
            try:
                reader.choose(name)
            except UserError as error:  # its last part is the remedy
                yield Finding(group, name, problem, "does not work here", str(error).rpartition(": ")[2].rstrip("."))
                continue
            try:
                shape = reader.DECODERS[name](str(clip)).frames([0, 7]).shape
            except UserError as error:
                yield Finding(group, name, problem, str(error))
                continue
            right = shape == (2, 48, 64, 3)
            detail = f"{_reader_version(name)}; decodes H.264" if right else f"gives frames of the shape {shape}"
            yield Finding(group, name, "ok" if right else problem, detail)
    yield Finding("readers", "auto", "ok", f"--decoder auto takes {reader.choose()} for plain files")


def options() -> Iterator[Finding]:
    """What some commands need and training does not; looked for, not imported."""
    for name, (what, extra) in _OPTIONAL.items():
        if util.find_spec(name) is None:
            yield Finding("options", name, "warning", f"not installed: {what}", install(extra))
        else:
            yield Finding("options", name, "ok", f"{_version(name)}: {what}")


def _render(path: Path) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(8):
            image = np.full((48, 64, 3), 30 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def _reader_version(name: str) -> str:
    version = metadata.version({"pyav": "av"}.get(name, name))
    if name == "pyav":
        import av

        codec = ".".join(map(str, av.library_versions["libavcodec"]))
        return f"{version}, its own FFmpeg (libavcodec {codec})"
    if name == "torchcodec":
        try:
            from torchcodec import ffmpeg_major_version as major  # only newer releases have it

            return f"{version}, FFmpeg {major} of the system"
        except ImportError:
            loaded = Path("/proc/self/maps")
            core = re.search(r"libtorchcodec_core(\d+)", loaded.read_text() if loaded.exists() else "")
            return f"{version}, FFmpeg {core.group(1) if core else '(version unknown)'} of the system"
    return f"{version}, its own FFmpeg"


def devices() -> Iterator[Finding]:
    """GPUs, bf16, and the precision that --precision auto chooses."""
    try:
        import torch
    except ImportError:
        return
    from umt.engine.runtime import choose_precision, has_native_bf16

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    yield Finding("devices", "torch build", "ok", f"{torch.__version__}: {build}")
    driver = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    for name in names:
        facts = torch.cuda.get_device_properties(name)
        detail = f"{facts.name}, {facts.total_memory / GIB:.1f} GiB, compute capability {facts.major}.{facts.minor}"
        yield Finding("devices", name, "ok", f"{detail}, driver {driver[0] if driver else 'unknown'}")
    if not names:
        boards = list(Path("/dev").glob("nvidia[0-9]*"))
        remedy = "install torch's CUDA build for this driver (docs/install.md)" if boards else ""
        detail = f"{len(boards)} in the machine, but torch sees none" if boards else "none; runs use the CPU"
        yield Finding("devices", "GPU", "warning", detail, remedy)
    for name in names[:1] or ["cpu"]:
        device = torch.device(name)
        native = "native bf16" if has_native_bf16(device) else "no native bf16"
        taken = choose_precision("auto", device)
        yield Finding("devices", "precision", "ok", f"{name}: {native}; --precision auto takes {taken}")


def deepspeed() -> Iterator[Finding]:
    """The package, and the compiler and ninja with which it builds its ops."""
    if util.find_spec("deepspeed") is None:
        yield Finding("deepspeed", "deepspeed", "missing", "not installed", install("deepspeed"))
    else:
        # In another process: its import changes logging and may start a compiler.
        code = "import deepspeed; print('version', deepspeed.__version__)"
        version = re.search(r"^version (\S+)$", _run(sys.executable, "-c", code, seconds=120), flags=re.M)
        state, detail = ("ok", version.group(1)) if version else ("missing", "it is installed, but importing it fails")
        yield Finding("deepspeed", "deepspeed", state, detail, "" if version else "pip install -U deepspeed")
    compiler = (os.environ.get("CXX") or "c++").split()[0]
    first = _run(compiler, "--version").splitlines()
    remedy = "apt-get install g++, or set CXX to the one that you have"
    yield Finding("deepspeed", "compiler", *(("ok", first[0]) if first else ("missing", f"no {compiler}", remedy)))
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    ninja = shutil.which("ninja", path=search)
    yield Finding("deepspeed", "ninja", *(("ok", ninja) if ninja else ("missing", "not on PATH", "pip install ninja")))


def cluster() -> Iterator[Finding]:
    """SLURM's commands, and its partitions where there is a controller."""
    for name in ("srun", "sbatch", "scontrol", "sinfo"):
        path = shutil.which(name)
        rest = ("ok", path) if path else ("missing", "not on PATH", "load SLURM's module, or run without SLURM")
        yield Finding("cluster", name, *rest)
    if shutil.which("sinfo"):
        partitions = " ".join(_run("sinfo", "--noheader", "--format=%P:%D:%a").split())
        rest = ("ok", partitions) if partitions else ("warning", "no controller answers", "run umt doctor on a node")
        yield Finding("cluster", "partitions", *rest)


def machine() -> Iterator[Finding]:
    """Cores, shared memory and open files, which the loader's processes need."""
    cores, allowed = os.cpu_count() or 1, usable_cores()
    quota = _cgroup_cores()
    usable = min(allowed, quota or allowed)
    limits = f", {allowed} by affinity" + (f", {quota:g} by cgroup" if quota else "")
    remedy = "" if usable >= 2 else "ask for more, e.g. srun --cpus-per-task"
    yield Finding("machine", "CPU cores", "ok" if usable >= 2 else "warning", f"{cores} in all{limits}", remedy)
    shm = Path("/dev/shm")
    if shm.exists():
        size = shutil.disk_usage(shm).total / GIB
        remedy = (
            "" if size >= 1 else "docker run --shm-size 8g, or --num_workers 0: loader processes pass batches there"
        )
        yield Finding("machine", "/dev/shm", "ok" if size >= 1 else "warning", f"{size:.1f} GiB", remedy)
    try:
        import resource

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except ImportError:  # not a Unix
        return
    few = 0 <= files < 4096
    yield Finding("machine", "open files", "warning" if few else "ok", str(files), "ulimit -n 65536" if few else "")


def _cgroup_cores() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _run(*command: str, seconds: float = 20) -> str:
    """What a program prints; '' if it does not exist, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
