"""`load_weights`: every kind of file into every kind of model, and a sentence for each that does not fit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.original import facts, small_classifier, small_student, small_teacher, weight
from umt.errors import CheckpointError
from umt.models import ClipTeacher, Student, VisionTransformer, create_model, load_weights
from umt.models.layouts.plan import Plan

SMALL = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 2, "heads": 2, "num_frames": 2}


def classifier(**overrides: Any) -> VisionTransformer:
    return VisionTransformer(**{**SMALL, "num_classes": 5, "init_scale": 1.0, **overrides})


def student(**overrides: Any) -> Student:
    sizes = {"teacher_width": 12, "return_layers": 2, "position_grid": (8, 28, 28)}
    return Student(**{**SMALL, **sizes, **overrides})


def teacher(**overrides: Any) -> ClipTeacher:
    sizes = {name: value for name, value in SMALL.items() if name != "num_frames"}
    return ClipTeacher(**{**sizes, "output_dim": 12, "return_layers": 1, **overrides})


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path / "weights.pth")
    return path / "weights.pth"


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[name], value) for name, value in state.items())


# --- wrappers ---


@pytest.mark.parametrize("key", ["model", "module", None])
def test_weights_lie_under_model_or_module_or_bare(tmp_path: Path, key: str | None) -> None:
    source, target = classifier(), classifier()
    state = source.state_dict()
    load_weights(target, saved(tmp_path, state if key is None else {key: state, "epoch": 3}))
    assert same(target, state)


def test_another_key_can_be_named(tmp_path: Path) -> None:
    source, target = classifier(), classifier()
    file = saved(tmp_path, {"model": classifier().state_dict(), "model_ema": source.state_dict()})
    load_weights(target, file, model_key="model_ema")
    assert same(target, source.state_dict())


def test_a_file_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    file = saved(tmp_path, {"optimizer": {}, "epoch": 1})
    with pytest.raises(
        CheckpointError, match=r"no weights under model or module.*holds: optimizer, epoch.*--model_key"
    ):
        load_weights(classifier(), file)


def test_a_pickled_argparse_namespace_is_let_through(tmp_path: Path) -> None:
    source, target = classifier(), classifier()
    args = argparse.Namespace(model="vit", lr=1e-3, opt_betas=[0.9, 0.999], clip_grad=None)
    load_weights(target, saved(tmp_path, {"model": source.state_dict(), "args": args, "epoch": 4}))
    assert same(target, source.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_ddp_and_compile_are_removed(tmp_path: Path, prefix: str) -> None:
    source, target = classifier(), classifier()
    load_weights(target, saved(tmp_path, {prefix + name: value for name, value in source.state_dict().items()}))
    assert same(target, source.state_dict())


def test_model_prefix_selects_a_part_of_the_file(tmp_path: Path) -> None:
    source, target = classifier(), classifier()
    state = {"video." + name: value for name, value in source.state_dict().items()}
    report = load_weights(target, saved(tmp_path, {**state, "text.weight": torch.ones(2)}), model_prefix="video.")
    assert same(target, source.state_dict())
    assert report.unused == ["text.weight"]


def test_a_model_prefix_that_nothing_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights that begin with 'video\.' \(--model_prefix\)"):
        load_weights(classifier(), saved(tmp_path, classifier().state_dict()), model_prefix="video.")


def test_half_precision_weights_become_the_model_s_type(tmp_path: Path) -> None:
    source, target = classifier().half(), classifier()
    load_weights(target, saved(tmp_path, source.state_dict()))
    assert target.head.weight.dtype == torch.float32
    assert same(target, {name: value.float() for name, value in source.state_dict().items()})


# --- classifier ---


@pytest.mark.parametrize("prefix", ["encoder.", "backbone."])
def test_a_prefixed_encoder_fits_a_classifier(tmp_path: Path, prefix: str) -> None:
    source = {name: value for name, value in classifier().state_dict().items() if not name.startswith(("head", "fc_"))}
    target = classifier()
    report = load_weights(target, saved(tmp_path, {prefix + name: value for name, value in source.items()}))
    assert same(target, source)
    assert report.new == ["fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"]


def test_a_pretraining_checkpoint_gives_a_classifier_its_encoder(tmp_path: Path) -> None:
    source, target = student(), classifier()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    report = load_weights(target, saved(tmp_path, {"model": source.state_dict()}))
    assert same(target, {n: v for n, v in source.encoder.state_dict().items() if not n.startswith("norm.")})
    assert same(target, {name: before[name] for name in report.new})
    assert report.new == ["fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"]
    assert set(report.unused) == {
        "norm.weight",
        "norm.bias",
        *(name for name in source.state_dict() if name.startswith("clip_decoder.")),
    }


def test_first_token_pooling_takes_the_pretrained_norm(tmp_path: Path) -> None:
    source, target = student(), classifier(use_mean_pooling=False)
    nn.init.normal_(source.encoder.norm.weight)
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    assert torch.equal(target.norm.weight, source.encoder.norm.weight)
    assert report.new == ["head.weight", "head.bias"]


def test_the_pretrained_encoder_computes_the_same_tokens_in_the_classifier(tmp_path: Path) -> None:
    source, target = student().eval(), classifier(use_mean_pooling=False).eval()
    load_weights(target, saved(tmp_path, source.state_dict()))
    video = torch.randn(2, 3, 2, 32, 32)
    tokens = source.encoder(video, torch.arange(32).expand(2, -1))[-1]
    torch.testing.assert_close(target.forward_features(video), tokens)


def test_a_head_of_710_classes_is_reduced_to_given_rows(tmp_path: Path) -> None:
    golden = facts("heads_k710")["synthetic"]
    sizes = {"width": 8, "num_classes": 4}
    source = classifier(width=8, num_classes=710).state_dict()
    source["head.weight"], source["head.bias"] = weight("head.weight", (710, 8)), weight("head.bias", (710,))
    target = classifier(**sizes)
    report = load_weights(target, saved(tmp_path, source), head_rows=golden["label_map"])
    assert torch.equal(target.head.weight.detach(), torch.tensor(golden["weight"]))
    assert torch.equal(target.head.bias.detach(), torch.tensor(golden["bias"]))
    assert report.adapted["head.weight"] == "4 of 710 rows"
    assert not report.new


def test_the_first_400_rows_are_kinetics_400(tmp_path: Path) -> None:
    golden = facts("heads_k710")["synthetic"]
    source = classifier(width=8, num_classes=710).state_dict()
    source["head.weight"], source["head.bias"] = weight("head.weight", (710, 8)), weight("head.bias", (710,))
    target = classifier(width=8, num_classes=400)
    load_weights(target, saved(tmp_path, source), head_rows=range(400))
    assert target.head.weight.double().sum().item() == pytest.approx(golden["k400_weight_sum"], abs=1e-6)
    assert target.head.bias.double().sum().item() == pytest.approx(golden["k400_bias_sum"], abs=1e-6)


def test_head_rows_put_the_same_classes_in_another_order(tmp_path: Path) -> None:
    source, target = classifier(), classifier()
    report = load_weights(target, saved(tmp_path, source.state_dict()), head_rows=[4, 3, 2, 1, 0])
    assert torch.equal(target.head.weight, source.head.weight.flip(0))
    assert report.adapted == {"head.bias": "rows reordered", "head.weight": "rows reordered"}


def test_a_head_of_another_class_count_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, classifier(num_classes=7).state_dict())
    with pytest.raises(CheckpointError, match=r"head of 7 classes, the model 5 \(--nb_classes\).*--delete_head"):
        load_weights(classifier(), file)


def test_rows_that_the_head_lacks_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, classifier(num_classes=7).state_dict())
    with pytest.raises(CheckpointError, match=r"head row 7 does not exist.*rows 0\.\.6"):
        load_weights(classifier(), file, head_rows=[0, 1, 2, 3, 7])


def test_a_new_head_is_a_matter_of_asking(tmp_path: Path) -> None:
    source, target = classifier(num_classes=7), classifier()
    before = target.head.weight.clone()
    report = load_weights(target, saved(tmp_path, source.state_dict()), new_head=True)
    assert torch.equal(target.head.weight, before)
    assert same(target, {n: v for n, v in source.state_dict().items() if not n.startswith("head")})
    assert report.new == ["head.weight", "head.bias"]
    assert report.unused == ["head.weight", "head.bias"]


def test_a_model_without_head_leaves_the_file_s(tmp_path: Path) -> None:
    report = load_weights(classifier(num_classes=0), saved(tmp_path, classifier().state_dict()))
    assert sorted(report.unused) == ["head.bias", "head.weight"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"width": 32}, r"another architecture: \S+ is .* in the file and .* in the model"),
        ({"patch_size": 16}, r"patch_embed.proj.weight is \(24, 3, 1, 16, 16\) in the file"),
        ({"depth": 1}, r"lacks 13 of the model's 33 weights: blocks\.1\."),
        ({"depth": 3}, r"13 weights for which the model has no place: blocks\.2\."),
        ({"init_values": 0.1}, r"4 weights for which the model has no place: blocks\.0\.gamma_1"),
    ],
)
@pytest.mark.parametrize("new_head", [False, True])
def test_another_architecture_is_refused(tmp_path: Path, source: dict, sentence: str, new_head: bool) -> None:
    target = classifier(image_size=48)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(CheckpointError, match=sentence):
        load_weights(target, saved(tmp_path, classifier(**source).state_dict()), new_head=new_head)
    assert same(target, before)


def test_the_final_norm_of_the_other_pooling_is_new_with_the_head_only(tmp_path: Path) -> None:
    file = saved(tmp_path, classifier(use_mean_pooling=False).state_dict())
    with pytest.raises(CheckpointError, match=r"lacks 2 of the model's 33 weights: fc_norm\.weight, fc_norm\.bias"):
        load_weights(classifier(), file)
    report = load_weights(classifier(), file, new_head=True)
    assert report.new == ["fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"]


def test_a_missing_backbone_weight_is_an_error(tmp_path: Path) -> None:
    state = student().state_dict()
    del state["encoder.blocks.1.attn.q_bias"]
    with pytest.raises(CheckpointError, match=r"lacks 1 of the model's 33 weights: blocks\.1\.attn\.q_bias"):
        load_weights(classifier(), saved(tmp_path, state))


def test_weights_without_a_place_are_left_when_not_strict(tmp_path: Path) -> None:
    source, target = classifier(), classifier()
    report = load_weights(target, saved(tmp_path, {**source.state_dict(), "extra": torch.ones(1)}), strict=False)
    assert report.unused == ["extra"]
    assert same(target, source.state_dict())


# --- position tables ---


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ({"num_frames": 16, "patch_size": 16}, {"num_frames": 16, "patch_size": 16}),
        ({"num_frames": 16, "patch_size": 16}, {"num_frames": 8, "patch_size": 16}),
        ({"image_size": 384, "patch_size": 16, "num_frames": 8}, {"image_size": 224, "patch_size": 16}),
        ({"num_frames": 4, "tubelet_size": 2}, {"num_frames": 8, "tubelet_size": 2}),
        ({}, {"image_size": (32, 64)}),
        (
            {"num_frames": 8, "image_size": 224, "patch_size": 16},
            {"num_frames": 16, "image_size": 224, "patch_size": 16},
        ),
    ],
)
def test_a_fixed_table_of_any_size_becomes_that_of_the_model(tmp_path: Path, source: dict, target: dict) -> None:
    model = classifier(**target)
    expected = model.pos_embed.clone()
    load_weights(model, saved(tmp_path, classifier(**source).state_dict()))
    torch.testing.assert_close(model.pos_embed, expected, rtol=0, atol=1e-6)


def test_a_fixed_table_in_half_precision_is_recognised(tmp_path: Path) -> None:
    model = classifier(num_frames=4)
    expected = model.pos_embed.clone()
    report = load_weights(model, saved(tmp_path, classifier(num_frames=2).half().state_dict()))
    assert torch.equal(model.pos_embed, expected)
    assert report.adapted["pos_embed"] == "the fixed sinusoid of 2x4x4; that of 4x4x4 stands"


def trained(model: VisionTransformer) -> VisionTransformer:
    nn.init.normal_(model.pos_embed)
    return model


def test_a_trained_table_is_copied_to_the_same_size(tmp_path: Path) -> None:
    source = trained(classifier(use_learnable_pos_emb=True))
    target = classifier(use_learnable_pos_emb=True)
    load_weights(target, saved(tmp_path, source.state_dict()))
    assert torch.equal(target.pos_embed, source.pos_embed)


@pytest.mark.parametrize("sizes", [{"num_frames": 4}, {"image_size": 64}, {"image_size": (32, 40)}])
def test_a_trained_table_is_resampled(tmp_path: Path, sizes: dict) -> None:
    source = trained(classifier(use_learnable_pos_emb=True))
    nn.init.constant_(source.pos_embed, 0.7)
    target = classifier(use_learnable_pos_emb=True, **sizes)
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    torch.testing.assert_close(target.pos_embed.detach(), torch.full(target.pos_embed.shape, 0.7))
    assert "trained table resampled, 2x4x4 -> " in report.adapted["pos_embed"]


def test_a_trained_table_of_unclear_grid_wants_to_be_told(tmp_path: Path) -> None:
    file = saved(tmp_path, trained(classifier(use_learnable_pos_emb=True, num_frames=6, image_size=48)).state_dict())
    target = classifier(use_learnable_pos_emb=True, num_frames=5)
    with pytest.raises(CheckpointError, match=r"pos_embed has 216 rows.*source_grid"):
        load_weights(target, file)
    report = load_weights(target, file, source_grid=(6, 6, 6))
    assert report.adapted["pos_embed"] == "trained table resampled, 6x6x6 -> 5x4x4"


def test_a_source_grid_that_is_not_the_table_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"pos_embed has 32 rows, not \(2, 4, 5\)"):
        load_weights(classifier(), saved(tmp_path, classifier().state_dict()), source_grid=(2, 4, 5))


def test_a_trained_table_is_not_lost_in_a_model_that_would_not_save_it(tmp_path: Path) -> None:
    sizes = {"num_frames": 2, "position_grid": (2, 4, 4)}
    file = saved(tmp_path, trained(classifier(use_learnable_pos_emb=True, **sizes)).state_dict())
    with pytest.raises(CheckpointError, match=r"not the fixed sinusoid.*--use_learnable_pos_emb"):
        load_weights(classifier(**sizes), file)


def test_a_learnable_table_starts_at_the_sinusoid_under_fixed_weights(tmp_path: Path) -> None:
    sizes = {"num_frames": 2, "position_grid": (2, 4, 4)}
    target = classifier(use_learnable_pos_emb=True, **sizes)
    report = load_weights(target, saved(tmp_path, classifier(**sizes).state_dict()))
    assert torch.equal(target.pos_embed.detach(), classifier(**sizes).pos_embed)
    assert report.adapted == {"pos_embed": "not in the file; the sinusoid of 2x4x4 stands"}


# --- student and teacher ---


def test_a_pretraining_checkpoint_gives_a_student_everything(tmp_path: Path) -> None:
    source, target = student(), student()
    report = load_weights(target, saved(tmp_path, {"model": source.state_dict()}))
    assert same(target, source.state_dict())
    assert not report.new
    assert not report.unused


def test_a_learnable_table_goes_from_student_to_classifier(tmp_path: Path) -> None:
    source, target = student(use_learnable_pos_emb=True), classifier(use_learnable_pos_emb=True)
    nn.init.normal_(source.encoder.pos_embed)
    load_weights(target, saved(tmp_path, source.state_dict()))
    assert torch.equal(target.pos_embed, source.encoder.pos_embed)


def test_a_student_with_other_decoders_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, student(return_layers=1).state_dict())
    with pytest.raises(CheckpointError, match=r"lacks 4 of the model's \d+ weights: clip_decoder\.1\."):
        load_weights(student(), file)


def test_a_classifier_file_does_not_make_a_student(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="lacks"):
        load_weights(student(), saved(tmp_path, classifier().state_dict()))


def clip_file(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A whole CLIP state dict: 2-D convolution, the text tower beside the visual one."""
    visual = {"visual." + name: value for name, value in state.items()}
    visual["visual.conv1.weight"] = state["conv1.weight"].squeeze(2)
    text = {
        "positional_embedding": torch.randn(77, 16),
        "logit_scale": torch.ones(()),
        "ln_final.weight": torch.ones(16),
    }
    return {**visual, **text}


