"""Everything about some videos into one folder: a PNG and a GIF of each, looks.json, and a page that stands alone."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from umt import drawing
from umt.errors import ConfigError, VideoError
from umt.inference.recognizer import Recognizer
from umt.inference.sources import find_videos
from umt.models import Student, VisionTransformer
from umt.models.files.weights import open_weights
from umt.pages import fill
from umt.tools.visualize import figures
from umt.tools.visualize.classes import ClassMaps
from umt.tools.visualize.look import Attention, Look, Show, Viewer
from umt.tools.visualize.pretraining import Pretraining
from umt.tools.visualize.teacher import Guide, guide_of
from umt.writing import output_errors, whole

PAGE, NUMBERS = "index.html", "looks.json"


def visualize(words: Namespace, command: Sequence[str], model: Recognizer) -> str:
    """Looks at the videos and writes the folder; returns the text for the console. Raises UserError."""
    if not isinstance(model.model, Student | VisionTransformer):
        raise ConfigError(f"{words.checkpoint} is a {type(model.model).__name__}: only video models have these maps.")
    videos = find_videos(words.videos)
    paths = [videos.file(row) for row in range(min(len(videos), words.limit))]
    guide = guide_of(words, model, open_weights(words.checkpoint, header=True).settings)
    shows: list[Show] = [Pretraining(model, guide, seed=words.seed), Attention(model, residual=words.residual)]
    if model.num_classes:
        shows.append(ClassMaps(model, topk=words.topk))
    else:
        guide.missing.append("No maps of classes: the checkpoint has no head.")
    if len(videos) > len(paths):
        guide.missing.append(f"{len(paths)} of {len(videos)} videos are shown (--limit).")
    viewer = Viewer(model, shows)
    cards: list[dict[str, Any]] = []
    names: set[str] = set()
    for path in tqdm(paths, desc="videos", unit="video", disable=None, leave=False):
        try:
            look = viewer.look(path)
        except VideoError as error:
            guide.missing.append(f"Not shown: {error}")
            continue
        name = _name(path, names)
        cards.append(_card(look, name, words))
    if not cards:
        raise VideoError(f"none of {len(paths)} videos could be read. {guide.missing[-1].removeprefix('Not shown: ')}")
    _write(words.output / NUMBERS, json.dumps([card["numbers"] for card in cards], indent=1).encode() + b"\n")
    _write(words.output / PAGE, page(words, command, model, guide, cards).encode())
    return "\n".join([*(_line(card) for card in cards), *guide.missing, f"Page: {words.output / PAGE}"])


def _name(path: str, taken: set[str]) -> str:
    """A name for the files of a video that no other video has."""
    stem = Path(path.rstrip("/")).stem or "video"
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem)
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name


def _card(look: Look, name: str, words: Namespace) -> dict[str, Any]:
    moving = figures.gif(look)
    _write(words.output / f"{name}.png", figures.sheet(look, words.frames))
    _write(words.output / f"{name}.gif", moving)
    return {
        "name": name,
        "path": look.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "gif": drawing.data_uri(moving, "gif"),
        "strips": [
            {"title": title, "note": note, "src": figures.webp(picture)}
            for title, note, picture in figures.strips(look, words.frames)
        ],
        "cosines": drawing.data_uri(figures.cosines(look)) if look.cosines else "",
        "answers": look.answers,
        "numbers": {
            "video": look.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            "frames": look.numbers,
            "cosines": [{"blocks": b, "others_hidden": v, "none_hidden": a} for b, v, a in look.cosines],
            "answers": [{"class": c, "probability": p} for c, p in look.answers],
            "maps": {row.key: {"title": row.title, "note": row.note} for row in look.maps},
        },
    }


def _line(card: dict[str, Any]) -> str:
    """The line of a video on the console."""
    facts = [f"{name} {100 * odds:.1f} %" for name, odds in card["answers"][:1]]
    cosines = card["numbers"]["cosines"]
    facts += [f"cosine {cosines[-1]['others_hidden']:.3f} at visible tokens of the last block"] if cosines else []
    return f"{card['path']}: " + ", ".join(facts or ["done"])


def page(words: Namespace, command: Sequence[str], model: Recognizer, guide: Guide, cards: list[dict[str, Any]]) -> str:
    """The page as HTML, which needs no other file."""
    about = model.description
    grid = "x".join(map(str, model.model.grid))  # type: ignore[arg-type]
    facts = [
        ("checkpoint", str(words.checkpoint)),
        ("model", about.model),
        ("clip", f"{about.num_frames} frames of {about.input_size} pixels, {grid} tokens"),
        ("classes", str(model.num_classes or "none")),
        ("teacher", guide.name or "none"),
        (
            "mask",
            f"{guide.mask_type}, {100 * guide.mask_ratio:g} % hidden, seed {words.seed}" if guide.mask_type else "none",
        ),
    ]
    return fill(
        Path(__file__).with_name("page.html"),
        title=Path(str(words.checkpoint)).name,
        facts=facts,
        missing=guide.missing,
        cards=cards,
        student=isinstance(model.model, Student),
        residual=words.residual,
        command=shlex.join(command).encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
    )


def _write(path: Path, content: bytes) -> None:
    """Writes a file. OutputError if that is impossible."""
    with output_errors(f"--output: {path}", "Choose another folder."), whole(path, flush=False) as place:
        place.write_bytes(content)
