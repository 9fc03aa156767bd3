"""timm's vision transformers as teachers: features and saliency against the model's own attention, spelt out."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umt.data.transforms import normalize
from umt.errors import CheckpointError, ConfigError
from umt.models import create_model, create_teacher
from umt.models.teachers.timm import TimmTeacher, load_timm
from umt.models.teachers.timm_names import patch_size
from umt.tasks.distill.task import Distill

timm = pytest.importorskip("timm")

# Smaller than timm makes them, of the same parts: name -> keywords.
SMALL: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {},
    "vit_small_patch14_dinov2": {},
    "vit_small_patch14_reg4_dinov2": {},
    "vit_small_patch16_dinov3": {},
    "vit_base_patch16_siglip_224": {},
    "vit_base_patch16_siglip_gap_224": {},
    "vit_medium_patch16_reg4_gap_256": {},
    "eva02_tiny_patch14_224": {"num_heads": 2},
    "beitv2_base_patch16_224": {},
    "vit_base_patch16_clip_quickgelu_224": {},
}
FROM = {
    "vit_base_patch16_siglip_224": "attention pool",
    "vit_base_patch16_siglip_gap_224": "attention received",
    "vit_medium_patch16_reg4_gap_256": "attention received",
}
SIDE = 4  # patches


def small(name: str, seed: int = 0, **arguments: Any) -> TimmTeacher:
    torch.manual_seed(seed)
    size = SIDE * (patch_size(name) or 0)
    sizes = {"embed_dim": 48, "depth": 3, "num_heads": 3, **SMALL.get(name, {}), "img_size": size, "num_classes": 0}
    if sizes["num_heads"] == 2:
        sizes["embed_dim"] = 64
    model = timm.create_model(name, **sizes)
    with torch.no_grad():
        for parameter in model.parameters():  # also those that begin with zeros, as positions and layer scales
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return TimmTeacher(model, name=name, image_size=size, **{"return_layers": 2, **arguments}).requires_grad_(False)


def clip(teacher: TimmTeacher, frames: int = 2) -> Tensor:
    return torch.randn(2, 3, frames, *teacher.image_shape, generator=torch.Generator().manual_seed(1))


def last_attention(teacher: TimmTeacher, video: Tensor) -> Tensor:
    """Attention of the last block, (B T, h, L, L), by timm's own other path: without torch's function."""
    model, seen = teacher.model, {}
    block = model.blocks[-1].attn
    block.fused_attn = False
    handle = block.attn_drop.register_forward_pre_hook(lambda _, args: seen.update(attention=args[0]))
    model(teacher.renormalize(video).transpose(1, 2).flatten(0, 1))
    handle.remove()
    block.fused_attn = True
    return seen["attention"]


def pool_attention(teacher: TimmTeacher, video: Tensor) -> Tensor:
    """The attention of the pool's probe (B T, h, 1, N), by its weights."""
    model = teacher.model
    pool = model.attn_pool
    x = model.forward_features(teacher.renormalize(video).transpose(1, 2).flatten(0, 1))
    split = lambda t, n: t.unflatten(-1, (n, pool.num_heads, pool.head_dim)).permute(2, 0, 3, 1, 4)  # noqa: E731
    q = split(pool.q(pool.latent.expand(x.shape[0], -1, -1)), 1)[0]
    k = split(pool.kv(x), 2)[0]
    return (q @ k.transpose(-2, -1) * pool.head_dim**-0.5).softmax(-1)


@pytest.mark.parametrize("name", SMALL)
def test_saliency_is_the_model_s_own_attention(name: str) -> None:
    teacher = small(name)
    video = clip(teacher)
    source, first = teacher.saliency_from, teacher.prefix
    assert source == FROM.get(name, "class token")
    if source == "attention pool":
        expected = pool_attention(teacher, video).mean((1, 2))
    else:
        attention = last_attention(teacher, video)
        rows = attention[:, :, :1] if source == "class token" else attention[:, :, first:]
        expected = rows[..., first:].mean((1, 2))
    _, saliency = teacher(video)
    assert saliency.shape == (2, 2, SIDE * SIDE)
    assert saliency.dtype == torch.float32
    torch.testing.assert_close(saliency.flatten(0, 1), expected, rtol=1e-4, atol=1e-6)
    assert saliency.std() > 1e-4
    whole = saliency.sum(-1)
    assert (whole < 1 - 1e-4).all() if first else torch.allclose(whole, torch.ones(()))