def test_clip_gives_the_teacher_its_visual_tower(tmp_path: Path) -> None:
    source, target = teacher(), teacher()
    report = load_weights(target, saved(tmp_path, clip_file(source.state_dict())))
    assert same(target, source.state_dict())
    assert report.adapted == {"conv1.weight": "2-D -> 3-D, 1 frames"}
    assert report.unused == ["positional_embedding", "logit_scale", "ln_final.weight"]


def test_a_bare_visual_tower_loads(tmp_path: Path) -> None:
    source, target = small_teacher("k2"), small_teacher("k2")
    nn.init.zeros_(target.proj)
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    assert same(target, source.state_dict())
    assert not report.adapted


def test_a_2d_convolution_lies_in_the_centre_of_the_tubelet(tmp_path: Path) -> None:
    source, target = teacher(), teacher(tubelet_size=3)
    load_weights(target, saved(tmp_path, clip_file(source.state_dict())))
    assert torch.equal(target.conv1.weight[:, :, 1], source.conv1.weight[:, :, 0])
    assert not target.conv1.weight[:, :, ::2].any()


@pytest.mark.parametrize("size", [48, (32, 40)])
def test_clip_positions_are_resampled_to_another_grid(tmp_path: Path, size: int | tuple[int, int]) -> None:
    source, target = teacher(), teacher(image_size=size)
    with torch.no_grad():
        source.positional_embedding[1:] = 0.3
    report = load_weights(target, saved(tmp_path, source.state_dict()))
    assert torch.equal(target.positional_embedding[0], source.positional_embedding[0])
    torch.testing.assert_close(
        target.positional_embedding[1:].detach(), torch.full((target.positional_embedding.shape[0] - 1, 24), 0.3)
    )
    assert report.adapted["positional_embedding"].startswith("16 patches -> ")


