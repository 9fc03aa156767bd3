"""The finetuning step: losses and gradients equal the original's; erasing, mixing and smoothing in their places."""

from typing import Any

import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

from tests.models.original import classifier_clip, facts, small_classifier
from umt.data.loading.clip_batch import ClipBatch
from umt.data.transforms.mixup import ClipMixup
from umt.data.transforms.normalize import normalize
from umt.errors import ConfigError
from umt.models import create_model
from umt.tasks.classify.task import Classify, classification_loss

RECORD = facts("losses")["classifier_mean_4f64"]


def tiny_task(**options: Any) -> Classify:
    torch.manual_seed(0)
    return Classify(create_model("vit_tiny_patch8_64", num_classes=5, init_scale=1.0), **options)


def tiny_batch(erase: torch.Tensor | None = None) -> ClipBatch:
    number = torch.arange(4)
    return ClipBatch(
        video=torch.randint(0, 256, (4, 3, 8, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8),
        label=number,
        row=number,
        copy=0 * number,
        clip=0 * number,
        crop=0 * number,
        seed=number,
        erase=erase,
    )


def logits_of_golden() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    model = small_classifier("mean_4f64")
    return model, model(classifier_clip("mean_4f64")), torch.tensor(RECORD["targets"])


def test_cross_entropy_and_its_gradients_equal_the_original() -> None:
    model, logits, target = logits_of_golden()
    loss = classification_loss(logits, target)
    loss.backward()
    assert loss.item() == pytest.approx(RECORD["cross_entropy"], rel=1e-5)
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert norms == pytest.approx({n: v for n, v in RECORD["grad_norm"].items() if v is not None}, rel=1e-4)


def test_label_smoothing_equals_the_original() -> None:
    _, logits, target = logits_of_golden()
    assert classification_loss(logits, target, 0.1).item() == pytest.approx(RECORD["label_smoothing_0.1"], rel=1e-5)


def test_label_smoothing_equals_timm() -> None:
    logits, target = torch.randn(6, 9), torch.arange(6)
    torch.testing.assert_close(
        classification_loss(logits, target, 0.3), LabelSmoothingCrossEntropy(0.3)(logits, target)
    )


def test_soft_targets_equal_timm() -> None:
    logits, target = torch.randn(6, 9), torch.rand(6, 9).softmax(1)
    torch.testing.assert_close(classification_loss(logits, target, 0.3), SoftTargetCrossEntropy()(logits, target))


def test_the_loss_is_computed_in_float32_whatever_the_logits() -> None:
    logits, target = torch.randn(4, 700).to(torch.float16), torch.arange(4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = classification_loss(logits, target)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits.float(), target), rtol=0, atol=0)


def test_a_step_with_hard_labels_smooths_them_and_tells_the_accuracy() -> None:
    task, batch = tiny_task(smoothing=0.2), tiny_batch()
    step = task.training_step(batch, seed=0)
    logits = task.model(normalize(batch.video))
    torch.testing.assert_close(step.loss, classification_loss(logits, batch.label, 0.2))
    assert step.metrics["acc1"].item() == 100 * (logits.argmax(1) == batch.label).float().mean()


def test_a_mixed_step_takes_the_targets_of_the_mixture_and_tells_no_accuracy() -> None:
    mixup, batch = ClipMixup(num_classes=5), tiny_batch()
    task = tiny_task(smoothing=0.9, mixup=mixup)
    step = task.training_step(batch, seed=7)
    clips, target = mixup(normalize(batch.video), batch.label, 7)
    torch.testing.assert_close(step.loss, classification_loss(task.model(clips), target))
    assert set(step.metrics) == {"loss"}


