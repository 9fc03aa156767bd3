"""What happens on the device: erasing and mixing, with the original's law, as functions of their seeds alone."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.data.loading.clip_batch import collate
from umt.data.loading.clips import Sample
from umt.data.transforms import erasing
from umt.data.transforms.erasing import draw_erase_box, erase
from umt.data.transforms.mixup import ClipMixup
from umt.data.transforms.normalize import normalize
from umt.errors import ConfigError


def test_rectangles_equal_the_originals_for_the_same_draws(image_space) -> None:
    """The original draws from Python's generator: its draws on 64 x 64 pixels, our shapes."""
    low, high = (math.log(aspect) for aspect in erasing.ASPECT)
    for row in image_space["random_erasing"]["rows"]:
        source, box = random.Random(row["seed"]), None
        while source.random() <= 0.25 and box is None:
            h, w = erasing.rectangle_shape(source.uniform(*erasing.AREA) * 64 * 64, math.exp(source.uniform(low, high)))
            assert h < 64
            assert w < 64
            box = [source.randint(0, 64 - h), source.randint(0, 64 - w), h, w]
            break
        assert box == row["top_left_h_w"], row


def test_a_quarter_of_the_clips_is_erased_at_random_places() -> None:
    rng = np.random.default_rng(0)
    boxes = np.stack([draw_erase_box(rng, 64, 48) for _ in range(4000)])
    erased = boxes[boxes[:, 2] > 0]
    assert len(erased) / 4000 == pytest.approx(0.25 * (1 - 0.006**10), abs=5 * (0.25 * 0.75 / 4000) ** 0.5)
    share = erased[:, 2] * erased[:, 3] / (64 * 48)
    assert 0.015 < share.min() < 0.025
    assert 0.3 < share.max() < 0.35
    assert (boxes[boxes[:, 2] == 0] == 0).all()


@settings(deadline=None)
@given(st.integers(2, 100), st.integers(2, 100), st.integers(1, 3), st.integers(0, 10**6))
def test_rectangles_lie_in_the_frame(height: int, width: int, count: int, seed: int) -> None:
    boxes = draw_erase_box(np.random.default_rng(seed), height, width, probability=1.0, count=count)
    assert boxes.shape == ((4,) if count == 1 else (count, 4))
    assert boxes.dtype == np.int64
    for top, left, h, w in boxes.reshape(-1, 4):
        assert 0 <= top <= height - h
        assert 0 <= left <= width - w


def test_several_rectangles_share_the_area() -> None:
    rng = np.random.default_rng(0)
    boxes = np.stack([draw_erase_box(rng, 200, 200, probability=1.0, count=2) for _ in range(400)])
    drawn = (boxes[..., 2] > 0).sum(1)
    assert 140 < (drawn == 2).sum() < 260  # one or two, equally often
    assert (boxes[drawn == 2].prod(-1) >= 0).all()
    area = (boxes[..., 2] * boxes[..., 3]).max(1) / 200**2
    assert area[drawn == 2].max() < 0.18
    assert area[drawn == 1].max() > 0.25


def video(clips: int = 3) -> torch.Tensor:
    return torch.full((clips, 3, 4, 16, 12), 7.0)


BOXES = torch.tensor([[2, 3, 8, 5], [0, 0, 0, 0], [1, 1, 4, 4]])
SEEDS = torch.tensor([11, 12, 2**62 + 5])


def test_erasing_fills_the_rectangle_of_every_frame_with_fresh_noise() -> None:
    out = erase(video(), BOXES, SEEDS)
    inside = out[0, :, :, 2:10, 3:8]
    assert (inside != 7).all()
    assert (inside[:, 0] != inside[:, 1]).any()
    assert (out == 7).sum() == out.numel() - 3 * 4 * (8 * 5 + 4 * 4)


