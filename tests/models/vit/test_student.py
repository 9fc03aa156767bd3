"""The student against the original's numbers, forward and backward, and what it promises beyond them."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.original import (
    arrays,
    clip,
    close,
    facts,
    filled,
    small_clip,
    small_student,
    small_visible,
    visible,
)
from umt.errors import ConfigError
from umt.models import Student, create_model

SMALL = [name.split("/")[1] for name in facts("small_models") if name.startswith("student/")]


def alignment(kind: str, out: Tensor, target: Tensor) -> Tensor:
    """The original's three losses."""
    if kind == "l2":
        return (2 - 2 * (out * target).sum(-1)).mean()
    return {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}[kind](out, target)


@pytest.mark.parametrize("name", SMALL)
def test_predictions_equal_the_original_s(name: str) -> None:
    student = small_student(name)
    assert close(student(small_clip(), small_visible()), arrays("small_models")[f"student/{name}"])


@pytest.mark.parametrize("name", SMALL)
def test_encoder_outputs_equal_the_original_s(name: str) -> None:
    student = small_student(name)
    out = student.encoder(small_clip(), small_visible())
    assert close(out[:, :, :4], arrays("small_models")[f"student/{name}/encoder"])


@pytest.mark.parametrize("name", SMALL)
def test_returned_blocks_equal_the_original_s(name: str) -> None:
    assert list(small_student(name).returned) == sorted(facts("small_models")[f"student/{name}"]["return_index"])


@pytest.mark.parametrize("name", ["k2", "k2_gamma", "k2_learnpos"])
def test_state_dict_equals_the_original_s(name: str) -> None:
    own = {key: list(value.shape) for key, value in small_student(name).state_dict().items()}
    assert own == facts("small_models")[f"student/{name}"]["keys"]


@pytest.mark.parametrize("kind", ["l2", "mse", "smooth_l1"])
def test_gradients_of_every_parameter_equal_the_original_s(kind: str) -> None:
    student, golden = small_student("k2"), facts("losses")[kind]
    loss = alignment(kind, student(small_clip(), small_visible()), arrays("small_models")["loss/target_visible"])
    loss.backward()
    norms = {name: p.grad.double().norm().item() for name, p in student.named_parameters()}
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-5)
    assert norms == pytest.approx(golden["grad_norm"], rel=1e-4, abs=1e-7)


@pytest.mark.slow
def test_the_base_student_equals_the_original_s() -> None:
    student = filled(create_model("pretrain_umt_base_patch16_224"))
    with torch.no_grad():
        out = student(clip("full_8f224", 1, 3, 8, 224, 224), visible("full_8x196", 1, 8, 196, 0.8))
    assert list(out.shape) == facts("full_models")["student_b16"]["shape"]
    assert close(out[:, :, ::29, ::23], arrays("full_models")["student_b16"])
    for layer, golden in zip(out, facts("full_models")["student_b16"]["per_layer"], strict=True):
        assert layer.double().mean().item() == pytest.approx(golden["mean"], abs=1e-7)
        assert layer.double().norm().item() == pytest.approx(golden["l2"], rel=1e-6)


@pytest.mark.parametrize("name", ["pretrain_umt_base_patch16_224", "pretrain_umt_large_patch16_224"])
def test_full_size_state_dicts_equal_the_original_s(name: str) -> None:
    golden = facts(f"state_dict_keys/{name}")
    with torch.device("meta"):
        student = create_model(name)
    assert {key: list(value.shape) for key, value in student.state_dict().items()} == golden["keys"]
    assert sum(p.numel() for p in student.parameters()) == golden["n_params"]


def test_every_norm_has_eps_1e_6() -> None:
    assert {m.eps for m in small_student("k2").modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_predictions_have_unit_length() -> None:
    out = small_student("k2")(small_clip(), small_visible())
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(out.shape[:-1]))


def test_hidden_pixels_do_not_matter() -> None:
    student, video, seen = small_student("k2"), small_clip(), small_visible()
    mask = torch.ones(2, 64).scatter_(1, seen, 0.0).bool().view(2, 1, 4, 4, 4)
    mask = mask.repeat_interleave(16, 3).repeat_interleave(16, 4).expand_as(video)
    assert torch.equal(student(video.masked_fill(mask, 9.0), seen), student(video, seen))


