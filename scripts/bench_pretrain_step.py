#!/usr/bin/env python
"""How fast is a pretraining step? The library's, against a plain eager version of the same step, in one run.

    python scripts/bench_pretrain_step.py                           # B/16, one clip of 8 x 224 x 224, 2 threads
    python scripts/bench_pretrain_step.py --device cuda --clips 64  # on a GPU, in fp32 (TF32 off) and bf16

The plain version, written here, has the same weights and gives the same loss, but embeds the full grid with a
convolution, writes the softmax attention out, selects tokens with boolean masks, draws the mask with
`torch.multinomial`, computes the whole attention matrix of the teacher's last block, normalises and projects all of the
teacher's tokens, and steps with torch's AdamW as it comes; the library's version steps with the library's.

Both take turns, so that what else the machine does falls on both. The table has medians, and the median of the ratios
of neighbouring turns. Claims: fp32 against fp32 at least 1.0x; bf16 against plain fp32 at least 1.6x, on a CPU with
native bf16. A GPU's precisions are each compared with the plain step of the same precision as well.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umt.data.masking import visible_tokens
from umt.layers.attention import Attention
from umt.layers.block import Block
from umt.models import ClipTeacher, Student, create_model
from umt.models.teachers.clip import ClipBlock
from umt.optim.build import create_optimizer

MASK_RATIO = 0.8
CLAIMS = {"ours fp32": 1.0, "ours bf16": 1.6}


# --- the plain version ---


def plain_softmax(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """qkv (B, L, 3 D) -> output (B, L, D) and the whole attention matrix (B, h, L, L)."""
    batch, length, triple = qkv.shape
    q, k, v = qkv.reshape(batch, length, 3, heads, triple // (3 * heads)).permute(2, 0, 3, 1, 4)
    matrix = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(dim=-1)
    return (matrix @ v).transpose(1, 2).reshape(batch, length, triple // 3), matrix


def plain_block(block: Block, x: Tensor) -> Tensor:
    """A block of the student."""
    attention: Attention = block.attn
    bias = torch.cat((attention.q_bias, torch.zeros_like(attention.v_bias), attention.v_bias))
    qkv = F.linear(block.norm1(x), attention.qkv.weight, bias)
    x = x + block.drop_path(attention.proj(plain_softmax(qkv, attention.heads)[0]))
    return x + block.drop_path(block.mlp(block.norm2(x)))


def plain_student(student: Student, video: Tensor, mask: Tensor) -> Tensor:
    """video (B, 3, T, H, W), mask (B, L) bool, True = hidden -> predictions (K, B, V, E)."""
    encoder = student.encoder
    x = encoder.patch_embed.proj(video).flatten(2).transpose(1, 2)
    x = x + encoder.pos_embed.to(x.dtype)
    x = x[~mask].reshape(x.shape[0], -1, x.shape[2])
    outputs = []
    for i, block in enumerate(encoder.blocks):
        x = plain_block(block, x)
        if i in student.returned:
            outputs.append(x)
    x = encoder.norm(torch.stack(outputs))
    positions = student.clip_pos_embed.expand(x.shape[1], -1, -1)[~mask].reshape(x.shape[1], -1, x.shape[3])
    x = x + positions.to(x.dtype)
    return torch.stack([decoder(x[k]) for k, decoder in enumerate(student.clip_decoder)])


def plain_clip_block(block: ClipBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """A block of the teacher, and its attention matrix."""
    qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    out, matrix = plain_softmax(qkv, block.attn.heads)
    x = x + block.attn.out_proj(out)
    return x + block.mlp(block.ln_2(x)), matrix


def plain_teacher(teacher: ClipTeacher, video: Tensor) -> tuple[Tensor, Tensor]:
    """video (B, 3, T, H, W) -> targets of all tokens (K, B, L, E), attention (B T, N)."""
    x = teacher.conv1(video)
    clips, width, frames = x.shape[:3]
    x = x.permute(0, 2, 3, 4, 1).reshape(clips * frames, -1, width)
    first = teacher.class_embedding.to(x.dtype).expand(clips * frames, 1, -1)
    x = teacher.ln_pre(torch.cat((first, x), dim=1) + teacher.positional_embedding.to(x.dtype))
    outputs = []
    for i, block in enumerate(teacher.transformer.blocks()):
        x, matrix = plain_clip_block(block, x)
        if i in teacher.returned:
            outputs.append(x[:, 1:].reshape(clips, -1, width))
    targets = teacher.ln_post(torch.stack(outputs)) @ teacher.proj
    targets = targets.float() / targets.float().norm(dim=-1, keepdim=True)
    return targets, matrix.mean(dim=1)[:, 0, 1:]


def plain_loss(student: Student, teacher: ClipTeacher, video: Tensor, mask: Tensor | None = None) -> Tensor:
    """The step's loss; without a mask it is drawn from the teacher's attention."""
    with torch.no_grad():
        targets, attention = plain_teacher(teacher, video)
        if mask is None:
            visible = attention.shape[1] - int(attention.shape[1] * MASK_RATIO)
            order = torch.multinomial(attention.float(), attention.shape[1])
            mask = torch.ones(attention.shape, dtype=torch.bool, device=order.device)
            mask[torch.arange(len(mask), device=order.device)[:, None], order[:, :visible]] = False
            mask = mask.reshape(video.shape[0], -1)
        targets = targets[:, ~mask].reshape(targets.shape[0], video.shape[0], -1, targets.shape[3])
    return (2 - 2 * (plain_student(student, video, mask) * targets).sum(dim=-1)).mean()


# --- the library's version ---


def our_loss(student: Student, teacher: ClipTeacher, video: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same with the library's models and masks."""
    with torch.no_grad():
        features, saliency = teacher(video)
        if mask is None:
            visible = visible_tokens("attention", MASK_RATIO, torch.rand_like(saliency), saliency)
        else:
            visible = (~mask).nonzero()[:, 1].reshape(video.shape[0], -1)
        targets = teacher.project(features, visible)
    return (2 - 2 * (student(video, visible) * targets).sum(dim=-1)).mean()


