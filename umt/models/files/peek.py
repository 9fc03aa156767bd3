"""What a file of weights is, by names and shapes alone. No torch: a dry run on a login node may look too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from umt.models.files import published
from umt.models.files.fetch import path_here
from umt.models.files.opened import open_file
from umt.models.files.pickles import DAMAGE, Stored
from umt.models.specs import SPECS

_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


@dataclass(frozen=True)
class Start:
    """What weights say of the run that starts from them. None: they do not say it."""

    source: str
    model: str | None = None  # a classifier of this library that they fit
    num_frames: int | None = None
    tubelet_size: int | None = None
    input_size: int | None = None
    head: int = 0  # classes of their head; 0: they have none
    names: tuple[str, ...] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)  # of a training checkpoint of this library


def peek(source: str) -> Start:
    """What `source` is: a row of the published zoo, or a file or exported folder of this machine. Never raises."""
    name = source.split("#sha256=")[0]
    row = published.find(Path(name).name)
    known = Start(source)
    if row is not None:
        known = Start(source, _classifier(row.model), row.num_frames, 1, row.input_size, row.num_classes)
    try:
        path = path_here(source) or Path(name).expanduser()
        if name and path.is_dir():  # "" would be the folder that a command is started in
            return _folder(source, path)
        file = path if path.is_file() else path.with_name(f"{path.name}.pth")
        if file.is_file():
            header = open_file(file).header
            if header is None:
                return known
            start = _of(source, header.content)
            # Shapes say neither frames nor pixels; its name in the zoo does.
            return replace(
                start, num_frames=start.num_frames or known.num_frames, input_size=start.input_size or known.input_size
            )
    except DAMAGE:
        pass  # where it is loaded, a sentence says what is wrong with it
    return known


def _classifier(model: str | None) -> str | None:
    """The classifier that a model is, or that a student becomes."""
    if model is None or model not in SPECS:
        return None
    name = model.removeprefix("pretrain_umt_")
    name = name if name == model else f"vit_{name}"
    return name if name in SPECS and SPECS[name].kind == "classifier" else None


def _folder(source: str, path: Path) -> Start:
    """An exported folder, the folder of a run, or one of transformers; each has a config.json of its own."""
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if "hidden_size" in config:
        return _of_transformers(source, config)
    if "task" in config:
        head = config.get("nb_classes", 0) if config["task"] == "finetune" else 0
        names, sizes = config.get("class_names"), {**config, "image_size": config.get("input_size")}
    else:
        names, sizes = config.get("labels"), config.get("arguments", {})
        head = sizes.get("num_classes", len(names or ()))
    size = sizes.get("image_size")
    return Start(
        source,
        _classifier(config.get("model")),
        sizes.get("num_frames"),
        sizes.get("tubelet_size"),
        size if isinstance(size, int) else None,
        int(head),
        tuple(names) if names else None,
        config if "task" in config else {},
    )


def _of_transformers(source: str, config: Mapping[str, Any]) -> Start:
    classifies = any("VideoClassification" in name for name in config.get("architectures", ()))
    return Start(
        source,
        _of_sizes(config["hidden_size"], config["num_hidden_layers"], config["patch_size"]),
        config.get("num_frames"),
        config.get("tubelet_size"),
        config.get("image_size"),
        len(config.get("id2label", ())) if classifies else 0,
    )


def _of_sizes(width: int, depth: int, patch: int) -> str | None:
    """The first classifier of these sizes."""
    sizes = ("classifier", width, depth, patch)
    return next((name for name, s in SPECS.items() if (s.kind, s.width, s.depth, s.patch_size) == sizes), None)


def _of(source: str, content: Mapping[str, Any]) -> Start:
    """Of what a file of weights holds: the flags of a training checkpoint, and shapes by name."""
    config = content.get("config")
    config = config if isinstance(config, dict) else {}
    state = next((content[key] for key in ("model", "module") if isinstance(content.get(key), dict)), content)
    shapes = {str(key): value.shape for key, value in state.items() if isinstance(value, Stored)}
    patches = [name for name, shape in shapes.items() if name.endswith("patch_embed.proj.weight") and len(shape) == 5]
    model = _classifier(config.get("model"))
    tubelet: int | None = None
    if patches:
        width, _, tubelet, patch, _ = shapes[min(patches, key=len)]
        depth = 1 + max((int(match[1]) for name in shapes if (match := _BLOCK.search(name))), default=-1)
        model = model or _of_sizes(width, depth, patch)
    heads = [name for name in shapes if name.split(".")[-2:] == ["head", "weight"] and "decoder" not in name]
    heads = [name for name in heads if len(shapes[name]) == 2]
    names = config.get("class_names")
    return Start(
        source,
        model,
        config.get("num_frames"),
        config.get("tubelet_size", tubelet),
        config.get("input_size"),
        shapes[min(heads, key=len)][0] if heads else 0,
        tuple(map(str, names)) if isinstance(names, list) else None,
        config,
    )