def test_recomputed_blocks_give_the_same_gradients() -> None:
    gradients = []
    for checkpoint_num in (0, 2):
        student = small_student("k2", checkpoint_num=checkpoint_num).train()
        student(small_clip(), small_visible())[..., 0].sum().backward()
        gradients.append({name: p.grad for name, p in student.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_a_learnable_position_table_trains_without_decay() -> None:
    student = small_student("k2_learnpos")
    student(small_clip(), small_visible())[..., 0].sum().backward()
    assert student.encoder.pos_embed.grad.abs().sum() > 0
    assert "encoder.pos_embed" in student.no_weight_decay()


def test_fixed_position_tables_are_buffers_outside_the_state_dict() -> None:
    student = small_student("k2")
    assert {"encoder.pos_embed", "clip_pos_embed"} == dict(student.named_buffers()).keys()
    assert not any("pos_embed" in name for name in student.state_dict())
    moved = student.to(torch.float64)
    assert moved.encoder.pos_embed.dtype == moved.clip_pos_embed.dtype == torch.float64


@pytest.mark.parametrize("sizes", [{}, {"num_frames": 16}, {"image_size": (224, 160)}, {"tubelet_size": 2}])
def test_student_and_classifier_of_one_size_share_the_position_table(sizes: dict) -> None:
    small = {"width": 32, "depth": 1, "heads": 2, **sizes}
    student = create_model("pretrain_umt_base_patch16_224", return_layers=1, **small)
    classifier = create_model("vit_base_patch16_224", **small)
    assert torch.equal(student.encoder.pos_embed, classifier.pos_embed)
    assert torch.equal(student.clip_pos_embed, classifier.pos_embed)


def test_a_rectangle_runs() -> None:
    student = Student(image_size=(32, 48), patch_size=8, width=24, depth=2, heads=2, num_frames=2, return_layers=1)
    assert student(torch.randn(1, 3, 2, 32, 48), torch.tensor([[0, 5, 47]])).shape == (1, 1, 3, 512)


def test_linears_are_xavier_and_biases_zero() -> None:
    torch.manual_seed(0)
    student = Student(width=48, depth=2, heads=2, image_size=32, num_frames=1, return_layers=1)
    for name, p in student.named_parameters():
        if p.ndim == 2:
            bound = (6 / sum(p.shape)) ** 0.5
            assert 0.9 * bound < p.abs().max() <= bound, name
        elif "norm" in name and name.endswith("weight"):
            assert torch.equal(p, torch.ones_like(p)), name
        elif p.ndim == 1 and "patch_embed" not in name:
            assert not p.any(), name


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"image_size": 220},
            r"image_size \(220\) must be a multiple of 16, .* Try image_size 208 or 224\.",
        ),
        (
            {"image_size": (224, 8)},
            r"image_size \(224 x 8\) must be a multiple of 16, .* Try image_size 224 x 16\.",
        ),
        (
            {"num_frames": 9, "tubelet_size": 2},
            r"num_frames \(9\) must be a multiple of tubelet_size \(2\)\. Try num",
        ),
        ({"num_frames": 0}, r"num_frames \(0\) must be at least 1"),
        ({"heads": 7}, "heads must divide width"),
        ({"decoder_embed_dim": 512}, r"decoder_embed_dim \(512\) must equal the student's width \(768\)"),
        ({"norm_type": "l1"}, r"norm_type \('l1'\) must be 'l2' or 'none'"),
        ({"return_layers": 13}, r"return_layers \(13\).*distinct and not negative.*use 1..12 layers"),
        ({"return_interval": 0.5}, r"return_interval \(0.5\).*distinct and not negative"),
        ({"return_interval": 3}, r"At interval 3 use 1..4 layers"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate \(1.0\) is a probability"),
        ({"checkpoint_num": 13}, r"checkpoint_num \(13\) must lie in 0..12"),
        ({"teacher_width": 0}, r"teacher_width \(0\) must be at least 1"),
    ],
    ids=json.dumps,
)
def test_sizes_that_cannot_work_are_refused(arguments: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=sentence):
        create_model("pretrain_umt_base_patch16_224", **arguments)


def test_a_clip_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes clips \(batch, 3, 4, 64, 64\).*not \(2, 3, 8, 64, 64\)"):
        small_student("k2")(torch.zeros(2, 3, 8, 64, 64), small_visible())


def test_frames_that_are_not_normalised_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"normalised floating-point frames, not torch\.uint8"):
        small_student("k2")(torch.zeros(2, 3, 4, 64, 64, dtype=torch.uint8), small_visible())


@pytest.mark.slow
def test_the_student_compiles_as_one_graph() -> None:
    student = small_student("k2").train()
    compiled = torch.compile(student, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(small_clip(), small_visible()), student(small_clip(), small_visible()))
