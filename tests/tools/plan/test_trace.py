"""The traced step is the real one: parameters, FLOPs, what autograd keeps, and what a process really takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from umt.models import create_model
from umt.run.command_line import parse
from umt.tasks.base.sizing import Sizing, sizing_of
from umt.tools.plan.memory import GIB, parts
from umt.tools.plan.trace import run_step, trace

TINY = "--model vit_tiny_patch8_64 --input_size 64 --num_frames 4 --tubelet_size 1 --batch_size 2 --nb_classes 16"
BASE = "--model vit_base_patch16_224 --num_frames 2 --tubelet_size 1 --batch_size 1"
PRETRAIN = (
    "--model pretrain_umt_tiny_patch8_64 --input_size 64 --num_frames 4 --num_segments 4 "
    "--clip_teacher clip_tiny_patch8_64 --clip_input_resolution 64 --clip_return_layer 2 --batch_size 3 "
    "--mask_ratio 0.75"
)


def sized(flags: str, task: str = "finetune") -> Sizing:
    return sizing_of(parse(task, flags.split(), files=False))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("blocks", [0, 3])
@pytest.mark.parametrize(("task", "flags"), [("finetune", TINY), ("pretrain", PRETRAIN)])
def test_a_step_without_data_keeps_what_a_real_one_keeps(task: str, flags: str, blocks: int, precision: str) -> None:
    sizing = sized(flags, task).recomputing(blocks)
    real, traced = run_step(sizing, precision=precision), trace(sizing, precision=precision, gpu=False)
    # In bf16 torch says that a norm's mean and deviation are bf16, where the CPU keeps them in fp32.
    assert traced.saved_bytes == pytest.approx(real.saved_bytes, rel=0 if precision == "fp32" else 0.005)
    assert traced.flops == real.flops
    assert traced.memory.peak(casts=True) == pytest.approx(real.memory.peak(casts=True), rel=0.02)
    assert (traced.weight_bytes, traced.optimizer_bytes) == (real.weight_bytes, real.optimizer_bytes)


def test_what_autograd_keeps_is_counted_without_the_weights() -> None:
    sizing = sized(BASE + " --mixup 0 --cutmix 0")
    task = sizing.task()
    task.model.train()
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = task.training_step(sizing.batch(), 0).loss
    for parameter in task.model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    assert trace(sizing, precision="fp32", gpu=False).saved_bytes == pytest.approx(sum(kept.values()), rel=0.01)
    assert loss.requires_grad


@pytest.mark.parametrize(
    ("model", "task", "flags"),
    [
        ("vit_base_patch16_224", "finetune", "--nb_classes 400"),
        ("vit_large_patch16_224", "finetune", "--nb_classes 400"),
        (
            "pretrain_umt_base_patch16_224",
            "pretrain",
            "--clip_return_layer 6 --clip_decoder_embed_dim 768 --clip_output_dim 512",
        ),
    ],
)
def test_parameters_are_the_models(model: str, task: str, flags: str) -> None:
    sizes = {"num_classes": 400} if task == "finetune" else {}
    with torch.device("meta"):
        parameters = sum(p.numel() for p in _on_meta(model, **sizes))
    step = trace(
        sized(f"--model {model} --batch_size 2 --num_frames 8 --tubelet_size 1 {flags}", task), precision="bf16"
    )
    assert step.trained == parameters


def _on_meta(model: str, **sizes: int) -> list[torch.nn.Parameter]:
    before, torch.nn.init.trunc_normal_ = torch.nn.init.trunc_normal_, lambda tensor, **_: tensor  # type: ignore[assignment]
    try:
        return list(create_model(model, **sizes).parameters())
    finally:
        torch.nn.init.trunc_normal_ = before


def test_flops_are_those_of_the_formula() -> None:
    """2 FLOPs a weight and token, 4 L^2 D a block for attention; backward twice that, attention 2.5 times (flash)."""
    step = trace(
        sized("--model vit_large_patch16_224 --num_frames 8 --tubelet_size 1 --batch_size 4 --num_sample 1"),
        precision="bf16",
    )
    width, depth, tokens = 1024, 24, 8 * 14 * 14
    linear = 2 * 4 * tokens * (depth * 12 * width**2 + 3 * 256 * width)
    attention = 4 * depth * 4 * tokens**2 * width
    assert step.forward_flops == pytest.approx(linear + attention, rel=0.01)
    assert step.flops == pytest.approx(3 * linear + 3.5 * attention, rel=0.02)


def test_recomputing_all_blocks_keeps_little_more_than_their_inputs() -> None:
    sizing = sized(BASE.replace("--batch_size 1", "--batch_size 8"))
    kept = trace(sizing.recomputing(12), precision="bf16").saved_bytes
    inputs = 12 * 16 * (2 * 14 * 14) * 768 * 2
    batch = 16 * 3 * 2 * 224 * 224 * (4 + 2)
    assert inputs < kept < 1.1 * inputs + 2 * batch


def test_recomputing_costs_the_forward_pass_of_its_blocks() -> None:
    """Except the last layer of the first block: without drop path, nothing after it needs its output."""
    plain, all_blocks = (trace(sized(BASE).recomputing(n), precision="fp32") for n in (0, 12))
    clips, tokens, width = 2, 2 * 14 * 14, 768
    embedding, head = 2 * clips * tokens * 3 * 16 * 16 * width, 2 * clips * width * 400
    last_layer = 2 * clips * tokens * 4 * width * width
    assert all_blocks.flops - plain.flops == plain.forward_flops - embedding - head - last_layer


def test_half_precision_keeps_about_half() -> None:
    full, half = (trace(sized(BASE), precision=p, gpu=False).saved_bytes for p in ("fp32", "bf16"))
    assert 0.4 * full < half < 0.7 * full


def test_frozen_blocks_keep_nothing_for_the_backward_pass() -> None:
    plain, half, head = (trace(sized(f"{TINY} --freeze_blocks {n}"), precision="fp32") for n in (0, 2, 4))
    assert head.trained == 16 * 96 + 16
    assert 0.4 * plain.trained < half.trained < 0.6 * plain.trained
    assert 0.4 * plain.saved_bytes < half.saved_bytes < 0.6 * plain.saved_bytes
    assert head.saved_bytes < 0.05 * plain.saved_bytes


@pytest.mark.parametrize("flags", ["", "--multi_label"])
def test_labels_are_those_of_the_run(flags: str) -> None:
    sizing = sized(f"{TINY} --data_set Kinetics_sparse {flags}")
    assert sizing.batch().label.shape == ((4, 16) if flags else (4,))
    assert trace(sizing, precision="fp32").flops > 0


@pytest.mark.parametrize(
    ("task", "flags"), [("finetune", "--finetune none.pth"), ("pretrain", "--clip_teacher_weights none.pth")]
)
def test_no_weights_are_read(task: str, flags: str) -> None:
    assert trace(sized(f"{TINY if task == 'finetune' else PRETRAIN} {flags}", task), precision="fp32").flops > 0


def test_copies_count_as_clips() -> None:
    one, two = (trace(sized(f"{BASE} --batch_size 2 --num_sample {n}"), precision="bf16") for n in (1, 2))
    assert (one.clips, two.clips) == (2, 4)
    assert two.flops == 2 * one.flops
    assert two.saved_bytes == pytest.approx(2 * one.saved_bytes, rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("blocks", [0, 12])
def test_a_process_grows_by_the_modelled_peak(blocks: int) -> None:
    """Truth is what the operating system saw: the growth of a process's peak over a real step, in fp32."""
    flags = BASE.replace("--batch_size 1", "--batch_size 4")
    code = f"""
        import json
        from umt.run.command_line import parse
        from umt.tasks.base.sizing import sizing_of
        from umt.tools.plan.trace import make_optimizer
        import torch
        torch.set_num_threads(1)
        sizing = sizing_of(parse("finetune", {flags.split()!r}, files=False)).recomputing({blocks})
        def kib(what):
            return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(what))
        before = kib("VmRSS")
        task = sizing.task(); task.model.train()
        optimizer = make_optimizer(sizing, task)
        batch = sizing.batch()
        for _ in range(2):
            optimizer.zero_grad()
            task.training_step(batch, 0).loss.backward()
            optimizer.step()
        print(json.dumps(1024 * (kib("VmHWM") - before)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    grown = json.loads(done.stdout.splitlines()[-1])
    step = trace(sized(flags).recomputing(blocks), precision="fp32", gpu=False)
    modelled = parts(step, "ddp", gpus=1, precision="fp32", overhead=False).total
    assert modelled == pytest.approx(grown, rel=0.1), f"{modelled / GIB:.3f} GiB modelled, {grown / GIB:.3f} seen"


@pytest.mark.gpu
@pytest.mark.parametrize("blocks", [0, 12])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_gpu_allocates_the_modelled_peak(precision: str, blocks: int) -> None:
    from umt.tools.plan.measure import measure

    flags = f"--model vit_base_patch16_224 --num_frames 8 --tubelet_size 1 --batch_size 8 --precision {precision}"
    sizing = sized(flags).recomputing(blocks)
    seen = measure(sizing).peak_bytes
    modelled = parts(trace(sizing, precision=precision), "ddp", gpus=1, precision=precision, overhead=False).total
    assert seen is not None
    assert modelled == pytest.approx(seen, rel=0.1)
