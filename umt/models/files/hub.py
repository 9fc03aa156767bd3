"""Models to and from folders and the Hugging Face hub, by huggingface_hub's own mixin, imported when it is used.

A folder has `config.json` (a `Description`, and beside it the keywords of the model's class), `model.safetensors` and a
card. So `umt.load`, `load_pretrained` and `from_pretrained` read it, and so does any class of one's own that inherits
from a model here and from `PyTorchModelHubMixin`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor, dtype, nn

from umt.errors import CheckpointError, ConfigError, install
from umt.models.description import Description
from umt.models.files.model_card import TAGS, model_card
from umt.models.specs import SPECS, ModelSpec, find_spec

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_Model = TypeVar("_Model", bound="HubModel")


class HubModel(nn.Module):
    """`from_pretrained`, `save_pretrained` and `push_to_hub`. Needs huggingface_hub and safetensors (extra `hub`)."""

    kind: ClassVar[str]
    description: Description | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Keywords of the class that build the same architecture again; plain values, fit for json."""
        raise NotImplementedError

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
        **wanted: Any,
    ) -> _Model:
        """The model of an exported folder or of a repository OWNER/NAME of the hub, in evaluation mode, on the CPU.

        Args:
            revision, token, cache_dir, force_download, local_files_only: for the hub, as everywhere in huggingface_hub.
            wanted: keywords of `load_pretrained`: num_frames, input_size, num_classes, ...

        Its `description` has labels, normalisation and origin. Raises `CheckpointError`.
        """
        name = os.fspath(source)
        local = os.path.exists(name)
        if not local and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            raise CheckpointError(f"{name} is neither a folder nor a name of the hub (OWNER/NAME). Check the path.")
        hub = {"revision": revision, "token": token, "cache_dir": cache_dir}
        flags = {"force_download": force_download, "local_files_only": local_files_only}
        if local:
            model = _loaded(name, **wanted)
        else:
            with _told(name):
                model = _on_hub().from_pretrained(name, **hub, **flags, **wanted).network
        if not isinstance(model, cls):
            raise CheckpointError(f"{name} holds a {type(model).__name__}: use {type(model).__name__}.from_pretrained.")
        return model

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, description: Description | None = None, repository: str = ""
    ) -> None:
        """Writes config.json, model.safetensors and README.md into `folder`, in place of what is there.

        `description`: what to say of the model beside its architecture; None: what it was loaded with.
        `repository`: its name on the hub, for the example in the card.
        """
        on_hub = _on_hub()(self, described(self, description), repository)
        (Path(folder) / CARD).unlink(missing_ok=True)  # the mixin keeps a card that it finds
        on_hub.save_pretrained(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        description: Description | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Weights exported by umt",
    ) -> str:
        """Uploads what `save_pretrained` writes to OWNER/NAME, which is made if need be; gives the commit's URL.

        Raises `CheckpointError` where the hub cannot be reached or refuses.
        """
        on_hub = _on_hub()(self, described(self, description), repo_id)
        with _told(repo_id):
            url = on_hub.push_to_hub(repo_id, private=private, token=token, commit_message=commit_message)
        return str(url)


def described(model: HubModel, description: Description | None = None) -> Description:
    """`description`, or what the model was loaded with, brought up to what the model is now."""
    known = description or model.description or Description(model=_nearest_name(model))
    labels = known.labels
    if labels is not None and len(labels) != getattr(model, "num_classes", len(labels)):
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
    # By way of the memory: writing by itself, safetensors has an error of its own for a full disk.
    (folder / WEIGHTS).write_bytes(save(state, metadata={"format": "pt"}))
    return folder / WEIGHTS


def write_config(folder: Path, description: Description, more: dict[str, Any] | None = None) -> None:
    """config.json: the description, and its arguments once more at the top, where the hub's mixin looks for them."""
    content = {**description.to_json(), **json.loads(json.dumps(description.arguments)), **(more or {})}
    (folder / CONFIG).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def cast_state(state: dict[str, Tensor], cast: dtype | None) -> dict[str, Tensor]:
    """The state dict with its floats as `cast`; None: as they are."""
    return {name: value.to(cast) if cast and value.is_floating_point() else value for name, value in state.items()}


def upload_folder(folder: Path, repository: str, *, private: bool | None = None) -> str:
    """Uploads all of `folder` to OWNER/NAME of the hub, which is made if need be; gives the commit's URL."""
    with _told(repository):
        from huggingface_hub import HfApi

        api = HfApi()
        name = api.create_repo(repository, private=private, exist_ok=True).repo_id
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="Weights exported by umt"))


def _loaded(source: str, **wanted: Any) -> nn.Module:
    from umt.models.pretrained import load_pretrained

    loaded = load_pretrained(source, **wanted)
    if isinstance(loaded.model, HubModel):
        loaded.model.description = loaded.description
    model: nn.Module = loaded.model
    return model


@functools.cache
def _on_hub() -> Any:
    """The hub's mixin, taught our files. A class beside the models, so that they need no huggingface_hub themselves."""
    try:
        from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
    except ImportError:
        raise ConfigError(f"huggingface_hub is not installed. Run: {install('hub')}") from None

    class OnHub(PyTorchModelHubMixin, library_name="umt", tags=list(TAGS)):
        def __init__(self, network: Any, facts: Any = None, repository: str = "") -> None:
            self.network, self.facts, self.repository = network, facts, repository

        def _save_pretrained(self, save_directory: Path) -> None:
            write_files(self.network, save_directory, self.facts, self.repository)

        def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError("_save_pretrained has written it")

        @classmethod
        def _from_pretrained(cls, *, model_id: str, **given: Any) -> Any:
            names = ("revision", "token", "cache_dir", "force_download", "local_files_only")
            hub = {name: given.pop(name) for name in names}
            folder = Path(hf_hub_download(model_id, WEIGHTS, **hub)).parent
            hf_hub_download(model_id, CONFIG, **hub)  # into the same snapshot
            return cls(_loaded(str(folder), **given))

    return OnHub


@contextlib.contextmanager
def _told(repository: str) -> Iterator[None]:
    """The hub's errors become sentences that name the repository."""
    _on_hub()
    from huggingface_hub import errors

    http_error: Any = errors.HfHubHTTPError.__bases__[0]  # of the HTTP client, whichever it is this year
    try:
        yield
    except (errors.GatedRepoError, errors.RepositoryNotFoundError):
        raise CheckpointError(
            f"{repository}: the hub has no such model, or you may not see it. Check the name, or run: hf auth login"
        ) from None
    except errors.LocalTokenNotFoundError:
        raise CheckpointError(f"{repository}: the hub does not know who you are. Run: hf auth login") from None
    except errors.HFValidationError as error:
        raise CheckpointError(f"{repository} is not a name of the hub (OWNER/NAME): {_first(error)}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        login = " Run: hf auth login" if status in (401, 403) else ""
        raise CheckpointError(f"{repository}: the hub refuses, {status}: {_first(error)}.{login}") from None
    except errors.EntryNotFoundError as error:
        raise CheckpointError(f"{repository} cannot be fetched: {_first(error)}") from None
    except (OSError, http_error, errors.OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{repository}: the hub cannot be reached ({_first(error)}). Try where there is a network, or use a folder."
        ) from None


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