def test_a_file_without_a_visual_tower_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a vision transformer in timm's names, but not CLIP's"):
        load_weights(teacher(), saved(tmp_path, classifier().state_dict()))
    with pytest.raises(CheckpointError, match="has no visual tower of CLIP"):
        load_weights(teacher(), saved(tmp_path, {"weight": torch.ones(1)}))


def test_a_visual_tower_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"another architecture: proj is \(24, 14\) in the file"):
        load_weights(teacher(), saved(tmp_path, teacher(output_dim=14).state_dict()))


def test_other_modules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not know Linear, which has no method fit_weights"):
        load_weights(nn.Linear(2, 2), saved(tmp_path, {"weight": torch.ones(2, 2)}))


class Halved(nn.Linear):
    """A model of one's own, whose files have twice as many rows."""

    def fit_weights(self, plan: Plan) -> None:
        plan.state["weight"] = plan.state["weight"][::2]
        plan.report.adapted["weight"] = "every second row"


def test_a_model_of_ones_own_says_how_its_weights_fit(tmp_path: Path) -> None:
    model, rows = Halved(2, 2), torch.arange(8.0).reshape(4, 2)
    report = load_weights(model, saved(tmp_path, {"weight": rows, "bias": torch.ones(2)}))
    assert torch.equal(model.weight, rows[::2])
    assert (report.loaded, report.adapted) == (["bias"], {"weight": "every second row"})