# --- measuring ---


def timed(
    loss: Callable[[], Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, bf16: bool, device: torch.device
) -> float:
    """Seconds of one step: forward, backward, clipping, AdamW."""
    start = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        value = loss()
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    optimizer.step()
    optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def cpu_facts() -> tuple[str, list[str]]:
    """Name of the processor, and its instructions for bf16."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), []
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return fields.get("model name", platform.machine()), [f for f in ("avx512_bf16", "amx_bf16", "bf16") if f in flags]


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a pretraining step, the library's against a plain one.")
    parser.add_argument("--model", default="pretrain_umt_base_patch16_224")
    parser.add_argument("--clip_teacher", default="clip_b16")
    parser.add_argument("--clips", type=int, default=1, help="batch size (default 1)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each version (default 7)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--force_bf16", action="store_true", help="time bf16 although the CPU does not have it")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    student: Student = create_model(options.model).train().to(device)
    teacher: ClipTeacher = create_model(options.clip_teacher).requires_grad_(False).eval().to(device)
    plain_optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6)
    our_optimizer = create_optimizer([{"params": list(student.parameters())}], name="adamw", lr=1e-6)
    video = torch.randn(options.clips, 3, *student.clip_shape, device=device)
    cpu, native = cpu_facts()
    print(f"command   python {shlex.join(sys.argv)}")
    if device.type == "cuda":
        print(f"machine   {torch.cuda.get_device_name(device)}; host {cpu}")
    else:
        print(f"machine   {cpu}, {options.threads} threads; bf16 instructions: {', '.join(native) or 'none'}")
    print(f"versions  python {platform.python_version()}, torch {torch.__version__}, {platform.platform()}")
    print(f"step      {options.model} with {options.clip_teacher}, {tuple(video.shape)}, mask {MASK_RATIO}, AdamW")

    mask = torch.ones(options.clips, student.num_tokens, dtype=torch.bool, device=device)
    mask[:, ::5] = False
    with torch.no_grad():
        ours, plain = (f(student, teacher, video, mask).item() for f in (our_loss, plain_loss))
    print(f"same loss ours {ours:.6f}, plain {plain:.6f}")
    if abs(ours - plain) > 1e-4:
        sys.exit("the two versions do not compute the same thing")

    versions: dict[str, tuple[Callable[[], Tensor], torch.optim.Optimizer, bool]] = {
        "plain fp32": (lambda: plain_loss(student, teacher, video), plain_optimizer, False),
        "ours fp32": (lambda: our_loss(student, teacher, video), our_optimizer, False),
    }
    if native or options.force_bf16 or device.type == "cuda":
        versions["plain bf16"] = (lambda: plain_loss(student, teacher, video), plain_optimizer, True)
        versions["ours bf16"] = (lambda: our_loss(student, teacher, video), our_optimizer, True)
    seconds: dict[str, list[float]] = {name: [] for name in versions}
    for turn in range(options.repeats + 1):
        for name, (loss, optimizer, bf16) in versions.items():
            value = timed(loss, student, optimizer, bf16, device)
            if turn:  # the first turn warms up
                seconds[name].append(value)
        if sys.stderr.isatty():
            print(f"\rturn {turn} of {options.repeats}", end="", file=sys.stderr, flush=True)

    print(f"\n{'version':<12}{'median s':>10}{'fastest s':>11}{'x plain fp32':>14}{'claim':>8}")
    for name, values in seconds.items():
        ratio = statistics.median(p / v for p, v in zip(seconds["plain fp32"], values, strict=True))
        claim = f">= {CLAIMS[name]}" if name in CLAIMS else ""
        print(f"{name:<12}{statistics.median(values):>10.3f}{min(values):>11.3f}{ratio:>14.2f}{claim:>8}")
    if "ours bf16" not in versions:
        print("ours bf16   not timed: this CPU has no bf16 instructions")
    else:
        pairs = zip(seconds["plain bf16"], seconds["ours bf16"], strict=True)
        print(f"ours bf16 is {statistics.median(p / v for p, v in pairs):.2f}x plain bf16")
    if device.type == "cuda":
        print(f"peak memory of all versions {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
