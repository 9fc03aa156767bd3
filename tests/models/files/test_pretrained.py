"""`load_pretrained`: what a file is, by its content, its neighbours, its name or its shapes; and what is refused."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.original import arrays, clip, close, facts, filled, weight
from umt.data import labels
from umt.errors import CheckpointError, ConfigError
from umt.layers.pos_embed import position_table
from umt.models import Student, VisionTransformer, create_model, load_weights
from umt.models.files.description import Description
from umt.models.files.pretrained import load_pretrained
from umt.models.files.weights import Weights
from umt.models.files.which_model import which_model
from umt.models.layouts.architecture import architecture_of
from umt.tasks.classify.recipe import ClassifyRecipe
from umt.tasks.distill.recipe import DistillRecipe

NAMES = ("yoga", "zumba", "archery")
TINY: dict[str, Any] = {"image_size": 32, "num_frames": 4, "depth": 1, "position_grid": (8, 8, 8)}


def classifier(**overrides: Any) -> VisionTransformer:
    torch.manual_seed(0)
    arguments = {"image_size": 32, "num_frames": 4, "num_classes": 3, "init_scale": 1.0, **overrides}
    return create_model("vit_tiny_patch8_64", **arguments).eval()


def student(**overrides: Any) -> Student:
    torch.manual_seed(0)
    return create_model("pretrain_umt_tiny_patch8_64", **{"image_size": 32, "num_frames": 4, **overrides}).eval()


def saved(folder: Path, content: Any, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def flags(config: ClassifyRecipe | DistillRecipe, **values: Any) -> dict[str, Any]:
    assert values.keys() <= config.values().keys()
    return {"task": config.command, **config.values(), **values}


VIDEO = torch.randn(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


# --- checkpoints of this library ---


def test_a_checkpoint_of_a_run_says_all_of_itself(tmp_path: Path) -> None:
    model = classifier()
    config = flags(
        ClassifyRecipe(), model="vit_tiny_patch8_64", input_size=32, num_frames=4, tubelet_size=1, nb_classes=3,
        data_set="Kinetics", sampling_rate=2, test_num_segment=7, test_num_crop=1,
    )  # fmt: skip
    content = {"model": model.state_dict(), "config": {**config, "class_names": list(NAMES)}, "progress": {"epoch": 4}}
    loaded = load_pretrained(saved(tmp_path, content))
    assert torch.equal(loaded.model(VIDEO), model(VIDEO))
    assert not loaded.model.training
    told = loaded.description
    assert (told.model, told.num_frames, told.input_size) == ("vit_tiny_patch8_64", 4, 32)
    assert (told.labels, told.labels_source) == (NAMES, str(tmp_path / "w.pth"))
    assert (told.sampling, told.sampling_rate, told.test_clips, told.test_crops) == ("dense", 2, 7, 1)
    assert told.provenance["epoch"] == 4
    assert len(str(told.provenance["sha256"])) == 64


def test_a_student_is_a_student_unless_its_encoder_is_asked_for(tmp_path: Path) -> None:
    config = flags(
        DistillRecipe(), model="pretrain_umt_tiny_patch8_64", input_size=32, num_frames=4, clip_return_layer=2,
        clip_norm_type="none",
    )  # fmt: skip
    own = student(norm_type="none")
    file = saved(tmp_path, {"model": own.state_dict(), "config": config})
    loaded = load_pretrained(file)
    visible = torch.arange(0, 64, 2)[None]
    assert torch.equal(loaded.model(VIDEO, visible), own(VIDEO, visible))
    encoder = load_pretrained(file, model="classifier")
    assert encoder.description.model == "vit_tiny_patch8_64"
    assert encoder.model.num_classes == 0
    assert encoder.report.new == ["fc_norm.weight", "fc_norm.bias"]
    torch.testing.assert_close(
        own.encoder.norm(encoder.model.forward_features(VIDEO)), own.forward_features(VIDEO), rtol=1e-5, atol=1e-5
    )


def test_a_named_teacher_is_loaded_and_described(tmp_path: Path) -> None:
    teacher = create_model("clip_tiny_patch8_48")
    file = saved(tmp_path, teacher.state_dict())
    loaded = load_pretrained(file, model="clip_tiny_patch8_48", num_frames=4)
    assert (loaded.description.model, loaded.description.num_frames, loaded.description.input_size) == (
        "clip_tiny_patch8_48", 4, 48,
    )  # fmt: skip
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in loaded.model.state_dict().items())
    with pytest.raises(ConfigError, match=r"clip_tiny_patch8_48 is a teacher, which has no num_classes\. Leave it out"):
        load_pretrained(file, model="clip_tiny_patch8_48", num_classes=3)


def test_an_exported_folder_is_described_by_its_configuration(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = classifier()
    told = Description(
        "vit_tiny_patch8_64", {"image_size": 32, "num_frames": 4, "num_classes": 3, "position_grid": (8, 8, 8)},
        mean=(0.5, 0.5, 0.5), labels=NAMES, labels_source="own.txt", multi_label=True, sampling="ssv2",
        short_side_size=40, licence={"weights": "MIT"}, provenance={"top1": 81.9},
    )  # fmt: skip
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(told.to_json()))
    for source in (tmp_path, tmp_path / "model.safetensors"):
        loaded = load_pretrained(source)
        assert torch.equal(loaded.model(VIDEO), model(VIDEO))
        assert loaded.description.provenance.items() >= told.provenance.items()
        kept = ("arguments", "mean", "std", "labels", "labels_source", "multi_label", "sampling", "licence")
        assert all(getattr(loaded.description, name) == getattr(told, name) for name in kept)
        assert loaded.description.short_side_size == 40


def test_a_description_survives_json() -> None:
    told = Description("vit_tiny_patch8_64", TINY, labels=NAMES, provenance={"epoch": 3}, licence={"code": "MIT"})
    assert Description.from_json(json.loads(json.dumps(told.to_json()))) == told
    assert Description.from_json({**told.to_json(), "other": 1}) == told


@pytest.mark.parametrize("content", [{}, {"umt_model": 1}, {"umt_model": 1, "model": "a", "arguments": [1]}])
def test_a_configuration_of_others_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json (is not the description|does not describe)"):
        Description.from_json(content)


# --- the original's files ---


def test_a_pickled_namespace_says_frames_and_sizes(tmp_path: Path) -> None:
    args = argparse.Namespace(
        model="vit_tiny_patch8_64", num_frames=4, input_size=32, data_set="SSV2", test_num_segment=2, test_num_crop=3
    )
    content = {"model": classifier().state_dict(), "args": args, "epoch": 29}
    told = load_pretrained(saved(tmp_path, content)).description
    assert (told.num_frames, told.input_size, told.sampling, told.test_clips) == (4, 32, "ssv2", 2)
    assert told.labels is None
    assert told.provenance["epoch"] == 29


def layout(name: str) -> dict[str, Tensor]:
    """A published layout: names and shapes from the original's code, and its position table."""
    golden = facts(f"state_dict_keys/{name}")
    state = {key: torch.empty(shape, device="meta") for key, shape in golden["keys"].items()}
    if "pos_embed" in state:
        tokens, width = state["pos_embed"].shape[1:]
        grid = {3136: (16, 14, 14), 4608: (8, 24, 24)}[tokens]
        state["pos_embed"] = position_table(width, grid, (8, 14, 14))
    return state