def test_pixel_noise_is_normal() -> None:
    out = erase(torch.zeros(1, 3, 8, 64, 64), torch.tensor([[0, 0, 64, 64]]), torch.tensor([3]))
    assert out.mean().abs() < 5 / out.numel() ** 0.5
    assert out.std().item() == pytest.approx(1, abs=0.01)


def test_the_noise_of_a_clip_is_a_function_of_its_seed() -> None:
    whole = erase(video(), BOXES, SEEDS)
    torch.manual_seed(1234)  # the global generator plays no part
    state = torch.get_rng_state()
    alone = erase(video(1), BOXES[2:], SEEDS[2:])
    assert torch.equal(whole[2:], alone)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(alone, erase(video(1), BOXES[2:], SEEDS[2:] + 1))


def test_erasing_with_a_constant_is_zero() -> None:
    assert (erase(video(), BOXES, SEEDS, "const")[0, :, :, 2:10, 3:8] == 0).all()


def test_erasing_with_a_random_colour_is_flat_in_each_frame() -> None:
    inside = erase(video(), BOXES, SEEDS, "rand")[0, :, :, 2:10, 3:8]
    assert (inside == inside[..., :1, :1]).all()
    assert inside[..., 0, 0].unique().numel() == 12


def test_all_rectangles_are_erased() -> None:
    boxes = torch.tensor([[[0, 0, 2, 2], [8, 8, 3, 3]]])
    assert (erase(video(1), boxes, SEEDS[:1], "const") == 0).sum() == 3 * 4 * (4 + 9)


def test_an_unknown_way_to_erase_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--remode \(noise\) is not known. Choose one of pixel, rand, const."):
        erase(video(), BOXES, SEEDS, "noise")


LABELS = torch.tensor([1, 2, 3, 4])


def mixer(**settings) -> ClipMixup:
    return ClipMixup(num_classes=6, **settings)


def test_mixed_clips_and_targets_equal_the_originals(mix_batch, mix_weights, image_space) -> None:
    """Rows whose cut has odd sides are cut one pixel larger by timm; their share follows the cut."""
    rows = image_space["mixup"]["rows"]
    same = [row for row in rows if row["timm_on_folded_view_equal"]]
    assert len(same) >= 8
    for row in same:
        mixed, target = mixer()(torch.from_numpy(mix_batch.copy()), LABELS, seed=row["seed"])
        assert mixed.shape == mix_batch.shape
        assert mixed.sum(dtype=torch.float64).item() == pytest.approx(row["x_sum"], rel=1e-5)
        assert (mixed.double().numpy() * mix_weights).sum() == pytest.approx(row["x_proj"], abs=1e-3)
        if not row["cutmix"]:
            expected = row["lam_drawn"] * mix_batch + (1 - row["lam_drawn"]) * mix_batch[::-1]
            np.testing.assert_allclose(mixed, expected, atol=1e-5)
        assert target.dtype == torch.float32
        np.testing.assert_allclose(target[0], row["target_row0"], atol=1e-6)


def test_a_cut_is_a_rectangle_of_the_frame_through_the_whole_clip(mix_batch, image_space) -> None:
    """Its share of the frame is the share of the partner's label, also where timm's cut is not the original's."""
    source = torch.from_numpy(mix_batch)
    cuts = [row for row in image_space["mixup"]["rows"] if row["cutmix"]]
    assert len(cuts) >= 4
    for row in cuts:
        mixed, target = mixer(label_smoothing=0.0)(source.clone(), LABELS, seed=row["seed"])
        from_partner = mixed != source
        frame = from_partner[0, 0, 0]
        assert (from_partner == frame).all()
        assert torch.equal(mixed, torch.where(frame, source.flip(0), source))
        rows, columns = frame.any(1).sum(), frame.any(0).sum()
        assert frame.sum() == rows * columns
        assert target[0, 4].item() == pytest.approx(frame.float().mean().item(), abs=1e-6)


