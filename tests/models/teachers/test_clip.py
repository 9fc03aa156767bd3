"""The CLIP teacher against the original's numbers, and what it promises beyond them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models.original import arrays, clip, close, facts, filled, small_clip, small_teacher, small_visible
from umt.errors import ConfigError
from umt.models import create_model


@pytest.mark.parametrize("name", ["k2", "k2_none"])
def test_targets_and_saliency_equal_the_original_s(name: str) -> None:
    teacher = small_teacher(name)
    features, saliency = teacher(small_clip())
    assert close(teacher.project(features), arrays("small_models")[f"teacher/{name}"])
    assert close(saliency.flatten(0, 1), arrays("small_models")[f"teacher/{name}/attn"])


def test_a_teacher_that_sees_visible_patches_only_equals_the_original_s() -> None:
    teacher = small_teacher("k2_masked")
    features, saliency = teacher(small_clip(), small_visible())
    assert close(teacher.project(features), arrays("small_models")["teacher/k2_masked"])
    assert close(saliency.flatten(0, 1), arrays("small_models")["teacher/k2_masked/attn"])


def test_projecting_visible_tokens_is_taking_them_from_the_projection() -> None:
    teacher, seen = small_teacher("k2"), small_visible()
    features, _ = teacher(small_clip())
    every = teacher.project(features)
    expected = every.gather(2, seen[None, ..., None].expand(2, -1, -1, every.shape[-1]))
    torch.testing.assert_close(teacher.project(features, seen), expected)
    assert close(expected, arrays("small_models")["loss/target_visible"])


@pytest.mark.parametrize("name", ["k2", "k2_none"])
def test_returned_layers_equal_the_original_s(name: str) -> None:
    assert list(small_teacher(name).returned) == sorted(facts("small_models")[f"teacher/{name}"]["return_index"])


def test_state_dict_equals_the_original_s() -> None:
    own = {key: list(value.shape) for key, value in small_teacher("k2").state_dict().items()}
    assert own == facts("small_models")["teacher/k2"]["keys"]


@pytest.mark.parametrize(
    ("golden", "name", "size"),
    [("clip_b16", "clip_b16", 224), ("clip_l14", "clip_l14", 224), ("clip_l14_res196", "clip_l14", 196)],
)
def test_full_size_state_dicts_equal_the_original_s(golden: str, name: str, size: int) -> None:
    expected = facts(f"state_dict_keys/{golden}")
    with torch.device("meta"):
        teacher = create_model(name, image_size=size)
    assert {key: list(value.shape) for key, value in teacher.state_dict().items()} == expected["keys"]
    assert sum(p.numel() for p in teacher.parameters()) == expected["n_params"]


def test_the_336_tower_has_577_positions() -> None:
    with torch.device("meta"):
        assert create_model("clip_l14_336").positional_embedding.shape == (577, 1024)


@pytest.mark.slow
def test_the_base_teacher_equals_the_original_s() -> None:
    teacher, golden = filled(create_model("clip_b16")), facts("full_models")["teacher_b16"]
    with torch.no_grad():
        features, saliency = teacher(clip("full_8f224", 1, 3, 8, 224, 224))
        out = teacher.project(features)
    assert list(out.shape) == golden["shape"]
    assert close(out[:, :, ::61, ::23], arrays("full_models")["teacher_b16"])
    assert close(saliency[0], arrays("full_models")["teacher_b16/attn"])
    for layer, expected in zip(out, golden["per_layer"], strict=True):
        assert layer.double().mean().item() == pytest.approx(expected["mean"], abs=1e-7)


def test_every_norm_has_eps_1e_5() -> None:
    assert {m.eps for m in small_teacher("k2").modules() if isinstance(m, nn.LayerNorm)} == {1e-5}


def test_a_clip_of_another_size_is_resized_in_float32_without_antialiasing() -> None:
    teacher, video = small_teacher("k2"), clip("small96", 2, 3, 4, 96, 96)
    frames = video.transpose(1, 2).flatten(0, 1)
    frames = F.interpolate(frames, size=(64, 64), mode="bicubic", align_corners=False, antialias=False)
    expected = frames.unflatten(0, (2, 4)).transpose(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        resized = teacher.resize(video)
    assert resized.dtype == torch.float32
    torch.testing.assert_close(resized, expected)
    torch.testing.assert_close(teacher(video)[1], teacher(expected)[1])


def test_resizing_at_196_equals_the_original_s() -> None:
    with torch.device("meta"):
        teacher = create_model("clip_l14", image_size=196)
    resized = teacher.resize(clip("full_8f224", 1, 3, 8, 224, 224))
    golden = arrays("full_models")["input_196/slice"]
    assert golden.shape == (3, 3, 7, 7)
    assert close(resized[0, :, ::3, ::28, ::28], golden)


def test_frames_are_seen_one_by_one() -> None:
    teacher, video = small_teacher("k2"), small_clip()
    alone = teacher(video[:, :, 2:3])[1]
    torch.testing.assert_close(alone, teacher(video)[1][:, 2:3])


def test_an_image_embedding_is_the_projected_class_token() -> None:
    teacher, video = small_teacher("k2"), small_clip()
    assert teacher.encode(video).shape == (2, 4, 48)
    x = teacher._embed(video, None)
    for block in teacher.transformer.resblocks:
        x = block(x)
    torch.testing.assert_close(teacher.encode(video).flatten(0, 1), teacher.ln_post(x)[:, 0] @ teacher.proj)


def test_unequal_counts_per_frame_are_refused() -> None:
    with pytest.raises(ConfigError, match="visible has 3 tokens, not the same number in each of 4 frames"):
        small_teacher("k2")(small_clip(), torch.tensor([[0, 17, 33], [0, 17, 33]]))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"image_size": 200}, r"image_size \(200\) must be a multiple of 16, the patch_size"),
        ({"return_interval": 0.5}, "distinct and not negative"),
        ({"norm_type": "batch"}, "must be 'l2' or 'none'"),
        ({"output_dim": 0}, r"output_dim \(0\) must be at least 1"),
    ],
)
def test_sizes_that_cannot_work_are_refused(arguments: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=sentence):
        create_model("clip_b16", **arguments)


@pytest.mark.slow
def test_the_teacher_compiles_as_one_graph() -> None:
    teacher = small_teacher("k2")
    compiled = torch.compile(teacher, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(small_clip())[1], teacher(small_clip())[1])
