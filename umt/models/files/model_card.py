"""README.md of an exported folder: a card of known facts, in the form that the Hugging Face hub reads. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from umt.errors import install
from umt.models.files.description import Description
from umt.models.specs import FAMILIES, Family, find_spec, image_shape

TAGS = ("model_hub_mixin", "pytorch_model_hub_mixin", "unmasked-teacher", "video", "vision-transformer")
# Licences by the hub's identifiers, as far as weights like these have them; others are given by name.
_LICENCES = (
    "mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0",
)  # fmt: skip
_OF = {"code": "this library's code", "weights": "these weights", "teacher": "the teacher", "data": "the training data"}
_PAPER = "https://arxiv.org/abs/2303.16058"


def model_card(description: Description, *, parameters: int = 0, repository: str = "") -> str:
    """The card. `parameters`: how many; 0: not said. `repository`: OWNER/NAME for the examples; "": a folder."""
    where = f"hf://{repository}" if repository else "path/to/this/folder"
    name = repository.rpartition("/")[2] or description.architecture
    classes = int(description.arguments.get("num_classes", 0))
    parts = [_front_matter(description, classes), f"# {name}", _what(description, classes, parameters)]
    parts += ["## Use", _use(where, repository or where, description, classes)]
    parts += ["## Input", _input(description)]
    if classes:
        parts += ["## Classes", _classes(description, classes)]
    parts += ["## Where it comes from", _table(description.provenance) or "Not recorded."]
    parts += ["## Licences", _licences(description.licence)]
    parts += ["## Paper", f"Unmasked Teacher: Towards Training-Efficient Video Foundation Models, {_PAPER}"]
    return "\n\n".join(parts) + "\n"


def pipeline_tag(classes: int) -> str:
    """The hub's word for what the model does."""
    return "video-classification" if classes else "feature-extraction"


def _front_matter(description: Description, classes: int) -> str:
    licence = description.licence.get("weights", "")
    known = licence.lower() in _LICENCES
    lines = ["---", "library_name: umt", f"pipeline_tag: {pipeline_tag(classes)}"]
    lines += [f"license: {licence.lower() if known else 'other' if licence else 'unknown'}"]
    if licence and not known:
        lines += [f"license_name: {_quoted(licence)}"]
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in TAGS), "---"])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _what(description: Description, classes: int, parameters: int) -> str:
    a = description.arguments
    sizes = (
        [f"width {a['width']}, {a['depth']} blocks, {a['heads']} heads"]
        if {"width", "depth", "heads"} <= a.keys()
        else []
    )
    sizes += [f"{parameters / 1e6:.3g} M parameters"] if parameters else []
    inside = f" ({', '.join(sizes)})" if sizes else ""
    named = description.architecture == description.model
    layout = f"in the layout of `{description.model}`" if named else "of sizes that no model of this library has"
    head = f"It distinguishes {classes} classes." if classes else "It has no head and gives features."
    return _family(description).card.format(sizes=inside, layout=layout, head=head)


def _family(description: Description) -> Family:
    return FAMILIES[find_spec(description.model).kind]


def _use(where: str, name: str, description: Description, classes: int) -> str:
    kind = _family(description).model.rpartition(":")[2]
    lines = ["```python", f"from umt.models import {kind}", ""]
    lines += [f'model = {kind}.from_pretrained("{name}")  # {install("hub")}', "```"]
    if not classes:
        return "\n".join(lines)
    views = f"clips={description.test_clips}, crops={description.test_crops}"
    recognise = ["```python", "import umt", "", f'model = umt.load("{where}")  # {install("train")}']
    recognise += [f'probabilities = model.predict(model.transform("video.mp4", {views}))']
    recognise += ["print(model.labels[probabilities.argmax()])", "```"]
    return "\n".join([*recognise, "", "As a backbone, which needs only torch and the packages of the hub:", "", *lines])


def _input(description: Description) -> str:
    height, width = image_shape(description.arguments.get("image_size", 224))
    rate = f", every {description.sampling_rate}th frame" if description.sampling == "dense" else ""
    facts: dict[str, str | int | float] = {
        "clip": f"(batch, 3, {description.num_frames}, {height}, {width}): channels RGB, frames, height, width",
        "values": f"(x / 255 - mean) / std, mean {_numbers(description.mean)}, std {_numbers(description.std)}",
        "frames": f"{description.num_frames}, sampling {description.sampling!r}{rate}",
        "resize": f"short side {description.short_side_size} px before the crop",
    }
    if description.arguments.get("num_classes"):
        facts["test views"] = f"{description.test_clips} clips x {description.test_crops} crops"
    return _table(facts)


def _classes(description: Description, classes: int) -> str:
    how = "They exclude each other: a softmax."
    if description.multi_label:
        how = "They do not exclude each other: one sigmoid per class."
    if description.labels is None:
        return f"{classes}, whose names are not known. {how}"
    source = f", from {description.labels_source}" if description.labels_source else ""
    some = ", ".join(description.labels[:5]) + (", and so on" if classes > 5 else "")
    return f"{classes}{source}: {some}; all in the order of the head in `config.json`. {how}"


def _licences(licence: Mapping[str, str]) -> str:
    known = {"code": "MIT", **licence}
    return _table({what: known.get(key, "not stated; ask the author") for key, what in _OF.items()})


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _table(facts: Mapping[str, str | int | float]) -> str:
    rows = [f"| {key} | {str(value).replace('|', '/')} |" for key, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows]) if rows else ""
