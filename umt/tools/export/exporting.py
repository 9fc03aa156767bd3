"""What `umt export` does: load, write each form into a folder that is not yet there, compare, put it in its place."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umt import __version__
from umt.errors import CheckpointError, ConfigError, install
from umt.inference.class_names import class_names
from umt.models.files.checkpoint_file import read_header
from umt.models.files.description import Description
from umt.models.files.fetch import fetch
from umt.models.files.hub import CARD, HubModel, cast_state, described, upload_folder, write_config, write_weights
from umt.models.files.model_card import model_card
from umt.models.files.opened import sha256_of
from umt.models.files.pretrained import load_pretrained
from umt.models.files.weights import Weights, open_weights
from umt.tools.export.graphs import TRACED, WithPreprocessing, compare, example, save_onnx, save_program, trace
from umt.tools.export.new_folder import check_target, new_folder
from umt.tools.export.request import Request

REPORT = "export.json"
Written = tuple[Path, dict[str, Any]]


def export(request: Request) -> Iterator[str]:
    """Does what is asked; gives the lines to print. Raises UserError."""
    check_target(request.output, request.overwrite)
    weights = _open(request)
    model, description = _build(request, weights, request.model)
    saved = model  # what `original` writes: of pretraining, all of it
    if model.exported_as and request.formats != ("original",):
        if request.model:
            raise ConfigError(
                f"--model ({request.model}) is a {model.kind}, whose encoder is exported. Leave --model out."
            )
        model, description = _build(request, weights, model.exported_as)
    description = described(model, description)
    count = sum(parameter.numel() for parameter in model.parameters())
    named = "" if description.labels else " without names"
    yield f"{request.checkpoint}: {description.architecture}, {count / 1e6:.3g} M parameters, " + (
        f"{model.num_classes} classes{named}" if model.num_classes else "features"
    )
    if new := description.provenance.get("untrained"):
        yield f"  not in the checkpoint, and as a new model has them: {new}"
    report: dict[str, Any] = {"umt": __version__, "torch": torch.__version__, "files": {}}
    with new_folder(request.output, overwrite=request.overwrite) as folder:
        write_config(folder, description, {"dtype": request.dtype})
        card = model_card(description, parameters=count, repository=request.push_to_hub)
        (folder / CARD).write_text(card, encoding="utf-8")
        for form in request.formats:
            file, facts = _WRITERS[form](saved if form == "original" else model, description, folder, request)
            size = 0
            for part in sorted(folder.glob(f"{file.name}*")):  # large graphs keep their weights in a second file
                size += part.stat().st_size
                report["files"][part.name] = {"bytes": part.stat().st_size, "sha256": sha256_of(part)}
            report["files"][file.name] |= facts
            yield f"  {file.name:<18} {size / 1e6:>8.1f} MB  {facts['says']}"
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    yield f"  in {request.output}, with config.json, {CARD} and {REPORT}"
    if request.push_to_hub:
        url = upload_folder(request.output, request.push_to_hub, private=request.private or None)
        yield f"  uploaded: {url}"


def _open(request: Request) -> Weights:
    if not request.ema:
        return open_weights(request.checkpoint, hashed=True)
    content = read_header(fetch(request.checkpoint))
    if not isinstance(content, dict) or "model_ema" not in content:
        raise CheckpointError(f"{request.checkpoint} holds no moving average of the weights. Leave out --ema.")
    return open_weights(request.checkpoint, model_key="model_ema", hashed=True)


def _build(request: Request, weights: Weights, model: str | None) -> tuple[HubModel, Description]:
    """The weights as `model`, a name or a kind (None: what they are), and its description."""
    loaded = load_pretrained(weights, model=model, num_frames=request.num_frames, input_size=request.input_size)
    built, description = loaded.model, loaded.description
    if not isinstance(built, HubModel):
        raise CheckpointError(f"{request.checkpoint} is a {type(built).__name__}; video models are exported.")
    bad = [name for name, value in built.state_dict().items() if not value.isfinite().all()]
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
    if built.num_classes and request.features:
        built.reset_classifier(0)
    elif built.num_classes:
        names = class_names(request.checkpoint, built.num_classes, description.labels, request.labels)
        source = _public(request.labels or description.labels_source)
        description = dataclasses.replace(description, labels=names, labels_source=source)
    return built, description


def _public(source: str) -> str:
    """A file or folder by its name alone: where it lay on this machine is not for others."""
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
    return _graph(model, description, folder / "model.pt2", request)


def _onnx(model: HubModel, description: Description, folder: Path, request: Request) -> Written:
    return _graph(model, description, folder / "model.onnx", request)


def _graph(model: HubModel, description: Description, file: Path, request: Request) -> Written:
    """Traces the model, writes it in the form that the file's ending says, and compares what was written with it."""
    from_uint8 = request.with_preprocessing
    module = (WithPreprocessing(model, description) if from_uint8 else model).eval()
    program = trace(module, example(description, TRACED, from_uint8))
    facts: dict[str, Any] = {
        "input": "uint8 (batch, T, H, W, 3)" if from_uint8 else "float32 (batch, 3, T, H, W), normalised",
        "output": "logits" if model.num_classes else "features",
    }
    exported: Callable[[Tensor], Tensor] | None
    if file.suffix == ".pt2":
        exported = save_program(program, file)
    else:
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        metadata = {"model": description.architecture, "exported_with": f"umt {__version__}"}
        exported = save_onnx(
            program, file, opset=request.opset, output=facts["output"], size=size, facts=metadata
        )  # fmt: skip
        facts["opset"] = request.opset
    if exported is None:
        return file, {"says": f"not compared: {install('onnx')}", **facts}
    check = compare(module, exported, file.name, description, from_uint8)
    return file, {"says": str(check), **facts, **dataclasses.asdict(check)}


# Form -> what writes it into the folder, and gives its file and what to say of it.
_WRITERS: dict[str, Callable[[HubModel, Description, Path, Request], Written]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "torch_export": _torch_export,
    "original": _original,
}
