"""Models by name, in the library's registry and, on request, in timm's."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from umt.errors import ConfigError
from umt.models import ModelSpec, create_model, list_models, register_model
from umt.models.specs import SPECS

ORIGINAL = [
    "pretrain_umt_base_patch16_224",
    "pretrain_umt_large_patch16_224",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_large_patch16_224",
    "vit_large_patch16_384",
    "clip_b16",
    "clip_l14",
    "clip_l14_336",
]


def test_the_original_s_names_exist() -> None:
    assert set(ORIGINAL) < set(list_models())


@pytest.mark.parametrize("name", list(SPECS))
def test_every_name_builds_the_sizes_of_its_spec(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    spec = SPECS[name]
    assert model.num_layers == spec.depth
    assert model.patch_size == spec.patch_size
    assert (
        type(model).__name__
        == {"student": "Student", "classifier": "VisionTransformer", "teacher": "ClipTeacher"}[spec.kind]
    )


def test_models_are_listed_by_kind() -> None:
    teachers = ["clip_b16", "clip_l14", "clip_l14_336", "clip_tiny_patch8_48", "clip_tiny_patch8_64"]
    assert sorted(list_models("teacher")) == teachers


def test_the_tiny_models_fit_each_other() -> None:
    student, teacher = create_model("pretrain_umt_tiny_patch8_64"), create_model("clip_tiny_patch8_64")
    classifier = create_model("vit_tiny_patch8_64", num_classes=3)
    video, visible = torch.randn(1, 3, 8, 64, 64), torch.arange(0, 512, 4)[None]
    features, saliency = teacher(video)
    assert saliency.shape == (1, 8, 64)
    assert student(video, visible).shape == teacher.project(features, visible).shape
    assert classifier(video).shape == (1, 3)
    assert torch.equal(student.encoder.pos_embed, classifier.pos_embed)


def test_overrides_win_over_the_name() -> None:
    assert create_model("vit_tiny_patch8_64", depth=1, num_classes=3).num_layers == 1


def test_an_unknown_name_stops_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'vit_base_patch16_244' does not exist. Did you mean vit_base_patch16_224"):
        create_model("vit_base_patch16_244")


def test_an_unknown_argument_stops_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no argument 'num_frame'. Did you mean num_frames"):
        create_model("vit_tiny_patch8_64", num_frame=8)


def test_a_model_of_one_s_own_sizes_is_one_entry() -> None:
    spec = ModelSpec("classifier", "for this test", image_size=16, patch_size=8, width=12, depth=1, heads=2)
    register_model("vit_of_this_test", spec)
    try:
        assert create_model("vit_of_this_test").num_layers == 1
        with pytest.raises(ConfigError, match="'vit_of_this_test' exists already"):
            register_model("vit_of_this_test", spec)
    finally:
        del SPECS["vit_of_this_test"]


def test_timm_gets_prefixed_names_and_loses_none(tmp_path: Path) -> None:
    code = """
import sys
import timm, timm.data, timm.optim, torch
from umt.errors import ConfigError
from umt.models import register_timm
before = {name: timm.model_entrypoint(name) for name in timm.list_models()}
added = register_timm()
assert register_timm() == added
assert all(timm.model_entrypoint(name) is entry for name, entry in before.items())
assert set(timm.list_models()) - set(before) == set(added)
assert all(name.startswith("umt_") for name in added)
model = timm.create_model("umt_vit_tiny_patch8_64", num_classes=3, drop_path_rate=0.1)
assert type(model).__module__ == "umt.models.vit.classifier" and model.num_classes == 3
assert type(timm.create_model("vit_tiny_patch16_224")).__module__.startswith("timm.")
try:
    timm.create_model("umt_vit_tiny_patch8_64", pretrained=True)
except ConfigError as error:
    print(error)

torch.save(timm.create_model("umt_vit_tiny_patch8_64", num_classes=3).state_dict(), sys.argv[1])
model = timm.create_model(
    "umt_vit_tiny_patch8_64", pretrained=True, pretrained_cfg_overlay={"file": sys.argv[1]},
    num_classes=3, img_size=64, drop_rate=0.4, global_pool="avg", in_chans=3,
)
assert torch.equal(model.head.weight, torch.load(sys.argv[1])["head.weight"]) and model.head_drop.p == 0.4
again = timm.create_model("umt_vit_tiny_patch8_64", num_classes=3, checkpoint_path=sys.argv[1])
assert torch.equal(model.head.weight, again.head.weight)
facts = timm.data.resolve_model_data_config(model)
assert facts["input_size"] == (3, 64, 64) and facts["mean"] == (0.485, 0.456, 0.406), facts
groups = timm.optim.param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.5)
assert sorted({group["lr_scale"] for group in groups}) == [0.5**i for i in range(5, -1, -1)], groups

video = torch.randn(1, 3, 8, 64, 64)
getter = timm.create_model("umt_vit_tiny_patch8_64", features_only=True, out_indices=(0, 2))
assert getter.feature_info.channels() == [96, 96] and len(getter.model.blocks) == 3
assert [tuple(f.shape) for f in getter(video)] == [(1, 512, 96)] * 2
"""
    file = tmp_path / "weights.pth"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "umt_vit_tiny_patch8_64 has no weights to download" in done.stdout