# --- the report ---


def test_the_report_reads_as_a_few_lines(tmp_path: Path) -> None:
    source = student()
    file = saved(tmp_path, {"model": source.state_dict()})
    lines = str(load_weights(classifier(), file)).splitlines()
    assert lines == [
        f"{file}: 28 loaded, 1 adapted, 4 new, 10 unused",
        "  adapted  pos_embed: not in the file; the sinusoid of 2x4x4 stands",
        "  new      fc_norm.* (2)",
        "  new      head.* (2)",
        "  unused   clip_decoder.* (8)",
        "  unused   norm.* (2)",
    ]


@pytest.mark.parametrize("name", ["k2", "k2_gamma", "k2_learnpos"])
def test_student_files_of_the_original_s_names_load(tmp_path: Path, name: str) -> None:
    keys = facts("small_models")[f"student/{name}"]["keys"]
    state = {key: weight(key, tuple(shape)) for key, shape in keys.items()}
    target = small_student(name)
    nn.init.zeros_(target.encoder.norm.weight)
    load_weights(target, saved(tmp_path, {"model": state}))
    assert same(target, state)


@pytest.mark.parametrize("name", ["mean_4f64", "cls_4f64"])
def test_classifier_files_of_the_original_s_names_load(tmp_path: Path, name: str) -> None:
    keys = facts("small_models")[f"classifier/{name}"]["keys"]
    state = {key: weight(key, tuple(shape)) for key, shape in keys.items() if key != "pos_embed"}
    target = small_classifier(name)
    state["pos_embed"] = target.pos_embed.clone()
    nn.init.zeros_(target.head.weight)
    load_weights(target, saved(tmp_path, {"module": state}))
    assert same(target, state)


@pytest.mark.parametrize("name", ["vit_tiny_patch8_64", "pretrain_umt_tiny_patch8_64"])
def test_a_file_of_which_no_name_is_known_is_of_no_architecture_here(tmp_path: Path, name: str) -> None:
    file = saved(tmp_path, {"model": {"conv1.weight": torch.zeros(2), "bn1.weight": torch.zeros(2)}})
    with pytest.raises(CheckpointError, match=r"of no architecture that this library has: .* but conv1\.weight, bn1"):
        load_weights(create_model(name, depth=2), file)
