"""The quickstart's image teacher: a tiny encoder in CLIP's layout, trained on single frames and their captions.

Real runs use CLIP, which was trained on 400 million captioned pictures. This teacher is trained on a few thousand
rendered frames, each with a caption of what is seen and where ("a star at the top"); a frame shows nothing of how
things move. The class token is matched with the caption. Each patch is trained to name the thing that it shows, which
replaces the knowledge of places and parts that CLIP has from so much more data.

Letters: B frames, H x W pixels, N patches of a frame, E width of the embedding.
`python -m umt.tools.quickstart.teacher --output teacher.pth` writes weights that `--clip_teacher_weights` reads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from umt.data.transforms.normalize import normalize
from umt.models import create_model
from umt.models.teachers.clip import ClipTeacher
from umt.randomness import generator, key
from umt.tools.quickstart import shapes
from umt.tools.quickstart.shapes import Frames

MODEL = "clip_tiny_patch8_48"
CAPTIONS = tuple(f"a {shape} at the {place}" for shape in shapes.SHAPES for place in ("top", "bottom"))
BACKGROUND, DISTRACTOR, FIRST_CAPTION = 0, 1, 2  # what a patch shows
_INSTANTS = 8  # moments of a clip from which a frame is taken


def render_frame(row: int, seed: int, size: int, patch: int) -> tuple[Frames, int, NDArray[np.int64]]:
    """A frame (size, size, 3), the index of its caption, and what each patch shows (N,)."""
    rng = generator(seed, "frame", row)
    shape, move = shapes.CLASSES[shapes.class_of(row)].split(": ")
    things, background = shapes.scene(shape, move, rng, _INSTANTS)
    instant = int(rng.integers(_INSTANTS))
    left, top = rng.integers(0, [background.shape[1] - size, background.shape[0] - size], endpoint=True)
    left = int(np.clip(left, things[-1].centre[instant][0] - size + 6, things[-1].centre[instant][0] - 6))
    picture = shapes.draw(things, background, instant, left, int(top), size)
    middles = np.arange(patch / 2, size, patch) - 0.5
    grid = np.stack(np.meshgrid(middles, middles), axis=-1)

    def covers(thing: shapes.Track) -> NDArray[np.bool_]:
        return np.asarray(np.linalg.norm(grid - (thing.centre[instant] - (left, top)), axis=-1) < thing.radius + 1)

    at_bottom = things[-1].centre[instant][1] - top > size / 2
    caption = shapes.SHAPES.index(shape) * 2 + int(at_bottom)
    shown = np.full(grid.shape[:2], BACKGROUND)
    for thing in things[:-1]:
        shown[covers(thing)] = DISTRACTOR
    shown[covers(things[-1])] = FIRST_CAPTION + caption
    return picture, caption, shown.ravel()


def _render(task: tuple[int, int, int, int]) -> tuple[Frames, int, NDArray[np.int64]]:
    return render_frame(*task)


def start_positions(teacher: ClipTeacher) -> None:
    """Fills the position table with 2-D sinusoids: so few frames cannot teach positions to CLIP's random table."""
    height, width = teacher.patch_grid
    table = teacher.positional_embedding
    quarter = table.shape[1] // 4
    rates = torch.exp(torch.arange(quarter) * (-math.log(30.0) / quarter))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [f(axis.flatten()[:, None] * rates) for axis in (y, x) for f in (torch.sin, torch.cos)]
    with torch.no_grad():
        table[1:] = 0.3 * torch.cat(waves, dim=1)
        table[0] = 0


def train(
    teacher: ClipTeacher,
    frames: Tensor,
    captions: Tensor,
    shown: Tensor,
    *,
    steps: int,
    batch: int,
    lr: float,
    log: Path,
) -> None:
    """Trains in place. frames (M, H, W, 3) uint8, captions (M,), shown (M, N); the last eighth measures accuracy."""
    device, width = teacher.proj.device, teacher.proj.shape[1]
    head = nn.Linear(width, len(CAPTIONS)).to(device)
    parts = nn.Linear(width, FIRST_CAPTION + len(CAPTIONS)).to(device)
    parameters = [*teacher.parameters(), *head.parameters(), *parts.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    held = len(frames) // 8
    weight = torch.ones(parts.out_features, device=device)
    weight[BACKGROUND] = 0.3  # most patches show background

    def tokens(rows: Tensor) -> Tensor:
        video = rearrange(frames[rows], "b h w c -> b c 1 h w").to(device)
        return teacher.encode_tokens(normalize(video))[:, 0]  # (B, 1 + N, E)

    order = torch.cat([torch.randperm(len(frames) - held) for _ in range(steps * batch // (len(frames) - held) + 1)])
    with log.open("w", encoding="utf-8") as file, tqdm(total=steps, desc="teacher", unit="step") as bar:
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            x = tokens(rows)
            loss = F.cross_entropy(head(x[:, 0]), captions[rows].to(device))
            loss = loss + F.cross_entropy(parts(x[:, 1:]).flatten(0, 1), shown[rows].to(device).flatten(), weight)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            bar.update()
            if (step + 1) % 50 == 0 or step + 1 == steps:
                with torch.no_grad():
                    answers = head(tokens(torch.arange(len(frames) - held, len(frames)))[:, 0]).argmax(-1).cpu()
                accuracy = 100 * float((answers == captions[-held:]).float().mean())
                bar.set_postfix(loss=f"{loss.item():.2f}", captions=f"{accuracy:.0f}%")
                line = {"step": step + 1, "steps": steps, "loss": loss.item(), "accuracy": accuracy}
                file.write(json.dumps(line) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the quickstart's image teacher on single frames.")
    parser.add_argument("--output", type=Path, required=True, help="file of the weights; log.txt is written next to it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    words = parser.parse_args()
    torch.manual_seed(key(words.seed, "teacher"))
    teacher: ClipTeacher = create_model(MODEL)
    start_positions(teacher)
    size, patch = teacher.image_shape[0], teacher.patch_size
    tasks = [(row, words.seed, size, patch) for row in range(words.frames)]
    cv2.setNumThreads(1)  # before the fork, as in shapes.py
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(_render, tasks, chunksize=64)
        rendered = list(tqdm(done, total=len(tasks), desc="frames", unit="frame"))
    frames, captions, shown = (torch.from_numpy(np.stack(part)) for part in zip(*rendered, strict=True))
    teacher.to("cuda" if torch.cuda.is_available() else "cpu")
    words.output.parent.mkdir(parents=True, exist_ok=True)
    log = words.output.parent / "log.txt"
    train(teacher, frames, captions, shown, steps=words.steps, batch=words.batch, lr=words.lr, log=log)
    torch.save({name: value.cpu() for name, value in teacher.state_dict().items()}, words.output)


if __name__ == "__main__":
    main()