@pytest.mark.parametrize("name", SMALL)
def test_targets_are_the_tokens_after_the_final_norm(name: str) -> None:
    teacher = small(name)
    video = clip(teacher)
    features, _ = teacher(video)
    model = teacher.model
    tokens = model.forward_features(teacher.renormalize(video).transpose(1, 2).flatten(0, 1))
    if isinstance(model.norm, nn.Identity):
        tokens = model.fc_norm(tokens)
    expected = F.normalize(tokens[:, teacher.prefix :], dim=-1).unflatten(0, (2, 2)).flatten(1, 2)
    assert len(features) == 2
    torch.testing.assert_close(teacher.project(features)[-1], expected)


def test_earlier_layers_are_returned_in_order() -> None:
    teacher, seen = small("vit_tiny_patch16_224"), {}
    teacher.model.blocks[1].register_forward_hook(lambda _, args, out: seen.update(out=out))
    video = clip(teacher)
    features, _ = teacher(video)
    assert teacher.returned == (1, 2)
    torch.testing.assert_close(features[0], seen["out"][:, 1:].unflatten(0, (2, 2)).flatten(1, 2))


def test_projecting_visible_tokens_is_taking_them_from_the_projection() -> None:
    teacher = small("vit_small_patch16_dinov3")
    features, _ = teacher(clip(teacher))
    visible = torch.tensor([[0, 5, 17], [3, 16, 31]])
    every = teacher.project(features)
    expected = every.gather(2, visible[None, ..., None].expand(2, -1, -1, every.shape[-1]))
    torch.testing.assert_close(teacher.project(features, visible), expected)


def test_features_that_are_not_normalised_keep_their_length() -> None:
    teacher = small("vit_tiny_patch16_224", norm_type="none")
    features, _ = teacher(clip(teacher))
    torch.testing.assert_close(teacher.project(features), teacher.model.norm(torch.stack(features)))


def test_rotary_positions_are_in_the_saliency() -> None:
    teacher = small("vit_small_patch16_dinov3")
    plain = nn.init.zeros_(clip(teacher))
    _, saliency = teacher(plain)  # every patch has the same content: only positions tell them apart
    assert saliency.std() > 1e-6


def test_frames_are_brought_to_the_model_s_statistics() -> None:
    teacher = small("vit_base_patch16_siglip_224")
    assert teacher.mean == (0.5, 0.5, 0.5)
    frames = torch.randint(0, 256, (2, 3, 1, *teacher.image_shape), dtype=torch.uint8)
    ours = teacher.renormalize(normalize.normalize(frames))
    torch.testing.assert_close(ours, normalize.normalize(frames, teacher.mean, teacher.std), rtol=0, atol=1e-5)


def test_frames_of_a_model_with_imagenet_s_statistics_stay_as_they_are() -> None:
    teacher = small("vit_small_patch14_dinov2")
    video = clip(teacher)
    assert teacher.renormalize(video) is video


def test_frames_are_seen_one_by_one() -> None:
    teacher = small("vit_small_patch14_dinov2")
    video = clip(teacher, frames=3)
    torch.testing.assert_close(teacher(video[:, :, 1:2])[1], teacher(video)[1][:, 1:2])


def test_a_clip_of_another_size_is_resized_as_for_clip() -> None:
    teacher = small("vit_small_patch14_dinov2")
    video = torch.randn(1, 3, 2, 64, 64)
    resized = F.interpolate(video[0].transpose(0, 1), size=(56, 56), mode="bicubic", align_corners=False)
    torch.testing.assert_close(teacher.resize(video)[0].transpose(0, 1), resized)
    torch.testing.assert_close(teacher(video)[1], teacher(teacher.resize(video))[1])


def test_in_half_precision_saliency_is_nearly_the_same() -> None:
    teacher = small("eva02_tiny_patch14_224")
    video = clip(teacher)
    with torch.autocast("cpu", torch.bfloat16):
        features, saliency = teacher(video)
        assert teacher.project(features).dtype == torch.float32
    torch.testing.assert_close(saliency, teacher(video)[1], rtol=0.1, atol=2e-3)


