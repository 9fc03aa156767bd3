"""Finetuning: RandAugment and the random resized crop, with the original's law and pixels, drawn once per clip."""

import math
import pickle
import random
import subprocess
import sys
import zlib

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from umt.data.transforms import randaugment, resized_crop
from umt.data.transforms.normalize import STD, normalize
from umt.data.transforms.pipelines import FinetuneTransform
from umt.data.transforms.randaugment import RandAugment, draw_magnitude, timm_policy
from umt.data.transforms.resize import resize
from umt.errors import ConfigError

POLICY = "rand-m7-n4-mstd0.5-inc1"


def sign_seeds() -> dict[bool, int]:
    """A seed under which timm negates a level, and one under which it does not."""
    seeds: dict[bool, int] = {}
    for seed in range(20):
        seeds.setdefault(random.Random(seed).random() > 0.5, seed)
    return seeds


def test_randaugment_is_configured_as_the_originals(image_space) -> None:
    golden, policy = image_space["randaugment"], timm_policy(image_space["randaugment"]["config"], "bicubic")
    assert [operation.name for operation in policy.ops] == golden["ops"]
    assert policy.num_layers == golden["n_ops"]
    assert policy.choice_weights is None
    for operation in policy.ops:
        assert (operation.prob, operation.magnitude) == (golden["prob"], golden["magnitude"])
        assert operation.magnitude_std == golden["magnitude_std"]
        assert operation.kwargs == {"fillcolor": (128, 128, 128), "resample": Image.Resampling.BICUBIC}


def test_randaugment_operations_equal_the_originals(clip, image_space) -> None:
    """Every operation, level and sign. The pixels to the bit under the Pillow that made them, else in the mean."""
    golden, image, seeds = image_space["randaugment"], Image.fromarray(clip[3]), sign_seeds()
    operations = {operation.name: operation for operation in timm_policy(POLICY, "bicubic").ops}
    assert len(golden["table"]) == 120
    for row in golden["table"]:
        (result,) = randaugment.apply([image], operations[row["op"]], row["level"], seeds[row["negated"]])
        pixels = np.asarray(result)
        if "error" in row:  # Pillow 13 refuses to keep no bits: black, as before
            assert pixels.max() == 0
        elif PIL.__version__ == golden["pillow"]:
            assert zlib.crc32(pixels.tobytes()) == row["crc32"], row
        else:
            assert pixels.mean() == pytest.approx(row["mean"], abs=0.5), row


@pytest.mark.parametrize("policy", [POLICY, "rand-m9-n6-mstd101-p1.0-t3a"])
def test_randaugment_changes_every_frame_alike(clip, policy: str) -> None:
    still = np.repeat(clip[:1], 4, axis=0)
    changed = 0
    for seed in range(30):
        result = RandAugment(policy, "random")(still, np.random.default_rng(seed))
        assert result.shape == still.shape
        assert (result == result[:1]).all()
        changed += not np.array_equal(result, still)
    assert changed > 15  # all four operations of the first policy are skipped once in 16


def test_magnitudes_have_timms_law() -> None:
    rng, operation = np.random.default_rng(0), timm_policy(POLICY, "bicubic").ops[3]
    magnitudes = np.array([draw_magnitude(operation, rng) for _ in range(4000)])
    assert magnitudes.mean() == pytest.approx(7, abs=5 * 0.5 / 4000**0.5)
    assert magnitudes.std() == pytest.approx(0.5, rel=0.06)
    uniform = np.array([draw_magnitude(timm_policy("rand-m8-mstd101", "bicubic").ops[3], rng) for _ in range(4000)])
    assert uniform.mean() == pytest.approx(4, abs=5 * 8 / 48000**0.5)
    wide = np.array([draw_magnitude(timm_policy("rand-m9-mstd9", "bicubic").ops[3], rng) for _ in range(500)])
    assert wide.min() == 0
    assert wide.max() == 10


@pytest.mark.parametrize("off", ["", "none"])
def test_randaugment_can_be_switched_off(clip, off: str) -> None:
    assert RandAugment(off)(clip, np.random.default_rng(0)) is clip


@pytest.mark.parametrize("policy", ["augmix-m3", "rand-m7-q3", "rand_m7", "rand-mx", "rand-p.5"])
def test_an_unknown_policy_is_refused_before_timm_sees_it(policy: str) -> None:
    with pytest.raises(ConfigError, match=rf"--aa \({policy}\) is not a RandAugment policy. Write e.g. --aa rand-m7"):
        FinetuneTransform(64, auto_augment=policy)


def test_an_unknown_interpolation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--train_interpolation \(cubic\) is not known. Choose one of bilinear"):
        FinetuneTransform(64, interpolation="cubic")