def test_mixing_is_a_function_of_the_seed_of_the_step() -> None:
    task = tiny_task(mixup=ClipMixup(num_classes=5))
    first, again, other = (task.training_step(tiny_batch(), seed=seed).loss for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_erasing_is_a_function_of_the_seed_of_the_sample() -> None:
    task, boxes = tiny_task(), torch.tensor([[8, 8, 32, 32]]).repeat(4, 1)
    plain, erased, again = (task.training_step(tiny_batch(b), seed=0).loss for b in (None, boxes, boxes))
    assert torch.equal(erased, again)
    assert not torch.equal(plain, erased)
    batch = tiny_batch(boxes)
    batch.seed = batch.seed + 100
    assert not torch.equal(erased, task.training_step(batch, seed=0).loss)


def test_a_step_leaves_the_frames_of_its_batch_alone() -> None:
    batch = tiny_batch(torch.tensor([[0, 0, 64, 64]]).repeat(4, 1))
    before = batch.video.clone()
    tiny_task(mixup=ClipMixup(num_classes=5)).training_step(batch, seed=0)
    assert torch.equal(batch.video, before)


def test_evaluation_gives_float32_logits_of_clean_clips() -> None:
    task, batch = tiny_task(mixup=ClipMixup(num_classes=5)), tiny_batch()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = task.evaluation_step(batch)
        expected = task.model(normalize(batch.video))
    assert logits.dtype == torch.float32
    assert torch.equal(logits, expected.float())


def test_a_smoothing_out_of_range_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"--smoothing \(1\.0\) must be at least 0 and below 1"):
        tiny_task(smoothing=1.0)


def test_an_unknown_filling_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"--remode \(cubes\) is not known"):
        tiny_task(erase_mode="cubes")


# ---- classes that do not count alike, and several labels a video


def test_class_weights_count_a_class_so_often() -> None:
    _, logits, target = logits_of_golden()
    weights = torch.rand(logits.shape[1]) + 0.5
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    assert torch.allclose(classification_loss(logits, target, 0.0, weights), (weights[target] * each).mean())


def test_class_weights_of_one_change_nothing_hard_soft_or_smoothed() -> None:
    _, logits, target = logits_of_golden()
    ones, soft = torch.ones(logits.shape[1]), torch.rand_like(logits).softmax(-1)
    for labels, smoothing in ((target, 0.0), (target, 0.1), (soft, 0.0)):
        plain = classification_loss(logits, labels, smoothing)
        assert torch.allclose(classification_loss(logits, labels, smoothing, ones), plain)


def test_a_hard_label_and_its_soft_target_weigh_the_same() -> None:
    _, logits, target = logits_of_golden()
    weights = torch.rand(logits.shape[1]) + 0.5
    hot = torch.nn.functional.one_hot(target, logits.shape[1]).float()
    assert torch.equal(
        classification_loss(logits, target, 0.0, weights), classification_loss(logits, hot, 0.0, weights)
    )


def multi_batch() -> ClipBatch:
    batch = tiny_batch()
    batch.label = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).float()
    return batch


def test_several_labels_are_a_yes_or_no_for_each_class() -> None:
    batch = multi_batch()
    output = tiny_task(multi_label=True, smoothing=0.0).training_step(batch, seed=0)
    logits = tiny_task().evaluation_step(batch)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.label)
    assert torch.allclose(output.loss, wanted)
    assert list(output.metrics) == ["loss"]


def test_mixup_mixes_the_labels_of_a_multi_label_list_as_it_does_the_clips() -> None:
    label = multi_batch().label
    video = label[:, None, :, None, None].expand(4, 3, 5, 8, 8).contiguous()  # pixels that are the labels
    mixed, target = ClipMixup(num_classes=5, cutmix_alpha=0.0, mode="elem")(video, label, 3)
    assert torch.allclose(mixed[:, 0, :, 0, 0], target, atol=1e-6)
    assert not torch.equal(target, label)


def test_a_cut_of_a_multi_label_clip_gives_its_labels_by_its_share() -> None:
    label = multi_batch().label
    video = torch.zeros(4, 3, 1, 32, 32)
    video[0] = 1
    mixed, target = ClipMixup(num_classes=5, mixup_alpha=0.0, mode="batch")(video, label, 5)
    share = mixed[0, 0, 0].mean()  # of clip 0 that is left
    assert torch.allclose(target[0], share * label[0] + (1 - share) * label[3], atol=1e-6)


def test_the_first_loss_outlives_a_restart() -> None:
    task = tiny_task()
    assert task.state_dict() == {}
    first = task.training_step(tiny_batch(), seed=0).loss.item()
    task.training_step(batch_of_other_clips(), seed=1)
    again = tiny_task()
    again.load_state_dict(task.state_dict())
    again.training_step(batch_of_other_clips(), seed=2)
    assert again.first_loss == first


def batch_of_other_clips() -> ClipBatch:
    batch = tiny_batch()
    batch.video = 255 - batch.video
    return batch
