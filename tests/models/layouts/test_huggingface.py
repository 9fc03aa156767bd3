"""VideoMAE of Hugging Face: the same logits as transformers gives, in either naming of the biases of q and v."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from umt.errors import CheckpointError, UserError
from umt.models import VisionTransformer, load_weights
from umt.models.files.description import Description
from umt.models.files.model_card import model_card
from umt.models.files.pretrained import load_pretrained
from umt.models.layouts import huggingface

NAMES = dict(enumerate(["yoga", "zumba", "archery", "bowling", "juggling", "cooking", "golf"]))
SMALL: dict[str, Any] = {
    "model_type": "videomae",
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 4,
    "tubelet_size": 2,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "use_mean_pooling": True,
    "id2label": NAMES,
}


def classifier() -> VisionTransformer:
    """A small model of ours, all of it random, that SMALL describes."""
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=32, patch_size=8, width=48, depth=2, heads=4, mlp_ratio=2, num_frames=4, tubelet_size=2,
        num_classes=7, position_grid=(2, 4, 4),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model.eval()


def in_their_names(model: VisionTransformer, biases: str = "q_bias") -> dict[str, Tensor]:
    """The weights as transformers names them; `biases`: "q_bias" as its version 4, "query" as its version 5."""
    theirs: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        name = re.sub(r"^blocks\.", "videomae.encoder.layer.", name)
        if name.endswith("attn.qkv.weight"):
            stem = name.removesuffix("attn.qkv.weight") + "attention.attention."
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                theirs[f"{stem}{part}.weight"] = rows
            continue
        for ours, other in (
            ("patch_embed.proj", "videomae.embeddings.patch_embeddings.projection"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
            ("attn.q_bias", "attention.attention.q_bias" if biases == "q_bias" else "attention.attention.query.bias"),
            ("attn.v_bias", "attention.attention.v_bias" if biases == "q_bias" else "attention.attention.value.bias"),
            ("head.", "classifier."),
        ):
            name = name.replace(ours, other)
        if name != "pos_embed":  # they do not save it
            theirs[name] = value.contiguous()
    return theirs


def folder(path: Path, state: dict[str, Tensor], file: str = "pytorch_model.bin", **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    torch.save(state, path / file)
    (path / "config.json").write_text(json.dumps({**SMALL, **config}))
    return path


VIDEO = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("biases", ["q_bias", "query"])
def test_a_folder_in_either_naming_is_the_same_model(tmp_path: Path, biases: str) -> None:
    ours = classifier()
    loaded = load_pretrained(folder(tmp_path / "hub", in_their_names(ours, biases)))
    assert torch.equal(loaded.model(VIDEO), ours(VIDEO))
    assert loaded.description.labels == tuple(NAMES.values())
    assert not loaded.report.new
    assert not loaded.report.unused


def test_a_file_without_biases_of_q_and_v_is_refused(tmp_path: Path) -> None:
    lost = {name: value for name, value in in_their_names(classifier()).items() if not name.endswith("_bias")}
    with pytest.raises(
        CheckpointError, match=r"layer 0 has no bias of q and v .*Some versions of transformers drop it"
    ):
        load_pretrained(folder(tmp_path / "hub", lost))


def test_weights_go_into_a_classifier_of_other_frames_too(tmp_path: Path) -> None:
    model = VisionTransformer(
        image_size=48, patch_size=8, width=48, depth=2, heads=4, mlp_ratio=2, num_frames=8, tubelet_size=1,
        num_classes=7,
    )  # fmt: skip
    report = load_weights(model, folder(tmp_path / "hub", in_their_names(classifier())))
    assert "2 -> 1 frames a token" in report.adapted["patch_embed.proj.weight"]
    assert not report.new


def test_placeholders_are_no_labels(tmp_path: Path) -> None:
    hub = folder(tmp_path / "hub", in_their_names(classifier()), id2label={i: f"LABEL_{i}" for i in range(7)})
    assert load_pretrained(hub).description.labels is None


def test_normalisation_comes_from_the_preprocessor(tmp_path: Path) -> None:
    hub = folder(tmp_path / "hub", in_their_names(classifier()))
    (hub / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}')
    described = load_pretrained(hub).description
    assert (described.mean, described.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"hidden_act": "relu"}, "hidden_act is relu; models of this library have gelu"),
        ({"patch_size": [8, 4]}, "patches of 8 x 4 pixels; this library has square ones"),
        ({"qv_bias": False}, "qv_bias is False"),
    ],
)
def test_what_our_models_cannot_be_is_refused(tmp_path: Path, config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        load_pretrained(folder(tmp_path / "hub", in_their_names(classifier()), **config))


JSON = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.lists(st.integers(0, 3), max_size=3)


@settings(max_examples=40, deadline=None)
@given(config=st.dictionaries(st.sampled_from([*SMALL, "hidden_act", "id2label"]), JSON, max_size=3))
def test_a_configuration_of_anything_is_settings_or_a_sentence(config: dict[str, Any]) -> None:
    huggingface.labels_of({**SMALL, **config}, 7)
    with contextlib.suppress(UserError):  # anything else would be a traceback
        assert huggingface.settings_of({**SMALL, **config}, "hub")["tubelet_size"] > 0


def test_weights_without_their_configuration_want_it(tmp_path: Path) -> None:
    torch.save(in_their_names(classifier()), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"VideoMAE of Hugging Face without its config\.json"):
        load_pretrained(tmp_path / "weights.pth")


def test_another_model_of_the_hub_is_named(tmp_path: Path) -> None:
    hub = folder(tmp_path / "hub", {"vivit.encoder.weight": torch.zeros(2)}, model_type="vivit")
    with pytest.raises(CheckpointError, match="is a vivit of Hugging Face, which is another architecture"):
        load_pretrained(hub)


@pytest.mark.parametrize(("hidden", "width"), [(6144, 1408), (96, 48), (100, 49), (1, 3), (4095, 1407)])
def test_the_ratio_gives_the_hidden_width_back(hidden: int, width: int) -> None:
    assert int(width * huggingface._ratio(hidden, width)) == hidden


# --- against transformers itself ---


@pytest.fixture
def theirs() -> Any:
    return pytest.importorskip("transformers")


def randomised(model: Any) -> Any:
    """All of its weights from one seed, at the size that training leaves them."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(one + 0.1 * torch.randn(parameter.shape, generator=random))
    return model.eval()


