"""Features are what forward hooks see; clips slide; videos come in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.inference.tiny import DESCRIPTION, tiny
from tests.videos import played, render
from umt.data.lists.video_list import VideoList
from umt.data.loading.clips import Videos
from umt.data.transforms.pipelines import TestTransform
from umt.errors import ConfigError
from umt.inference.extraction import Extractor, usual_layer
from umt.inference.parts import ClipParts, Sliding, most_clips
from umt.inference.recognizer import Recognizer, load
from umt.models import create_model
from umt.models.files.description import Description

VIEWS = torch.randint(0, 256, (6, 8, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def seen_by_hooks(model: Recognizer, *names: str) -> list[torch.Tensor]:
    """Outputs of modules, by hooks of the test's own, batch by batch as the recognizer cuts them."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    handles = [
        model.model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: found[name].append(out))
        for name in names
    ]
    with torch.no_grad():
        for batch in model.batches(VIEWS):
            model.model(batch)
    for handle in handles:
        handle.remove()
    return [torch.cat(found[name]) for name in names]


def test_tokens_are_what_forward_hooks_see() -> None:
    model = tiny()
    first, last, gelu = seen_by_hooks(model, "blocks.0", "blocks.3", "blocks.1.mlp.fc1")
    taken = Extractor(model, ["0", "-1", "blocks.1.mlp.fc1"], "none")(VIEWS)
    assert torch.equal(taken["0"], first)
    assert torch.equal(taken["-1"], last)
    assert torch.equal(taken["blocks.1.mlp.fc1"], gelu)
    assert first.shape == (6, 8 * 4, 64)


@pytest.mark.parametrize("pool", ["mean", "spatial", "first"])
def test_pooling_is_over_the_tokens_that_it_says(pool: str) -> None:
    model = tiny()
    (tokens,) = seen_by_hooks(model, "blocks.2")
    expected = {
        "mean": tokens.mean(1),
        "spatial": tokens.reshape(6, 8, 4, 64).mean(2),
        "first": tokens[:, 0],
    }[pool]
    assert torch.equal(Extractor(model, ["2"], pool)(VIEWS)["2"], expected)


def test_what_the_head_is_fed_gives_its_logits() -> None:
    model = tiny()
    features = Extractor(model, [usual_layer(model)])(VIEWS)["pre_logits"]
    assert features.shape == (6, 64)
    assert torch.allclose(model.model.head(features), model.logits(VIEWS), atol=1e-6)  # type: ignore[operator]


def test_a_student_gives_the_tokens_of_whole_clips() -> None:
    torch.manual_seed(0)
    made = Description("pretrain_umt_tiny_patch8_48", {"num_frames": 8, "image_size": 16})
    student = create_model(made.model, **made.arguments)
    model = Recognizer(student, made, device=torch.device("cpu"), precision="fp32")
    assert usual_layer(model) == "-1"
    taken = Extractor(model, ["-1", "1"], "none")(VIEWS)
    with torch.no_grad():
        blocks = student.forward_intermediates(next(iter(model.batches(VIEWS))), [1, 3])
    assert torch.equal(taken["1"], blocks[0])
    assert torch.equal(taken["-1"], blocks[1])


def test_a_teacher_gives_patches_and_class_tokens_frame_by_frame() -> None:
    torch.manual_seed(0)
    made = Description("clip_tiny_patch8_48", {"image_size": 16})
    teacher = create_model(made.model, **made.arguments)
    model = Recognizer(teacher, made, device=torch.device("cpu"), precision="fp32", batch_size=6)
    (batch,) = model.batches(VIEWS)
    with torch.no_grad():
        features, _ = teacher(batch)
        classes = teacher.encode(batch)
    assert torch.allclose(Extractor(model, ["-1"], "none")(VIEWS)["-1"], features[-1], atol=1e-5)
    first = Extractor(model, ["-1"], "first")(VIEWS)["-1"]
    assert torch.allclose(teacher.ln_post(first) @ teacher.proj, classes, atol=1e-5)


def test_a_teacher_is_loaded_by_its_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = create_model("clip_tiny_patch8_48")
    torch.save(teacher.state_dict(), tmp_path / "clip.pth")
    model = load(tmp_path / "clip.pth", model="clip_tiny_patch8_48", num_frames=4, device="cpu", precision="fp32")
    views = model.transform(np.zeros((9, 60, 80, 3), np.uint8))
    assert views.shape == (1, 4, 48, 48, 3)
    taken = Extractor(model, ["-1"], "spatial")(views)["-1"]
    assert taken.shape == (1, 4, 64)
    with torch.no_grad():
        features, _ = teacher.eval()(next(iter(model.batches(views))))
    assert torch.allclose(taken, features[-1].unflatten(1, (4, -1)).mean(2), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        ("9", r"--layer 9: the model has blocks 0 to 3, or -4 to -1"),
        ("blocks.1.mpl", r"no such module. Did you mean blocks\.1\.mlp"),
        ("patch_embed.proj", r"are no tokens \(B, 32, D\)|does not use this module"),
    ],
)
def test_a_layer_that_cannot_be_taken_is_refused(layer: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Extractor(tiny(), [layer])(VIEWS)


@given(length=st.integers(1, 300), frames=st.integers(1, 16), stride=st.integers(1, 40), rate=st.integers(1, 8))
def test_sliding_clips_lie_within_the_video_at_their_stride(length: int, frames: int, stride: int, rate: int) -> None:
    clips, span = Sliding(frames, stride, rate)(length), (frames - 1) * rate + 1
    assert clips.shape == (max(length - span, 0) // stride + 1, frames)
    assert (clips[:, 0] == np.arange(len(clips)) * stride).all()
    assert clips.max() < length
    if length >= span:
        assert (np.diff(clips, axis=1) == rate).all()
        assert clips[-1, 0] + stride + span > length


def test_a_video_in_parts_has_the_views_of_one_in_one_piece(tmp_path: Path) -> None:
    path = render(tmp_path / "a.mp4", frames=60)
    videos, transform = Videos(VideoList("", [str(path)], [3])), TestTransform(40, 2, 32)
    parts = ClipParts(videos, Sliding(4, 5, 2), transform, most=4)
    whole, failures = ClipParts(videos, Sliding(4, 5, 2), transform).read(0, 0)
    assert not failures
    assert parts.parts(60) == 3
    pieces = [sample for part in range(3) for sample in parts.read(part, 0)[0]]
    assert len(whole) == len(pieces) == 2 * 11
    assert all(np.array_equal(a.video, b.video) for a, b in zip(whole, pieces, strict=True))
    frames = transform(played(path)[Sliding(4, 5, 2)(60)[7]])
    assert np.array_equal(whole[15].video, frames[1])


def test_parts_fill_batches_and_stay_small() -> None:
    most = most_clips(16, 224, 1, 8)
    assert most % 8 == 0
    assert most * 16 * 224 * 224 * 3 <= 32 << 20
    assert DESCRIPTION.num_frames == 8
