"""The pretraining step: losses, gradients and a short run equal the original's; what it refused to do works."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models.original import arrays, clip, facts, filled, small_clip, small_student, small_teacher, small_visible
from umt.data.loading.clip_batch import ClipBatch
from umt.errors import ConfigError
from umt.models import create_model
from umt.optim.build import apply_schedule, create_optimizer
from umt.optim.param_groups import param_groups
from umt.tasks.distill.task import Distill, alignment_loss

LOSSES = facts("losses")


def forcing_noise(visible: Tensor, tokens: int) -> Tensor:
    """Mask noise (B, tokens) that makes exactly the tokens in `visible` (B, V) win, whatever the saliency."""
    return torch.full((len(visible), tokens), 1e-30).scatter(1, visible, 1 - 1e-6)


SMALL_NOISE = forcing_noise(small_visible(), 64).unflatten(1, (4, 16))


def golden_task(name: str = "k2", **options: Any) -> Distill:
    return Distill(small_student(name), small_teacher(name), mask_ratio=0.75, **options)


def tiny_task(seed: int = 0, **options: Any) -> Distill:
    torch.manual_seed(seed)
    student = create_model("pretrain_umt_tiny_patch8_64")
    return Distill(student, create_model("clip_tiny_patch8_64"), **options)


def tiny_batch(clips: int = 2) -> ClipBatch:
    draw = torch.Generator().manual_seed(1)
    number = torch.arange(clips)
    return ClipBatch(
        video=torch.randint(0, 256, (clips, 3, 8, 64, 64), generator=draw, dtype=torch.uint8),
        label=number,
        row=number,
        copy=0 * number,
        clip=0 * number,
        crop=0 * number,
        seed=number,
        noise=torch.rand((clips, 8, 64), generator=draw),
    )


def total_norm(model: torch.nn.Module) -> float:
    return torch.stack([p.grad.double().norm() for p in model.parameters() if p.grad is not None]).norm().item()


@pytest.mark.parametrize("kind", ["l2", "mse", "smooth_l1"])
def test_the_loss_equals_the_original(kind: str) -> None:
    assert golden_task(loss=kind).align(small_clip(), SMALL_NOISE).loss.item() == pytest.approx(
        LOSSES[kind]["loss"], rel=1e-5
    )


@pytest.mark.parametrize("kind", ["l2", "mse", "smooth_l1"])
def test_every_gradient_norm_equals_the_original(kind: str) -> None:
    task = golden_task(loss=kind)
    task.align(small_clip(), SMALL_NOISE).loss.backward()
    norms = {name: p.grad.norm().item() for name, p in task.model.named_parameters()}
    assert norms == pytest.approx(LOSSES[kind]["grad_norm"], rel=1e-4)
    assert total_norm(task.model) == pytest.approx(LOSSES[kind]["grad_norm_total"], rel=1e-4)


@pytest.mark.parametrize("kind", ["l2", "mse", "smooth_l1"])
def test_the_loss_of_features_that_are_not_normalised_equals_the_original(kind: str) -> None:
    step = golden_task("k2_none", loss=kind).align(small_clip(), SMALL_NOISE)
    assert step.loss.item() == pytest.approx(LOSSES["norm_none"][kind], rel=1e-4)


def test_the_loss_ratio_scales_the_loss() -> None:
    step = golden_task(loss_weight=0.5).align(small_clip(), SMALL_NOISE)
    assert step.loss.item() == pytest.approx(LOSSES["l2_ratio_0.5"]["loss"], rel=1e-5)


def test_six_steps_of_training_follow_the_original() -> None:
    record, task = LOSSES["trajectory"], golden_task()
    optimizer = create_optimizer(param_groups(task.model, weight_decay=0.05), lr=0.0, betas=[0.9, 0.95])
    losses, norms = [], []
    for step in range(6):
        apply_schedule(optimizer, 1e-3 * (step + 1) / 6, 0.05)
        loss = task.align(small_clip(), SMALL_NOISE).loss
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(task.model.parameters(), 1.0).item())
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(record["loss"], rel=1e-5)
    assert norms == pytest.approx(record["grad_norm"], rel=1e-4)
    final = {name: p.norm().item() for name, p in task.model.named_parameters()}
    assert final == pytest.approx(record["final_param_norm"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["l2", "mse", "smooth_l1"])
def test_the_loss_at_full_size_equals_the_original(kind: str) -> None:
    student = filled(create_model("pretrain_umt_base_patch16_224", num_frames=8, teacher_width=512, return_layers=6))
    teacher = filled(create_model("clip_b16", return_layers=6))
    masked = np.unpackbits(arrays("full_models")["mask"].numpy())
    noise = forcing_noise(torch.from_numpy(np.flatnonzero(masked == 0))[None], 1568).unflatten(1, (8, 196))
    task = Distill(student, teacher, mask_ratio=0.8, loss=kind)
    with torch.no_grad():
        step = task.align(clip("full_8f224", 1, 3, 8, 224, 224), noise)
    assert step.loss.item() == pytest.approx(facts("full_models")["loss_b16"][kind], rel=1e-5)


@pytest.mark.parametrize("mask", ["attention", "tube", "random"])
def test_every_mask_trains_the_student(mask: str) -> None:
    task = tiny_task(mask_type=mask)
    task.training_step(tiny_batch(), seed=0).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.model.parameters())


def test_the_step_depends_on_the_noise_of_the_batch_alone() -> None:
    task, batch = tiny_task(), tiny_batch()
    losses = [task.training_step(batch, seed=seed).loss for seed in (1, 2)]
    assert torch.equal(*losses)
    assert batch.noise is not None
    batch.noise = batch.noise.flip(0)
    assert not torch.equal(losses[0], task.training_step(batch, seed=1).loss)


def test_a_sample_has_the_same_mask_in_any_batch() -> None:
    task, batch = tiny_task(), tiny_batch(4)
    saliency = torch.rand(4, 8, 64)
    assert batch.noise is not None
    alone = torch.cat([task.visible(batch.noise[i : i + 1], saliency[i : i + 1]) for i in range(4)])
    assert torch.equal(task.visible(batch.noise, saliency), alone)


def test_the_teacher_is_frozen_and_in_evaluation_mode() -> None:
    task = tiny_task()
    before = copy.deepcopy(task.teacher.state_dict())
    task.training_step(tiny_batch(), seed=0).loss.backward()
    assert not task.teacher.training
    assert all(p.grad is None and not p.requires_grad for p in task.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in task.teacher.state_dict().items())


def test_the_teacher_is_no_part_of_the_state() -> None:
    assert tiny_task().state_dict() == {}


def test_the_teacher_moves_with_the_task() -> None:
    task = tiny_task()
    task.to(torch.device("meta"))
    assert {p.device.type for m in (task.model, task.teacher) for p in m.parameters()} == {"meta"}


def test_the_loss_is_computed_in_float32_under_autocast() -> None:
    task = golden_task()
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.align(small_clip(), SMALL_NOISE).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(LOSSES["l2"]["loss"], rel=2e-2)


def test_metrics_are_detached_and_tell_the_cosine_of_each_layer() -> None:
    step = golden_task().align(small_clip(), SMALL_NOISE)
    assert not any(value.requires_grad for value in step.metrics.values())
    assert step.metrics["cosine"].item() == pytest.approx(1 - LOSSES["l2"]["loss"] / 2, abs=1e-5)
    layers = [step.metrics["cosine_layer0"], step.metrics["cosine_layer1"]]
    assert torch.stack(layers).mean().item() == pytest.approx(step.metrics["cosine"].item(), abs=1e-6)


def test_a_collapsed_student_has_no_spread() -> None:
    task = tiny_task()
    with torch.no_grad():
        for decoder in task.model.get_submodule("clip_decoder").children():
            decoder.norm.weight.zero_()
            decoder.norm.bias.fill_(1.0)
    metrics = task.training_step(tiny_batch(), seed=0).metrics
    assert metrics["feature_std"].item() == pytest.approx(0, abs=1e-6)
    assert metrics["target_std"].item() > 0.1


def pair(student: dict[str, Any], teacher: dict[str, Any]) -> Distill:
    with torch.device("meta"):
        return Distill(
            create_model("pretrain_umt_tiny_patch8_64", **student), create_model("clip_tiny_patch8_64", **teacher)
        )


def test_a_teacher_of_another_patch_size_may_share_the_grid() -> None:
    pair({}, {"patch_size": 7, "image_size": 56})


def test_different_token_grids_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"grid \(8, 8, 8\) and the teacher's \(8, 4, 4\).*--clip_input_resolution / 8"
    ):
        pair({}, {"image_size": 32})


def test_grids_of_as_many_tokens_but_another_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(8, 4, 16\) and the teacher's \(8, 8, 8\)"):
        pair({"image_size": (32, 128)}, {})


def test_a_tubelet_that_the_teacher_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(4, 8, 8\) and the teacher's \(8, 8, 8\).*--tubelet_size 1"):
        pair({"tubelet_size": 2}, {})


def test_different_numbers_of_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="aligns 2 layers and the teacher returns 3"):
        pair({}, {"return_layers": 3})


def test_another_output_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--clip_output_dim \(64\) must be the teacher's output width, .* 48"):
        pair({}, {"output_dim": 48})


def test_an_unknown_loss_is_refused_before_the_first_step() -> None:
    with pytest.raises(ConfigError, match=r"--clip_loss_type \(l1\) is not a loss\. Choose one of l2, mse, smooth_l1"):
        tiny_task(loss="l1")


@pytest.mark.parametrize(
    ("option", "text"), [({"mask_type": "att"}, "--mask_type"), ({"mask_ratio": 1.0}, "--mask_ratio")]
)
def test_an_unusable_mask_is_refused_before_the_first_step(option: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        tiny_task(**option)


def test_a_batch_without_mask_noise_is_refused() -> None:
    batch = tiny_batch()
    batch.noise = None
    with pytest.raises(ConfigError, match=r"needs mask noise of the token grid \(2, 8, 64\)"):
        tiny_task().training_step(batch, seed=0)


def test_equal_unit_vectors_have_no_l2_loss() -> None:
    x: Tensor = torch.nn.functional.normalize(torch.randn(2, 3, 4, 5), dim=-1)
    assert alignment_loss(x, x, "l2").item() == pytest.approx(0, abs=1e-6)
