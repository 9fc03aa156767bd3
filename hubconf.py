"""Entry points of torch.hub: every model of the library by its name, with or without weights.

model = torch.hub.load("owner/repository", "vit_base_patch16_224", num_frames=8, num_classes=400)
model = torch.hub.load("owner/repository", "vit_base_patch16_224", pretrained="b16_k400.pth")
model = torch.hub.load("owner/repository", "pretrained", "b16_k400.pth")
"""

from __future__ import annotations

from collections.abc import Callable as _Callable
from typing import Any as _Any

from umt.models import create_model as _create_model
from umt.models import load_weights as _load_weights
from umt.models.specs import SPECS as _SPECS

dependencies = ["torch", "numpy"]


def pretrained(source: str, architecture: str | None = None, **wanted: _Any) -> _Any:
    """The model of a checkpoint, in evaluation mode, on the CPU; its `description` has labels and normalisation.

    `source`: a file, an exported folder, a URL, hf://OWNER/REPO, or a name of the model zoo. `architecture`: a model's
    name, where the source does not say it. `wanted`: keywords of `umt.models.load_pretrained`: num_frames, input_size,
    num_classes, sha256, ...
    """
    from umt.models import load_pretrained

    loaded = load_pretrained(source, model=architecture, **wanted)
    loaded.model.description = loaded.description  # type: ignore[assignment]
    return loaded.model


def _entry(name: str) -> _Callable[..., _Any]:
    def create(pretrained: str | None = None, **arguments: _Any) -> _Any:
        if pretrained and _SPECS[name].kind != "teacher":
            return globals()["pretrained"](pretrained, name, **arguments)
        model = _create_model(name, **arguments)
        if pretrained:
            _load_weights(model, pretrained)
            model.eval()
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"""{_SPECS[name].summary[0].upper()}{_SPECS[name].summary[1:]}.

    `pretrained`: a file, an exported folder, a URL, hf://OWNER/REPO, or a name of the model zoo; None: fresh weights.
    `arguments`: keywords of the model's class (num_frames, image_size, num_classes, ...); of students and classifiers
    with `pretrained`, of `load_pretrained` (num_frames, input_size, num_classes, ...).
    """
    return create


globals().update({_name: _entry(_name) for _name in _SPECS})
