"""What `umt export` does: load, write each form into a folder that is not yet there, compare, put it in its place."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from umt import __version__
from umt.errors import CheckpointError, ConfigError, install
from umt.inference.class_names import class_names
from umt.models import Student, VisionTransformer
from umt.models.description import Description
from umt.models.files.checkpoint_file import read_content
from umt.models.files.fetch import fetch, sha256_of
from umt.models.files.hub import CARD, HubModel, cast_state, described, upload_folder, write_config, write_weights
from umt.models.files.model_card import model_card
from umt.models.pretrained import load_pretrained
from umt.tools.export.command import Request
from umt.tools.export.graphs import TRACED, WithPreprocessing, compare, example, save_onnx, save_program, trace
from umt.tools.export.new_folder import check_target, new_folder

REPORT = "export.json"
Written = tuple[Path, dict[str, Any]]


def export(request: Request) -> Iterator[str]:
    """Does what is asked; gives the lines to tell. Raises UserError."""
    check_target(request.output, request.overwrite)
    whole, told = _load(request)
    keeps_student = isinstance(whole, VisionTransformer) or request.formats == ("original",)
    model, description = (whole, told) if keeps_student else _load(request, "classifier")
    description = described(model, description)
    count = sum(parameter.numel() for parameter in model.parameters())
    classes = int(description.arguments.get("num_classes", 0))
    yield f"{request.checkpoint}: {description.architecture}, {count / 1e6:.3g} M parameters, " + (
        f"{classes} classes" + ("" if description.labels else " without names") if classes else "features"
    )
    if new := description.provenance.get("untrained"):
        yield f"  not in the checkpoint, and as a new model has them: {new}"
    report: dict[str, Any] = {"umt": __version__, "torch": torch.__version__, "files": {}}
    with new_folder(request.output, overwrite=request.overwrite) as folder:
        write_config(folder, description, {"dtype": request.dtype})
        card = model_card(description, parameters=count, repository=request.push_to_hub)
        (folder / CARD).write_text(card, encoding="utf-8")
        for form in request.formats:
            subject = whole if form == "original" else model
            file, fact = _WRITERS[form](subject, description, folder, request)
            size = 0
            for part in sorted(folder.glob(f"{file.name}*")):  # large graphs keep their weights in a second file
                size += part.stat().st_size
                report["files"][part.name] = {"bytes": part.stat().st_size, "sha256": sha256_of(part)}
            report["files"][file.name] |= fact
            yield f"  {file.name:<18} {size / 1e6:>8.1f} MB  {fact['says']}"
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    yield f"  in {request.output}, with config.json, {CARD} and {REPORT}"
    if request.push_to_hub:
        url = upload_folder(request.output, request.push_to_hub, private=request.private or None)
        yield f"  uploaded: {url}"


def _load(request: Request, kind: str | None = None) -> tuple[HubModel, Description]:
    """The weights as what they are, or as a `kind` of model, with what is told of them."""
    asked: dict[str, Any] = {"model": kind or request.model}
    for name, value in (("num_frames", request.num_frames), ("input_size", request.input_size)):
        asked |= {name: value} if value is not None else {}
    if request.ema:
        content = read_content(fetch(request.checkpoint), lazily=True)
        if not isinstance(content, dict) or "model_ema" not in content:
            raise CheckpointError(f"{request.checkpoint} holds no moving average of the weights. Leave out --ema.")
        asked["model_key"] = "model_ema"
    if kind and request.model:
        raise ConfigError(f"--model ({request.model}) is a student, whose encoder is exported. Leave --model out.")
    loaded = load_pretrained(request.checkpoint, **asked)
    if not isinstance(loaded.model, VisionTransformer | Student):
        raise CheckpointError(
            f"{request.checkpoint} is a {type(loaded.model).__name__}; classifiers and students are exported."
        )
    model, description = loaded.model, loaded.description
    bad = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{request.checkpoint}: {bad[0]} holds values that are no numbers ({len(bad)} such). "
            "Export a checkpoint from before the training diverged."
        )
    provenance = {**description.provenance, "exported_with": f"umt {__version__}"}
    provenance |= {"weights": "exponential moving average"} if request.ema else {}
    provenance |= {"untrained": ", ".join(loaded.report.new)} if loaded.report.new else {}
    provenance["source"] = _public(str(provenance.get("source", request.checkpoint)))
    description = dataclasses.replace(
        description, provenance=provenance, licence={**description.licence, **request.licence}
    )
    if isinstance(model, VisionTransformer) and request.features:
        model.reset_classifier(0)
    elif isinstance(model, VisionTransformer) and model.num_classes:
        names = class_names(request.checkpoint, model.num_classes, description.labels, request.labels)
        source = _public(request.labels or description.labels_source)
        description = dataclasses.replace(description, labels=names, labels_source=source)
    return model, description


def _public(source: str) -> str:
    """A file or folder by its name alone: where it lay on this machine is nobody's business."""
    return Path(source).resolve().name if Path(source).exists() else source


def _safetensors(model: HubModel, description: Description, folder: Path, request: Request) -> Written:
    file = write_weights(model, folder, getattr(torch, request.dtype))
    return file, {"says": f"{request.dtype}, {len(model.state_dict())} tensors"}


def _original(model: HubModel, description: Description, folder: Path, request: Request) -> Written:
    """The names are the original's already, and so is what of the position table is saved."""
    state, content = cast_state(model.state_dict(), getattr(torch, request.dtype)), io.BytesIO()
    torch.save({"model": {name: value.clone() for name, value in state.items()}}, content)
    file = folder / "model.pth"
    file.write_bytes(content.getbuffer())
    return file, {"says": f"{request.dtype}, {len(state)} tensors under 'model'"}


def _torch_export(model: HubModel, description: Description, folder: Path, request: Request) -> Written:
    computed, program, fact = _traced(model, description, request)
    file = folder / "model.pt2"
    exported = save_program(program, file)
    check = compare(computed, exported, file.name, description, request.with_preprocessing)
    return file, {"says": str(check), **fact, **dataclasses.asdict(check)}


def _onnx(model: HubModel, description: Description, folder: Path, request: Request) -> Written:
    computed, program, fact = _traced(model, description, request)
    file = folder / "model.onnx"
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    facts = {"model": description.architecture, "exported_with": f"umt {__version__}"}
    exported = save_onnx(program, file, opset=request.opset, output=fact["output"], size=size, facts=facts)
    fact["opset"] = request.opset
    if exported is None:
        return file, {"says": f"not compared: {install('onnx')}", **fact}
    check = compare(computed, exported, file.name, description, request.with_preprocessing)
    return file, {"says": str(check), **fact, **dataclasses.asdict(check)}


def _traced(model: HubModel, description: Description, request: Request) -> tuple[nn.Module, Any, dict[str, Any]]:
    takes = request.with_preprocessing
    computed = (WithPreprocessing(model, description) if takes else model).eval()
    taken = "uint8 (batch, T, H, W, 3)" if takes else "float32 (batch, 3, T, H, W), normalised"
    given = "logits" if description.arguments.get("num_classes") else "features"
    return computed, trace(computed, example(description, TRACED, takes)), {"input": taken, "output": given}


# Form -> what writes it into the folder, and gives its file and what to say of it.
_WRITERS: dict[str, Callable[[HubModel, Description, Path, Request], Written]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "torch_export": _torch_export,
    "original": _original,
}