def small_config(theirs: Any, **config: Any) -> Any:
    decoder = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    own = {key: value for key, value in SMALL.items() if key != "model_type"}
    return theirs.VideoMAEConfig(**{**own, **{f"decoder_{key}": value for key, value in decoder.items()}, **config})


@pytest.mark.slow
@pytest.mark.parametrize("mean_pooling", [True, False])
@pytest.mark.parametrize("shard", ["5GB", "40KB"])
def test_logits_are_those_of_transformers(theirs: Any, tmp_path: Path, mean_pooling: bool, shard: str) -> None:
    model = randomised(theirs.VideoMAEForVideoClassification(small_config(theirs, use_mean_pooling=mean_pooling)))
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "40KB")
    loaded = load_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(VIDEO.transpose(1, 2)).logits
        again = theirs.VideoMAEForVideoClassification.from_pretrained(tmp_path)(VIDEO.transpose(1, 2)).logits
        torch.testing.assert_close(again, expected)  # this version keeps the biases when it reads its own file
        torch.testing.assert_close(loaded.model(VIDEO), expected, rtol=1e-4, atol=1e-5)
    assert not loaded.report.new
    assert not loaded.report.unused


@pytest.mark.slow
@pytest.mark.parametrize("biases", ["q_bias", "query"])
def test_biases_count_in_either_naming(theirs: Any, tmp_path: Path, biases: str) -> None:
    model = randomised(theirs.VideoMAEForVideoClassification(small_config(theirs)))
    state = {}
    for name, value in model.state_dict().items():
        if biases == "q_bias":
            name = name.replace("query.bias", "q_bias").replace("value.bias", "v_bias")
        state[name] = value
    loaded = load_pretrained(folder(tmp_path / "hub", state))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(VIDEO), model(VIDEO.transpose(1, 2)).logits, rtol=1e-4, atol=1e-5)
        for block in model.videomae.encoder.layer:  # what a version that drops them would give
            block.attention.attention.query.bias.zero_()
            block.attention.attention.value.bias.zero_()
        assert (loaded.model(VIDEO) - model(VIDEO.transpose(1, 2)).logits).abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["VideoMAEModel", "VideoMAEForPreTraining"])
