"""CLIP's tower by its names in other libraries, and what is not CLIP's. The libraries themselves: tests/weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from umt.errors import CheckpointError
from umt.models import ClipTeacher, create_model, load_weights
from umt.models.layouts.clip import activation_of_timm, configured_activation, to_openai

State = dict[str, Tensor]


def teacher() -> ClipTeacher:
    return ClipTeacher(image_size=32, patch_size=16, width=24, depth=2, heads=2, output_dim=12, return_layers=1)


def openai(seed: int = 0) -> State:
    """A visual tower as OpenAI names it, with a 2-D convolution."""
    torch.manual_seed(seed)
    state = {name: torch.randn_like(value) for name, value in teacher().state_dict().items()}
    state["conv1.weight"] = state["conv1.weight"].squeeze(2)
    return state


def hugging_face(state: State) -> State:
    renamed = {
        "vision_model.embeddings.class_embedding": state["class_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
        "vision_model.embeddings.patch_embedding.weight": state["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "visual_projection.weight": state["proj"].t(),
    }
    for kind in ("weight", "bias"):
        renamed[f"vision_model.pre_layrnorm.{kind}"] = state[f"ln_pre.{kind}"]
        renamed[f"vision_model.post_layernorm.{kind}"] = state[f"ln_post.{kind}"]
        for i in range(2):
            block, layer = f"transformer.resblocks.{i}.", f"vision_model.encoder.layers.{i}."
            for letter, part in zip("qkv", state[f"{block}attn.in_proj_{kind}"].chunk(3), strict=True):
                renamed[f"{layer}self_attn.{letter}_proj.{kind}"] = part
            renamed[f"{layer}self_attn.out_proj.{kind}"] = state[f"{block}attn.out_proj.{kind}"]
            renamed[f"{layer}layer_norm1.{kind}"] = state[f"{block}ln_1.{kind}"]
            renamed[f"{layer}layer_norm2.{kind}"] = state[f"{block}ln_2.{kind}"]
            renamed[f"{layer}mlp.fc1.{kind}"] = state[f"{block}mlp.c_fc.{kind}"]
            renamed[f"{layer}mlp.fc2.{kind}"] = state[f"{block}mlp.c_proj.{kind}"]
    return renamed


def timms(state: State) -> State:
    renamed = {
        "cls_token": state["class_embedding"][None, None],
        "pos_embed": state["positional_embedding"][None],
        "patch_embed.proj.weight": state["conv1.weight"],
        "head.weight": state["proj"].t(),
        "head.bias": torch.zeros(12),
    }
    for kind in ("weight", "bias"):
        renamed[f"norm_pre.{kind}"] = state[f"ln_pre.{kind}"]
        renamed[f"norm.{kind}"] = state[f"ln_post.{kind}"]
        for i in range(2):
            block, own = f"transformer.resblocks.{i}.", f"blocks.{i}."
            renamed[f"{own}attn.qkv.{kind}"] = state[f"{block}attn.in_proj_{kind}"]
            renamed[f"{own}attn.proj.{kind}"] = state[f"{block}attn.out_proj.{kind}"]
            renamed[f"{own}norm1.{kind}"] = state[f"{block}ln_1.{kind}"]
            renamed[f"{own}norm2.{kind}"] = state[f"{block}ln_2.{kind}"]
            renamed[f"{own}mlp.fc1.{kind}"] = state[f"{block}mlp.c_fc.{kind}"]
            renamed[f"{own}mlp.fc2.{kind}"] = state[f"{block}mlp.c_proj.{kind}"]
    return renamed


def towers(state: State) -> State:
    """A timm tower inside of open_clip, the text tower beside it."""
    trunk = {f"visual.trunk.{name}": value for name, value in timms(state).items() if not name.startswith("head")}
    return {**trunk, "visual.head.proj.weight": state["proj"].t(), "text.weight": torch.ones(1)}


LAYOUTS = {
    "OpenAI's": lambda state: {f"visual.{name}": value for name, value in state.items()},
    "Hugging Face's": hugging_face,
    "timm's": timms,
    "open_clip's with timm's tower": towers,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tower_of_any_layout_comes_back_under_openai_s_names(layout: str) -> None:
    state = openai()
    found = to_openai(LAYOUTS[layout](state), "file")
    assert found.layout == layout
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], value) for name, value in state.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_teacher_loads_a_file_of_any_layout(tmp_path: Path, layout: str) -> None:
    state, model = openai(), teacher()
    torch.save(LAYOUTS[layout](state), tmp_path / "clip.pth")
    report = load_weights(model, tmp_path / "clip.pth")
    assert torch.equal(
        model.transformer.blocks()[1].attn.in_proj_bias, state["transformer.resblocks.1.attn.in_proj_bias"]
    )
    assert report.adapted.get("names") == (None if layout == "OpenAI's" else f"{layout} -> OpenAI's")


def test_the_sizes_that_archives_hold_are_no_weights() -> None:
    found = to_openai({**openai(), "input_resolution": torch.tensor(224)}, "file")
    assert "input_resolution" not in found.state
    assert found.unused == ["input_resolution"]


def without(state: State, *names: str) -> State:
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"visual.layer1.0.conv1.weight": torch.ones(1)}, "is a CLIP with a ResNet"),
        ({"weight": torch.ones(1)}, "has no visual tower of CLIP"),
        (without(hugging_face(openai()), "visual_projection.weight"), "lacks visual_projection.weight"),
        (without(hugging_face(openai()), "vision_model.embeddings.class_embedding"), "has no class token"),
        (
            without(hugging_face(openai()), "vision_model.encoder.layers.1.self_attn.q_proj.bias"),
            r"is incomplete: transformer\.resblocks\.1\.attn\.in_proj_bias has only its k and v part",
        ),
        (without(timms(openai()), "norm_pre.weight"), "in timm's names, but not CLIP's"),
        (without(timms(openai()), "head.weight"), "lacks head.weight, CLIP's projection"),
        ({**timms(openai()), "head.bias": torch.ones(12)}, "has a head with a bias, a classifier's"),
    ],
)  # fmt: skip
def test_what_is_no_clip_tower_gets_its_sentence(state: State, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        to_openai(state, "file")


@pytest.mark.parametrize(
    ("name", "content", "activation"),
    [
        ("config.json", {"model_type": "clip", "vision_config": {"hidden_act": "gelu"}}, "gelu"),
        ("config.json", {"model_type": "clip_vision_model", "hidden_act": "quick_gelu"}, "quick_gelu"),
        ("config.json", {"model_type": "clip", "vision_config": {}}, "quick_gelu"),
        ("config.json", {"model_type": "vit", "hidden_act": "gelu"}, None),
        ("config.json", {"architecture": "vit_clip", "pretrained_cfg": {"tag": "openai"}}, "quick_gelu"),
        ("config.json", {"architecture": "vit_clip", "pretrained_cfg": {"tag": "laion2b"}}, "gelu"),
        ("open_clip_config.json", {"model_cfg": {"vision_cfg": {}, "quick_gelu": True}}, "quick_gelu"),
        ("open_clip_config.json", {"model_cfg": {"vision_cfg": {}}}, "gelu"),
        ("open_clip_config.json", [], None),
    ],
)  # fmt: skip
def test_a_configuration_says_the_activation(tmp_path: Path, name: str, content: Any, activation: str | None) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    assert configured_activation(tmp_path) == activation


def test_a_name_of_timm_s_says_the_activation_where_it_can() -> None:
    assert activation_of_timm("vit_base_patch16_clip_quickgelu_224.openai") == "quick_gelu"
    assert activation_of_timm("vit_base_patch16_clip_224.openai") == "quick_gelu"
    assert activation_of_timm("vit_base_patch16_clip_224.laion2b") == "gelu"
    assert activation_of_timm("vit_base_patch16_clip_224.dfn2b") is None


def test_a_gelu_tower_does_not_become_a_quickgelu_teacher(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}}))
    torch.save(openai(), tmp_path / "clip.pth")
    with pytest.raises(CheckpointError, match=r"has gelu in its MLPs \(as the configuration next to it says\)"):
        load_weights(teacher(), tmp_path / "clip.pth")


@pytest.mark.parametrize("layout", ["OpenAI's", "Hugging Face's"])
def test_a_clip_is_no_start_for_a_classifier(tmp_path: Path, layout: str) -> None:
    torch.save(LAYOUTS[layout](openai()), tmp_path / "clip.pth")
    with pytest.raises(CheckpointError, match=r"is a CLIP, an image model: its .* e\.g\. --model clip_b16"):
        load_weights(create_model("vit_tiny_patch8_64"), tmp_path / "clip.pth")