LAYOUTS = [path.stem for path in sorted((Path(__file__).parents[1] / "golden/umt/state_dict_keys").glob("*_patch*"))]
QUICK = ("pretrain_umt_base_patch16_224", "vit_base_patch16_224_f8_meanpool", "vit_base_patch16_384_f8_cls")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS]
)
def test_every_published_layout_tells_its_model_by_shapes_alone(name: str) -> None:
    state = layout(name)
    entry, arguments, _ = which_model(Weights("w.pth", Path("w.pth"), state), None, {})
    assert name.startswith(entry)
    frames = 16 if "_f16_" in name else 8
    assert (arguments["num_frames"], arguments["tubelet_size"]) == (frames, 1)
    assert arguments["image_size"] == (384 if "_384_" in name else 224)
    assert "position_grid" not in arguments
    with torch.device("meta"):
        model = create_model(entry, **arguments)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in state.items()}


@pytest.mark.slow
def test_a_published_classifier_gives_the_original_s_logits(tmp_path: Path) -> None:
    state = {name: weight(name, tuple(v.shape)) for name, v in layout("vit_base_patch16_224_f8_meanpool").items()}
    video, expected = clip("full_8f224", 1, 3, 8, 224, 224), arrays("full_models")["vit_base_patch16_224_f8/logits"]
    published = saved(tmp_path, {"model": state, "epoch": 4}, "b16_ptk710_ftk710_ftk400_f8_res224.pth")
    folder = tmp_path / "checkpoint-best"  # as DeepSpeed leaves it
    folder.mkdir()
    saved(folder, {"module": state, "args": argparse.Namespace(lr=1e-5)}, "mp_rank_00_model_states.pt")
    for source, names in ((published, labels.names_of("k400_umt")), (folder, None)):
        loaded = load_pretrained(source)
        with torch.no_grad():
            assert close(loaded.model(video), expected)
        assert loaded.description.labels == names


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "size"), [(16, 224), (8, 384), (4, 160)])
def test_a_published_student_starts_a_classifier_of_any_size(tmp_path: Path, frames: int, size: int) -> None:
    own = filled(create_model("pretrain_umt_base_patch16_224", depth=2, return_layers=2))
    file = saved(tmp_path, {"model": own.state_dict()}, "student.pth")
    model = create_model("vit_base_patch16_224", depth=2, num_frames=frames, image_size=size, tubelet_size=2)
    report = load_weights(model, file)
    assert report.new == ["fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"]
    assert report.adapted["patch_embed.proj.weight"].startswith("1 -> 2 frames a token")
    expected = position_table(768, (frames // 2, size // 16, size // 16), (8, 14, 14))
    torch.testing.assert_close(model.pos_embed, expected)


def test_a_file_with_a_published_name_speaks_its_classes(tmp_path: Path) -> None:
    model = classifier(num_classes=400)
    name = "b16_ptk710_ftk710_ftk400_f8_res224"
    told = load_pretrained(
        saved(tmp_path, model.state_dict(), f"{name}.pth"), model="vit_tiny_patch8_64", num_frames=4, input_size=32
    ).description
    assert told.labels == labels.names_of("k400_umt")
    assert told.labels_source == f"the published {name}"
    assert (told.sampling, told.test_clips, told.test_crops) == ("sparse", 4, 3)


def test_a_published_name_with_another_head_is_not_believed(tmp_path: Path) -> None:
    file = saved(tmp_path, classifier().state_dict(), "b16_ptk710_ftk710_ftk400_f8_res224.pth")
    assert load_pretrained(file).description.labels is None


@pytest.mark.parametrize("order", ["k400", "k400_umt", "k600", "k700"])
def test_a_710_class_head_gives_every_class_its_own_row(tmp_path: Path, order: str) -> None:
    model = classifier(num_classes=710)
    with torch.no_grad():
        model.head.bias.copy_(torch.arange(710.0))
    rows = labels.k710_index()[order]
    config = {"class_names": list(labels.names_of("k710"))}
    file = saved(tmp_path, {"model": model.state_dict(), "config": config})
    loaded = load_pretrained(
        file, model="vit_tiny_patch8_64", num_frames=4, input_size=32, num_classes=len(rows), head_rows=rows
    )
    assert loaded.model.head.bias.tolist() == rows
    taken = labels.names_of("k710")
    by_name = [labels.plain(taken[int(row)]) for row in loaded.model.head.bias]
    known = {row: plain for plain, row in labels.numbers("k710").items() if plain in by_name}
    assert [known[int(row)] for row in loaded.model.head.bias] == by_name
    assert loaded.description.labels == tuple(taken[row] for row in rows)


# --- VideoMAE ---


def videomae(**overrides: Any) -> VisionTransformer:
    """As VideoMAE builds its classifier: two frames a token, the sinusoid on the clip's own tokens and not saved."""
    return classifier(tubelet_size=2, position_grid=(2, 4, 4), **overrides)


def without_table(model: VisionTransformer) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if name != "pos_embed"}


def test_a_videomae_classifier_is_the_same_model(tmp_path: Path) -> None:
    own = videomae()
    args = argparse.Namespace(model="vit_tiny_patch8_64", num_frames=4, input_size=32, sampling_rate=4)
    loaded = load_pretrained(saved(tmp_path, {"module": without_table(own), "args": args}))
    assert torch.equal(loaded.model(VIDEO), own(VIDEO))
    assert loaded.description.arguments["position_grid"] == (2, 4, 4)


def test_of_a_videomae_pretraining_the_encoder_is_taken(tmp_path: Path) -> None:
    own = videomae()
    state = {f"encoder.{name}": v for name, v in without_table(own).items() if not name.startswith(("head", "fc_norm"))}
    state |= {"encoder.norm.weight": torch.ones(96), "encoder.norm.bias": torch.zeros(96)}
    state |= {"decoder.blocks.0.norm1.weight": torch.ones(48), "decoder.head.weight": torch.ones(384, 48)}
    state |= {"encoder_to_decoder.weight": torch.ones(48, 96), "mask_token": torch.zeros(1, 1, 48)}
    file = saved(tmp_path, {"model": state})
    loaded = load_pretrained(file, num_frames=4, input_size=32)
    assert loaded.report.new == ["fc_norm.weight", "fc_norm.bias"]
    assert {name.split(".")[0] for name in loaded.report.unused} == {
        "norm",
        "decoder",
        "encoder_to_decoder",
        "mask_token",
    }
    assert loaded.description.sampling == "dense"
    with pytest.raises(CheckpointError, match=r"has no decoders of a student \(clip_decoder\.\*\)"):
        load_pretrained(file, model="student")


def test_videomae_v2_of_the_hub_has_a_wrapper(tmp_path: Path) -> None:
    own = videomae(num_classes=0)
    config = {"model_type": "VideoMAEv2_Tiny", "model_config": {"img_size": 32, "num_frames": 4, "tubelet_size": 2}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    saved(tmp_path, {f"model.{name}": value for name, value in without_table(own).items()}, "pytorch_model.bin")
    loaded = load_pretrained(tmp_path)
    assert torch.equal(loaded.model(VIDEO), own(VIDEO))
    assert loaded.description.mean == (0.5, 0.5, 0.5)
    assert not loaded.report.new
    assert not loaded.report.unused


@pytest.mark.parametrize(
    ("name", "width", "depth", "hidden", "patch"),
    [
        ("vit_small_patch16_224", 384, 12, 1536, 16),
        ("vit_base_patch16_224", 768, 12, 3072, 16),
        pytest.param("vit_large_patch16_224", 1024, 24, 4096, 16, marks=pytest.mark.slow),
        pytest.param("vit_huge_patch16_224", 1280, 32, 5120, 16, marks=pytest.mark.slow),
        ("vit_giant_patch14_224", 1408, 40, 6144, 14),
    ],
)
def test_every_size_of_videomae_is_known_by_its_shapes(
    name: str, width: int, depth: int, hidden: int, patch: int
) -> None:
    with torch.device("meta"):
        state = without_table(create_model(name, num_frames=16, tubelet_size=2, num_classes=710))
    seen = architecture_of(state, "w.pth")
    assert (seen.width, seen.depth, seen.hidden, seen.patch_size) == (width, depth, hidden, patch)
    entry, arguments, _ = which_model(Weights("w.pth", Path("w.pth"), state), None, {})
    assert (entry, arguments["num_frames"], arguments["tubelet_size"], arguments["num_classes"]) == (name, 16, 2, 710)
    assert "position_grid" not in arguments  # the entry's own is VideoMAE's


# --- tubelets ---


def moving(frames: int) -> Tensor:
    return torch.randn(1, 3, frames, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (2, 4), (4, 2), (2, 3), (3, 2), (1, 4)])
def test_a_still_clip_has_the_same_tokens_with_another_tubelet(tmp_path: Path, old: int, new: int) -> None:
    own = classifier(num_frames=old, tubelet_size=old)
    report = load_weights(other := classifier(num_frames=new, tubelet_size=new), saved(tmp_path, own.state_dict()))
    still = moving(1)
    torch.testing.assert_close(
        other.patch_embed(still.expand(-1, -1, new, -1, -1)), own.patch_embed(still.expand(-1, -1, old, -1, -1)),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    assert f"{old} -> {new} frames a token" in report.adapted["patch_embed.proj.weight"]


def test_an_inflated_token_is_the_mean_of_its_frames_tokens(tmp_path: Path) -> None:
    own, other = classifier(), classifier(tubelet_size=2)
    load_weights(other, saved(tmp_path, own.state_dict()))
    one, two = own.patch_embed(VIDEO).unflatten(1, (4, 16)), other.patch_embed(VIDEO).unflatten(1, (2, 16))
    torch.testing.assert_close(two, (one[:, ::2] + one[:, 1::2]) / 2, rtol=1e-4, atol=1e-5)


# --- heads and what is refused ---


def test_other_classes_want_to_be_asked_for(tmp_path: Path) -> None:
    file = saved(tmp_path, {"model": classifier().state_dict(), "config": {"class_names": list(NAMES)}})
    size = {"num_frames": 4, "input_size": 32}
    with pytest.raises(CheckpointError, match=r"head of 3 classes, the model 5 .*new_head=True"):
        load_pretrained(file, num_classes=5, **size)
    anew = load_pretrained(file, num_classes=5, new_head=True, **size)
    assert anew.report.new == ["head.weight", "head.bias"]
    assert anew.description.labels is None
    assert load_pretrained(file, num_classes=2, head_rows=[2, 0], **size).description.labels == ("archery", "yoga")


def test_a_new_head_of_as_many_classes_has_no_names(tmp_path: Path) -> None:
    file = saved(tmp_path, {"model": classifier().state_dict(), "config": {"class_names": list(NAMES)}})
    assert load_pretrained(file, num_frames=4, input_size=32, new_head=True).description.labels is None


FOREIGN = {
    "an InternVideo2": ["cls_token", "blocks.0.ls1.gamma", "clip_projector.norm1_q.weight"],
    "a VideoMAE V2 with cosine attention": ["blocks.0.attn.scale"],
    "a video-and-text model": ["vision_encoder.encoder.patch_embed.proj.weight"],
    "a TimeSformer": ["model.blocks.0.temporal_attn.qkv.weight"],
    "a vision transformer of another family": ["blocks.0.attn.qkv.bias"],
}


@pytest.mark.parametrize("what", FOREIGN)
def test_another_architecture_is_named(tmp_path: Path, what: str) -> None:
    state = {**classifier().state_dict(), **{name: torch.zeros(2) for name in FOREIGN[what]}}
    file = saved(tmp_path, state)
    for load in (load_pretrained, lambda source: load_weights(classifier(), source)):
        with pytest.raises(
            CheckpointError, match=rf"w\.pth is {what}.*docs/checkpoints\.md lists what loads"
        ) as refused:
            load(file)
        assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"conv1.weight": torch.zeros(2, 3, 3, 3)}, r"of no architecture that this library has.* but conv1\.weight"),
        ({"patch_embed.proj.weight": torch.zeros(8, 3, 4, 4)}, "of an image model.* has 4 axes"),
        ({"patch_embed.proj.weight": torch.zeros(8, 3, 1, 4, 4)}, "lacks the weights of its blocks"),
    ],
)
def test_what_is_no_video_transformer_is_a_sentence(tmp_path: Path, state: dict[str, Tensor], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        load_pretrained(saved(tmp_path, state))


def test_sizes_that_no_entry_has_want_their_heads(tmp_path: Path) -> None:
    own = VisionTransformer(image_size=32, patch_size=8, width=40, depth=1, heads=5, num_frames=2, num_classes=3).eval()
    file = saved(tmp_path, own.state_dict())
    with pytest.raises(CheckpointError, match=r"has sizes of no model of this library \(width 40, 1 blocks, patch 8"):
        load_pretrained(file)
    sizes = {"width": 40, "depth": 1, "heads": 5, "position_grid": own.position_grid}
    loaded = load_pretrained(file, model="vit_tiny_patch8_64", num_frames=2, input_size=32, **sizes)
    video = VIDEO[:, :, :2]
    assert torch.equal(loaded.model.eval()(video), own(video))


def test_the_wrong_model_is_told_by_a_shape(tmp_path: Path) -> None:
    file = saved(tmp_path, classifier().state_dict())
    with pytest.raises(
        CheckpointError, match=r"is of another architecture: .* Choose the model that it was saved from"
    ):
        load_pretrained(file, model="vit_tiny_patch8_48", num_frames=4, input_size=32)


def test_an_unknown_model_is_told_its_neighbours(tmp_path: Path) -> None:
    file = saved(tmp_path, classifier().state_dict())
    with pytest.raises(ConfigError, match=r"'vit_tiny_patch8_65' does not exist\. Did you mean vit_tiny_patch8_64"):
        load_pretrained(file, model="vit_tiny_patch8_65")


def test_no_backbone_weight_stays_random(tmp_path: Path) -> None:
    state = classifier().state_dict()
    del state["blocks.2.attn.v_bias"]
    with pytest.raises(CheckpointError, match=r"lacks 1 of the model's \d+ weights: blocks\.2\.attn\.v_bias"):
        load_pretrained(saved(tmp_path, state))


def test_a_trained_table_is_recognised_and_resampled(tmp_path: Path) -> None:
    own = classifier(use_learnable_pos_emb=True, image_size=64, num_frames=8)
    torch.nn.init.normal_(own.pos_embed)
    file = saved(tmp_path, own.state_dict())
    same = load_pretrained(file)
    assert torch.equal(same.model.pos_embed, own.pos_embed)
    assert same.description.arguments["use_learnable_pos_emb"]
    other = load_pretrained(file, num_frames=4)
    assert other.report.adapted["pos_embed"] == "trained table resampled, 8x8x8 -> 4x8x8"


def test_a_trained_table_of_unclear_grid_wants_to_be_told(tmp_path: Path) -> None:
    own = classifier(use_learnable_pos_emb=True, image_size=(24, 40), num_frames=5)
    torch.nn.init.normal_(own.pos_embed)
    file = saved(tmp_path, own.state_dict())
    with pytest.raises(CheckpointError, match=r"w\.pth has a position table of 75 rows, .* Say so with source_grid"):
        load_pretrained(file)
    with pytest.raises(CheckpointError, match=r"of 75 rows, not 5 x 4 x 5, and"):
        load_pretrained(file, source_grid=(5, 4, 5))
    loaded = load_pretrained(file, source_grid=(5, 3, 5), num_frames=5, input_size=24)
    assert loaded.report.adapted["pos_embed"] == "trained table resampled, 5x3x5 -> 5x3x3"


def test_a_card_names_the_licence(tmp_path: Path) -> None:
    saved(tmp_path, {f"model.{name}": value for name, value in classifier().state_dict().items()}, "pytorch_model.bin")
    (tmp_path / "README.md").write_text('---\nlicense: "cc-by-nc-4.0"\ntags:\n- video\n---\nlicense: other\n')
    assert load_pretrained(tmp_path).description.licence == {"weights": "cc-by-nc-4.0"}


def test_descriptions_are_not_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Description("vit_tiny_patch8_64").model = "other"  # type: ignore[misc]