@pytest.mark.parametrize(
    "name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "vit_base_patch16_siglip_224"]
)
def test_a_step_trains_the_student_and_nothing_else(name: str) -> None:
    teacher = small(name)
    student = create_model(
        "pretrain_umt_tiny_patch8_64", image_size=SIDE * 8, num_frames=2, position_grid=(2, SIDE, SIDE),
        teacher_width=teacher.output_dim,
    )  # fmt: skip
    task = Distill(student, teacher, mask_ratio=0.75)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    step = task.align(torch.randn(2, 3, 2, SIDE * 8, SIDE * 8), torch.rand(2, 2, SIDE * SIDE))
    step.loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert sum(p.grad is not None for p in student.parameters()) == len(list(student.parameters()))
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert 0 < step.loss.item() < 4


def test_a_grid_that_does_not_fit_is_a_sentence() -> None:
    teacher = small("vit_small_patch14_dinov2")
    student = create_model("pretrain_umt_tiny_patch8_64", teacher_width=teacher.output_dim)
    with pytest.raises(ConfigError, match=r"make --clip_input_resolution / 14 equal to --input_size / 8"):
        Distill(student, teacher)


# ---- names and files


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vit_smal_patch14_dinov2", r"dinov2 is not a model of timm .*vit_small_patch14_dinov2"),
        ("vit_small_patch14_dinov2.nothing", r"has no weights 'nothing'\. It has lvd142m"),
        ("hf-hub:timm/vit", "is not a model of timm"),
        ("resnet18", "is no vision transformer with patches of one size"),
        ("swin_tiny_patch4_window7_224", "is no vision transformer with patches of one size"),
        ("vit_base_patch16_clip_224.openai", r"with QuickGELU.*Use timm:vit_base_patch16_clip_quickgelu_224\.openai"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_teach_is_a_sentence(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        create_teacher(f"timm:{name}", image_size=224, return_layers=1, download=False)


def test_a_size_that_is_no_multiple_of_the_patch_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"\(225\) must be a multiple of 16, .* Try --clip_input_resolution 224"):
        create_teacher("timm:vit_tiny_patch16_224", image_size=225, return_layers=1, download=False)


def test_a_file_gives_its_weights_on_another_grid(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=48)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    model, origin = load_timm("vit_tiny_patch16_224", weights=str(tmp_path / "vit.pth"), image_size=64)
    own: Any = model
    assert torch.equal(own.blocks[3].attn.qkv.weight, source.blocks[3].attn.qkv.weight)
    assert own.pos_embed.shape == (1, 17, 192)
    assert "all weights of timm's vit_tiny_patch16_224" in origin


def test_a_file_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"cls_token": torch.zeros(1, 1, 192)}, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match=r"is no vit_tiny_patch16_224 of timm's: it lacks \d+ of the weights"):
        load_timm("vit_tiny_patch16_224", weights=str(tmp_path / "vit.pth"), image_size=32)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"depth": 13}, r"it has blocks\.12\.norm1\.weight, .*, which that model does not have"),
        ({"embed_dim": 96}, r"of timm's: size mismatch for cls_token"),
    ],
)
def test_a_file_of_another_model_is_refused(tmp_path: Path, made: dict[str, Any], sentence: str) -> None:
    torch.save(timm.create_model("vit_tiny_patch16_224", img_size=32, **made).state_dict(), tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match=sentence):
        load_timm("vit_tiny_patch16_224", weights=str(tmp_path / "vit.pth"), image_size=32)


def test_a_classifier_is_no_teacher() -> None:
    with pytest.raises(ConfigError, match=r"vit_tiny_patch8_64 is not a teacher\. A CLIP is"):
        create_teacher("vit_tiny_patch8_64")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("vit_smal_patch16_224", "Did you mean vit_small_patch16_224 or"), ("nosuch", r"Choose a vit_\*, eva02_\* or")],
)
def test_a_name_that_timm_does_not_have_comes_with_the_nearest_if_there_are_any(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^teacher timm:{name} is not a model of timm [\d.]+\. {hint}"):
        load_timm(name)