@pytest.mark.parametrize("mode", ["elem", "pair"])
@pytest.mark.parametrize("settings", [{"mixup_alpha": 0.0}, {"cutmix_alpha": 0.0}, {"cutmix_minmax": (0.2, 0.8)}])
def test_clips_mix_as_their_targets_say(mix_batch, mode: str, settings: dict) -> None:
    """On batches of constant clips the mean of a mixed clip is the share of each partner."""
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    video = values.view(4, 1, 1, 1, 1).expand(4, 3, 2, 17, 17).clone()
    labels = torch.tensor([0, 1, 2, 3])
    mixed, target = mixer(mode=mode, label_smoothing=0.0, **settings)(video, labels, seed=4)
    torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), target[:, :4] @ values, atol=1e-4, rtol=0)
    assert target.sum(1).tolist() == pytest.approx([1] * 4, abs=1e-6)


def test_mixing_is_a_function_of_its_seed_and_touches_nothing_global(mix_batch) -> None:
    np.random.seed(7)
    before = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()
    first, _ = mixer()(torch.from_numpy(mix_batch.copy()), LABELS, seed=2**62 + 1)
    np.random.rand(3)
    again, _ = mixer()(torch.from_numpy(mix_batch.copy()), LABELS, seed=2**62 + 1)
    assert torch.equal(first, again)
    np.random.seed(7)
    assert (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()) == before
    other, _ = mixer()(torch.from_numpy(mix_batch.copy()), LABELS, seed=2**62 + 2)
    assert not torch.equal(first, other)


def test_the_global_generator_is_given_back_after_mixing(mix_batch) -> None:
    np.random.seed(7)
    expected = np.random.rand(4).tolist()
    np.random.seed(7)
    head = np.random.rand(2).tolist()
    mixer()(torch.from_numpy(mix_batch.copy()), LABELS, seed=1)
    assert head + np.random.rand(2).tolist() == expected


def test_an_odd_number_of_clips_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the clips of a step \(3\) must be even in number. Choose --batch_size"):
        mixer()(torch.zeros(3, 3, 2, 8, 8), LABELS[:3], seed=0)


def test_an_unknown_way_to_mix_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--mixup_mode \(half\) is not known. Choose one of batch, elem, pair."):
        mixer(mode="half")


def test_mixing_with_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="mixing needs --mixup or --cutmix above 0"):
        mixer(mixup_alpha=0.0, cutmix_alpha=0.0)


def test_frames_travel_as_bytes_and_become_floats_on_the_device() -> None:
    """Tensors of torch's "meta" device have no content: whatever were computed on the host would raise."""
    frames = np.zeros((2, 17, 17, 3), np.uint8)
    box = np.array([2, 3, 8, 5])
    batch = collate([Sample(frames, label=n, row=n, path="", seed=n, erase=box) for n in range(4)], [])
    assert batch.video.dtype == torch.uint8
    moved = batch.to("meta")
    assert (moved.video.dtype, moved.video.device.type) == (torch.uint8, "meta")
    video = erase(normalize(moved.video), moved.erase, moved.seed, "const")
    mixed, target = mixer()(video, moved.label, seed=1)
    assert (mixed.dtype, mixed.device.type) == (torch.float32, "meta")
    assert (tuple(target.shape), target.device.type) == ((4, 6), "meta")


@pytest.mark.gpu
def test_nothing_on_the_device_waits_for_the_gpu() -> None:
    """With boxes and seeds on the host, as a batch keeps them."""
    frames = torch.zeros(4, 3, 2, 17, 17, dtype=torch.uint8).pin_memory()
    labels, mix = LABELS.cuda(), mixer()
    boxes, seeds = torch.tensor([[2, 3, 8, 5]] * 4), torch.arange(4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        video = normalize(frames.to("cuda", non_blocking=True))
        for seed in range(8):
            mixed, target = mix(erase(video, boxes, seeds), labels, seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert mixed.isfinite().all()
    assert target.shape == (4, 6)
