"""The classifier against the original's numbers, forward and backward, and what it promises beyond them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models.original import FOLDER, arrays, classifier_clip, clip, close, facts, filled, small_classifier
from umt.errors import ConfigError
from umt.models import VisionTransformer, create_model

SMALL = [name.split("/")[1] for name in facts("small_models") if name.startswith("classifier/")]
FULL = sorted(path.stem for path in (FOLDER / "state_dict_keys").glob("vit_*.json"))


@pytest.mark.parametrize("name", SMALL)
def test_logits_and_features_equal_the_original_s(name: str) -> None:
    model, video = small_classifier(name), classifier_clip(name)
    with torch.no_grad():
        features = model.forward_head(model.forward_features(video), pre_logits=True)
        assert close(features, arrays("small_models")[f"classifier/{name}/features"])
        assert close(model(video), arrays("small_models")[f"classifier/{name}"])


@pytest.mark.parametrize("name", SMALL)
def test_the_position_table_is_saved_exactly_where_the_original_saves_it(name: str) -> None:
    model, golden = small_classifier(name), facts("small_models")[f"classifier/{name}"]
    assert ("pos_embed" in model.state_dict()) == golden["pos_embed_in_state_dict"]
    assert list(model.pos_embed.shape) == golden["pos_shape"]
    assert "pos_embed" not in dict(model.named_parameters())


@pytest.mark.parametrize("name", ["mean_4f64", "cls_4f64"])
def test_state_dict_equals_the_original_s(name: str) -> None:
    own = {key: list(value.shape) for key, value in small_classifier(name).state_dict().items()}
    assert own == facts("small_models")[f"classifier/{name}"]["keys"]


@pytest.mark.parametrize("name", FULL)
def test_full_size_state_dicts_equal_the_original_s(name: str) -> None:
    golden = facts(f"state_dict_keys/{name}")
    model_name, frames, pooling = name.rsplit("_", 2)
    with torch.device("meta"):
        model = create_model(model_name, num_frames=int(frames[1:]), use_mean_pooling=pooling == "meanpool")
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == golden["keys"]
    assert list(model.pos_embed.shape) == golden["pos_embed_shape"]
    table = model.pos_embed.numel() if golden["pos_embed_is_parameter"] else 0  # a parameter there, a buffer here
    assert sum(p.numel() for p in model.parameters()) + table == golden["n_params"]


def test_other_sizes_with_1568_tokens_do_not_save_their_table() -> None:
    model = create_model("vit_base_patch16_224", num_frames=32, image_size=112, width=24, heads=2, depth=1)
    assert "pos_embed" not in model.state_dict()


def test_gradients_of_every_parameter_equal_the_original_s() -> None:
    model, golden = small_classifier("mean_4f64"), facts("losses")["classifier_mean_4f64"]
    loss = F.cross_entropy(model(classifier_clip("mean_4f64")), torch.tensor(golden["targets"]))
    loss.backward()
    norms = {name: p.grad.double().norm().item() for name, p in model.named_parameters()}
    expected = {name: norm for name, norm in golden["grad_norm"].items() if norm is not None}
    assert loss.item() == pytest.approx(golden["cross_entropy"], rel=1e-5)
    assert norms == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.slow
def test_the_base_classifier_equals_the_original_s() -> None:
    model = filled(create_model("vit_base_patch16_224"))
    with torch.no_grad():
        tokens = model.forward_features(clip("full_8f224", 1, 3, 8, 224, 224))
        features = model.forward_head(tokens, pre_logits=True)
        logits = model.forward_head(tokens)
    assert close(features, arrays("full_models")["vit_base_patch16_224_f8/features"])
    assert close(logits, arrays("full_models")["vit_base_patch16_224_f8/logits"])


@pytest.mark.parametrize("mean", [True, False])
def test_every_norm_has_eps_1e_6(mean: bool) -> None:
    model = small_classifier("mean_4f64", use_mean_pooling=mean)
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_without_mean_pooling_the_first_patch_is_taken() -> None:
    model, video = small_classifier("cls_4f64"), classifier_clip("cls_4f64")
    tokens = model.forward_features(video)
    assert torch.equal(model.forward_head(tokens, pre_logits=True), tokens[:, 0])


def test_a_learnable_position_table_trains_from_the_sinusoid_without_decay() -> None:
    model = small_classifier("mean_8f224", use_learnable_pos_emb=True, image_size=64)
    fixed = small_classifier("mean_8f224", image_size=64)
    assert torch.equal(model.pos_embed, fixed.pos_embed)
    model(torch.randn(1, 3, 8, 64, 64)).sum().backward()
    assert model.pos_embed.grad.abs().sum() > 0
    assert "pos_embed" in model.no_weight_decay()
    assert "pos_embed" in model.state_dict()


def test_recomputed_blocks_give_the_same_gradients() -> None:
    gradients = []
    for checkpoint_num in (0, 3):
        model = small_classifier("mean_4f64", checkpoint_num=checkpoint_num).train()
        model(classifier_clip("mean_4f64")).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize(("size", "patch"), [((32, 64), 16), (56, 14), ((28, 70), 14), (64, 8)])
def test_rectangles_and_other_patches_run(size: int | tuple[int, int], patch: int) -> None:
    model = VisionTransformer(
        image_size=size, patch_size=patch, width=24, depth=1, heads=2, num_frames=2, num_classes=5
    )
    assert model(torch.randn(1, 3, *model.clip_shape)).shape == (1, 5)


def test_patch_14_at_224_has_the_sinusoid_itself() -> None:
    model = VisionTransformer(patch_size=14, width=24, depth=1, heads=2)
    assert model.position_grid == model.grid == (8, 16, 16)
    assert "pos_embed" not in model.state_dict()


def test_no_classes_gives_features() -> None:
    model = small_classifier("mean_4f64", num_classes=0)
    assert model(classifier_clip("mean_4f64")).shape == (2, 96)
    assert not any(name.startswith("head") for name in model.state_dict())


def test_a_new_head_has_other_classes() -> None:
    model = small_classifier("mean_4f64")
    model.reset_classifier(7)
    assert model.num_classes == 7
    assert model(classifier_clip("mean_4f64")).shape == (2, 7)


def test_the_head_starts_scaled_down() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(width=96, depth=1, heads=2, image_size=32, num_frames=1, init_scale=0.01)
    assert model.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert model.head.weight.std().item() == pytest.approx(0.0002, rel=0.03)
    assert not model.head.bias.any()
    assert not model.blocks[0].attn.q_bias.any()


def test_head_dropout_acts_in_training_only() -> None:
    model, video = small_classifier("mean_4f64", fc_drop_rate=0.5), classifier_clip("mean_4f64")
    assert torch.equal(model(video), model(video))
    model.train()
    assert not torch.equal(model(video), model(video))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"image_size": 230}, r"image_size \(230\) must be a multiple of 16, the patch_size"),
        ({"num_classes": -1}, r"num_classes \(-1\) must not be negative"),
        ({"fc_drop_rate": 1.5}, r"fc_drop_rate \(1.5\) is a probability"),
        ({"width": 770}, "heads must divide width"),
    ],
)
def test_sizes_that_cannot_work_are_refused(arguments: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=sentence):
        create_model("vit_base_patch16_224", **arguments)


def test_a_clip_with_other_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes clips \(batch, 3, 4, 64, 64\)"):
        small_classifier("mean_4f64")(torch.zeros(1, 3, 8, 64, 64))


@pytest.mark.slow
def test_the_classifier_compiles_as_one_graph() -> None:
    model = small_classifier("mean_4f64", checkpoint_num=1).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    video = classifier_clip("mean_4f64")
    torch.testing.assert_close(compiled(video), model(video))