def test_timm_is_imported_only_when_randaugment_runs() -> None:
    program = (
        "import sys, numpy as np\n"
        "from umt.data.transforms.pipelines import EvalTransform, FinetuneTransform, PretrainTransform, TestTransform\n"
        "clip, rng = np.zeros((1, 40, 40, 3), np.uint8), np.random.default_rng(0)\n"
        "FinetuneTransform(32)\n"
        "for t in FinetuneTransform(32, auto_augment=''), EvalTransform(32, 32), TestTransform(32, 3):\n"
        "    t(clip, rng)\n"
        "print({'timm', 'torchvision', 'torch'} & set(sys.modules))\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_crops_differ_from_the_originals_by_one_grey_level_at_most(clip, image_space, golden_pixels) -> None:
    """The original resizes normalised floats; OpenCV rounds to uint8, which darkens a clip by 0.12 on average."""
    top, left, height, width = image_space["rrc"]["box_i_j_h_w"]
    frames = resize(clip[:, top : top + height, left : left + width], 64, 64)
    values = normalize(torch.from_numpy(frames).permute(3, 0, 1, 2)).numpy()
    error = np.abs(values[:, 1] - golden_pixels["rrc_box5_10_50_60_frame1"]) * 255 * np.reshape(STD, (3, 1, 1))
    assert error.max() <= 1
    assert error.mean() <= 0.3
    darker = (image_space["rrc"]["sum"] - values.sum(dtype=np.float64)) / values.size * 255 * np.mean(STD)
    assert 0 <= darker <= 0.15


def test_boxes_equal_the_originals_for_the_same_draws(image_space) -> None:
    """The original draws from Python's generator: its draws, our shapes."""
    low, high = (math.log(ratio) for ratio in resized_crop.RATIO)
    for seed, height, width, *expected in image_space["rrc_boxes_seeded"]["rows"]:
        source = random.Random(seed)
        while True:
            area = source.uniform(*resized_crop.SCALE) * height * width
            h, w = resized_crop.box_shape(area, math.exp(source.uniform(low, high)))
            if 0 < w <= width and 0 < h <= height:
                break
        assert [source.randint(0, height - h), source.randint(0, width - w), h, w] == expected


def test_fallback_boxes_equal_the_originals(image_space) -> None:
    for height, width, *expected in image_space["rrc_fallback"]["rows"]:
        assert list(resized_crop.fallback_box(height, width)) == expected


def test_a_frame_too_thin_for_any_box_gets_the_fallback() -> None:
    box = resized_crop.random_box(10, 2000, np.random.default_rng(0), scale=(0.9, 1.0))
    assert box == resized_crop.fallback_box(10, 2000)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 10**6))
def test_boxes_lie_in_the_frame(height: int, width: int, seed: int) -> None:
    top, left, h, w = resized_crop.random_box(height, width, np.random.default_rng(seed))
    assert 0 <= top <= height - h
    assert 0 <= left <= width - w
    assert h > 0
    assert w > 0


def test_boxes_have_torchvisions_law() -> None:
    """Means of 3000 boxes of each, within 5 standard errors: area, logarithm of the ratio, place."""
    transforms = pytest.importorskip("torchvision.transforms")
    rng, frame = np.random.default_rng(0), torch.zeros(3, 240, 320)
    torch.manual_seed(0)
    theirs = np.array(
        [transforms.RandomResizedCrop.get_params(frame, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    )
    ours = np.array([resized_crop.random_box(240, 320, rng) for _ in range(3000)])

    def facts(boxes: np.ndarray) -> np.ndarray:
        top, left, h, w = boxes.T
        return np.stack([h * w, (h * w) ** 2, np.log(w / h), np.log(w / h) ** 2, top, left])

    a, b = facts(ours), facts(theirs)
    error = np.sqrt(a.var(1) / 3000 + b.var(1) / 3000)
    assert (np.abs(a.mean(1) - b.mean(1)) <= 5 * error).all()


def test_no_flip_where_left_and_right_have_a_meaning(clip) -> None:
    mirrored = 0
    for seed in range(40):
        plain = FinetuneTransform(32, auto_augment="", flip=False)(clip, np.random.default_rng(seed))
        flipped = FinetuneTransform(32, auto_augment="")(clip, np.random.default_rng(seed))
        if not np.array_equal(plain, flipped):
            np.testing.assert_array_equal(flipped, plain[:, :, ::-1])
            mirrored += 1
    assert 8 <= mirrored <= 32


def test_everything_random_comes_from_the_generator(clip) -> None:
    transform = pickle.loads(
        pickle.dumps(FinetuneTransform(32, auto_augment="rand-m7-n4-p1.0", interpolation="random"))
    )
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = transform(clip, np.random.default_rng(5))
    random.seed(99)  # what others draw changes nothing
    np.testing.assert_array_equal(first, transform(clip, np.random.default_rng(5)))
    random.setstate(before[0])
    assert not np.array_equal(first, transform(clip, np.random.default_rng(6)))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
