"""Models to and from folders and the Hugging Face hub; its client is imported when it is used.

A folder has `config.json` (a `Description`, and the keywords of the model's class), `model.safetensors` and a card. So
`umt.load`, `load_pretrained` and `from_pretrained` read it, and any class that inherits from a model here and from
huggingface_hub's `PyTorchModelHubMixin`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor, dtype, nn

from umt.errors import CheckpointError, ConfigError, install
from umt.models.files.description import Description
from umt.models.files.hub_access import asking_the_hub, hub_errors
from umt.models.files.model_card import model_card
from umt.models.specs import SPECS, ModelSpec, find_spec

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_Model = TypeVar("_Model", bound="HubModel")


class HubModel(nn.Module):
    """`from_pretrained`, `save_pretrained` and `push_to_hub`. Needs huggingface_hub and safetensors (extra `hub`)."""

    kind: ClassVar[str]  # one of `FAMILIES`
    exported_as: ClassVar[str] = ""  # the kind that users get of it, where that is another
    description: Description | None = None
    num_classes: int = 0

    @property
    def arguments(self) -> dict[str, Any]:
        """Keywords of the class that build the same architecture again; plain values, fit for json."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        """Puts a new head of `num_classes` rows in place of the old one; 0: none."""
        raise NotImplementedError(f"{type(self).__name__} has no head")

    @classmethod
    def from_pretrained(
        cls: type[_Model],
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **keywords: Any,
    ) -> _Model:
        """The model of an exported folder or of a repository OWNER/NAME of the hub, in evaluation mode, on the CPU.

        Args:
            revision, token, cache_dir, force_download, local_files_only: for the hub, as everywhere in huggingface_hub.
            keywords: of `load_pretrained`: num_frames, input_size, num_classes, ...

        Its `description` has labels, normalisation and origin. Raises `CheckpointError`.
        """
        name = os.fspath(source)
        local = os.path.exists(name)
        if not local and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            raise CheckpointError(f"{name} is neither a folder nor a name of the hub (OWNER/NAME). Check the path.")
        folder = Path(name)
        if not local:
            where: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
            where |= {"force_download": force_download, "local_files_only": local_files_only}
            with hub_errors(name, name, file=WEIGHTS, revision=revision), asking_the_hub():
                from huggingface_hub import hf_hub_download

                hf_hub_download(name, CONFIG, **where)
                folder = Path(hf_hub_download(name, WEIGHTS, **where)).parent  # of the same snapshot
        from umt.models.files.pretrained import load_pretrained

        loaded = load_pretrained(folder, **keywords)
        model: nn.Module = loaded.model
        if isinstance(model, HubModel):
            model.description = loaded.description
        if not isinstance(model, cls):
            raise CheckpointError(f"{name} holds a {type(model).__name__}: use {type(model).__name__}.from_pretrained.")
        return model

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, description: Description | None = None, repository: str = ""
    ) -> None:
        """Writes config.json, model.safetensors and README.md into `folder`, in place of what is there.

        `description`: what the folder says of the model; None: what it was loaded with. Its arguments are the model's.
        `repository`: its name on the hub, for the example in the card.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_files(self, Path(folder), described(self, description), repository)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        description: Description | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Weights exported by umt",
    ) -> str:
        """Uploads what `save_pretrained` writes to OWNER/NAME, made if it does not exist; gives the commit's URL.

        Raises `CheckpointError` where the hub cannot be reached or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, description=description, repository=repo_id)
            return upload_folder(Path(folder), repo_id, private=private, token=token, commit_message=commit_message)


def described(model: HubModel, description: Description | None = None) -> Description:
    """`description`, or what the model was loaded with, brought up to what the model is now."""
    known = description or model.description or Description(model=_nearest_name(model))
    labels = known.labels
    if labels is not None and len(labels) != model.num_classes:
        labels = None  # the head is another one
    return dataclasses.replace(known, arguments=dict(model.arguments), labels=labels)


def _nearest_name(model: HubModel) -> str:
    """The entry with most sizes in common; the description's arguments say them all, so any would build the model."""

    def common(spec: ModelSpec) -> int:
        return sum(model.arguments.get(name) == value for name, value in spec.arguments().items())

    return max((name for name, spec in SPECS.items() if spec.kind == model.kind), key=lambda n: common(find_spec(n)))


def write_files(model: HubModel, folder: Path, description: Description, repository: str = "") -> None:
    """config.json, model.safetensors and README.md."""
    write_weights(model, folder)
    write_config(folder, description)
    count = sum(parameter.numel() for parameter in model.parameters())
    (folder / CARD).write_text(model_card(description, parameters=count, repository=repository), encoding="utf-8")


def write_weights(model: HubModel, folder: Path, cast: dtype | None = None) -> Path:
    """model.safetensors, its floats as `cast`."""
    try:
        from safetensors.torch import save
    except ImportError:
        raise ConfigError(f"safetensors is not installed. Run: {install('hub')}") from None

    state = {name: value.contiguous() for name, value in cast_state(model.state_dict(), cast).items()}
    # Through memory, because safetensors, when it writes a file itself, has its own error for a full disk.
    (folder / WEIGHTS).write_bytes(save(state, metadata={"format": "pt"}))
    return folder / WEIGHTS


def write_config(folder: Path, description: Description, more: dict[str, Any] | None = None) -> None:
    """config.json: the description, and its arguments once more at the top, where the hub's mixin looks for them."""
    content = {**description.to_json(), **json.loads(json.dumps(description.arguments)), **(more or {})}
    (folder / CONFIG).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def cast_state(state: dict[str, Tensor], cast: dtype | None) -> dict[str, Tensor]:
    """The state dict with its floats as `cast`; None: as they are."""
    return {name: value.to(cast) if cast and value.is_floating_point() else value for name, value in state.items()}


def upload_folder(
    folder: Path,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Weights exported by umt",
) -> str:
    """Uploads all of `folder` to OWNER/NAME of the hub, which is made if it does not exist; gives the commit's URL."""
    with hub_errors(repository, repository, uploading=True):
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        name = api.create_repo(repository, private=private, exist_ok=True).repo_id
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message=commit_message))