def test_tokens_are_those_of_transformers(theirs: Any, tmp_path: Path, kind: str) -> None:
    model = randomised(getattr(theirs, kind)(small_config(theirs)))
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    encoder = model if kind == "VideoMAEModel" else model.videomae
    with torch.no_grad():
        expected = encoder(VIDEO.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(loaded.model.forward_features(VIDEO), expected, rtol=1e-4, atol=1e-4)
    assert loaded.report.new == ["fc_norm.weight", "fc_norm.bias"]


@pytest.mark.slow
def test_the_base_model_at_full_size_gives_the_same_logits(theirs: Any, tmp_path: Path) -> None:
    names = {i: f"class {i}" for i in range(400)}
    model = randomised(theirs.VideoMAEForVideoClassification(theirs.VideoMAEConfig(id2label=names)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3 if parameter.ndim > 1 else 1.0)
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert loaded.description.model == "vit_base_patch16_224"
    assert loaded.description.arguments == {
        "image_size": 224, "num_frames": 16, "tubelet_size": 2, "num_classes": 400,
    }  # fmt: skip
    video = torch.randn(1, 3, 16, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(video.transpose(1, 2)).logits
        torch.testing.assert_close(loaded.model(video), expected, rtol=1e-3, atol=1e-4)
    assert len(set(expected[0].topk(5).indices.tolist()) & set(loaded.model(video)[0].topk(5).indices.tolist())) == 5


def test_a_named_model_of_other_sizes_is_refused(tmp_path: Path) -> None:
    hub = folder(tmp_path / "hub", in_their_names(classifier()))
    with pytest.raises(
        CheckpointError,
        match=r"of another architecture than vit_base_patch16_224: it has width 48, depth 2, heads 4, .*"
        r"and the model width 768, depth 12, .*Leave out the model's name",
    ):
        load_pretrained(hub, model="vit_base_patch16_224")


def test_a_named_model_whose_sizes_are_given_as_the_files_loads(tmp_path: Path) -> None:
    hub = folder(tmp_path / "hub", in_their_names(classifier()))
    sizes: dict[str, Any] = {"width": 48, "depth": 2, "heads": 4, "patch_size": 8, "mlp_ratio": 2}
    loaded = load_pretrained(hub, model="vit_base_patch16_224", **sizes)
    assert torch.equal(loaded.model(VIDEO), classifier()(VIDEO))


def test_sizes_that_no_entry_has_are_told_instead_of_an_entrys_name(tmp_path: Path) -> None:
    told = load_pretrained(folder(tmp_path / "hub", in_their_names(classifier()))).description
    assert told.architecture == "ViT of width 48, hidden width 96, 2 blocks, 4 heads and patch 8"
    assert {k: told.arguments[k] for k in ("width", "depth", "heads", "mlp_ratio", "patch_size")} == {
        "width": 48, "depth": 2, "heads": 4, "mlp_ratio": 2, "patch_size": 8,
    }  # fmt: skip
    card = model_card(told)
    assert "# ViT of width 48" in card
    assert "vit_base_patch16_224" not in card


def test_an_entrys_name_stands_only_for_its_heads_too() -> None:
    sizes = {"image_size": 64, "width": 96, "depth": 4, "patch_size": 8}
    assert Description("vit_tiny_patch8_64", {**sizes, "heads": 3}).architecture == "vit_tiny_patch8_64"
    assert "6 heads" in Description("vit_tiny_patch8_64", {**sizes, "heads": 6}).architecture
