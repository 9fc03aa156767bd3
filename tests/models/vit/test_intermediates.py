"""What other codebases ask of a backbone: features in the middle, and the usual handles of timm and torch."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tests.models.original import classifier_clip, small_classifier, small_clip, small_student, small_visible
from umt.errors import ConfigError
from umt.models import VisionTransformer
from umt.models.vit.intermediates import block_indices

DEPTH = 3


def model_and_clip(**overrides: Any) -> tuple[VisionTransformer, Tensor]:
    return small_classifier("mean_4f64", **overrides), classifier_clip("mean_4f64")


def hooked(blocks: Any, call: Any) -> list[Tensor]:
    """Outputs of `blocks` during `call()`, seen by forward hooks."""
    seen: list[Tensor] = []
    handles = [block.register_forward_hook(lambda *arguments: seen.append(arguments[2])) for block in blocks]
    call()
    for handle in handles:
        handle.remove()
    return seen


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_intermediates_equal_forward_hooks() -> None:
    model, video = model_and_clip()
    seen = hooked(model.blocks, lambda: model(video))
    features, outputs = model.forward_intermediates(video)
    assert equal(outputs, seen)
    assert torch.equal(features, model.forward_features(video))
    assert len(outputs) == len(model.blocks)


@pytest.mark.parametrize("masked", [False, True])
def test_a_student_s_intermediates_equal_forward_hooks(masked: bool) -> None:
    student, visible = small_student("k2"), small_visible() if masked else None
    everything = torch.arange(student.num_tokens).expand(2, -1)
    seen = hooked(student.encoder.blocks, lambda: student(small_clip(), small_visible() if masked else everything))
    outputs = student.forward_intermediates(small_clip(), visible=visible)
    assert equal(outputs, seen)
    last = student.forward_features(small_clip(), visible)
    assert torch.equal(last, student.encoder.norm(seen[-1]))
    assert torch.equal(last, student.forward_intermediates(small_clip(), 1, visible=visible, norm=True)[0])


@given(st.integers(1, 12), st.data())
@settings(max_examples=50, deadline=None)
def test_blocks_are_numbered_as_in_a_list(depth: int, data: st.DataObject) -> None:
    last = data.draw(st.integers(1, depth))
    chosen = data.draw(st.lists(st.integers(-depth, depth - 1), min_size=1))
    blocks = list(range(depth))
    assert list(block_indices(depth, None)) == blocks
    assert list(block_indices(depth, last)) == blocks[-last:]
    assert list(block_indices(depth, chosen)) == sorted({blocks[index] for index in chosen})


@pytest.mark.parametrize(
    ("indices", "sentence"),
    [
        (4, r"indices \(4\) asks for the last 4 of 3 blocks. Use 1..3"),
        ([0, 3], r"there is no block 3. Use 0..2, or -3..-1"),
        ([], "indices is empty"),
    ],
)
def test_blocks_that_do_not_exist_are_refused(indices: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        block_indices(DEPTH, indices)


def test_a_grid_has_time_rows_and_columns() -> None:
    model, video = model_and_clip()
    tokens, grid = (model.forward_intermediates(video, [1], output_fmt=f, intermediates_only=True)[0]
                    for f in ("NLC", "NCTHW"))  # fmt: skip
    assert grid.shape == (2, 96, 4, 4, 4)
    assert torch.equal(grid[:, :, 1, 2, 3], tokens[:, 1 * 16 + 2 * 4 + 3])


def test_another_layout_is_refused() -> None:
    model, video = model_and_clip()
    with pytest.raises(ConfigError, match=r"output_fmt \('NCHW'\) must be one of 'NLC', 'NCTHW'"):
        model.forward_intermediates(video, output_fmt="NCHW")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="'NCTHW' needs all tokens of a clip"):
        small_student("k2").forward_intermediates(small_clip(), visible=small_visible(), output_fmt="NCTHW")


@pytest.mark.parametrize(("pooling", "norm"), [("mean", "fc_norm"), ("cls", "norm")])
def test_the_norm_of_intermediates_is_the_model_s_last(pooling: str, norm: str) -> None:
    model, video = small_classifier(f"{pooling}_4f64"), classifier_clip(f"{pooling}_4f64")
    raw = model.forward_intermediates(video, [0, 2], intermediates_only=True)
    normed = model.forward_intermediates(video, [0, 2], norm=True, intermediates_only=True)
    assert equal(normed, [getattr(model, norm)(out) for out in raw])
    assert not equal(normed, raw)


def test_blocks_after_the_last_wanted_one_need_not_run() -> None:
    model, video = model_and_clip()
    ran = hooked(model.blocks, lambda: model.forward_intermediates(video, [1], stop_early=True))
    assert len(ran) == 2


def test_pruning_leaves_the_wanted_outputs() -> None:
    model, video = model_and_clip()
    expected = model.forward_intermediates(video, [0, -2], intermediates_only=True)
    assert model.prune_intermediate_layers([0, -2], prune_norm=True) == [0, 1]
    assert model.num_layers == len(model.blocks) == 2
    assert not isinstance(model.head, nn.Linear)
    assert equal(model.forward_intermediates(video, [0, 1], intermediates_only=True), expected)


def test_arguments_build_the_same_architecture() -> None:
    model, video = model_and_clip(drop_path_rate=0.1)
    model.reset_classifier(7)
    again = VisionTransformer(**model.arguments)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(video), model(video))
    student = small_student("k2")
    same = type(student)(**student.arguments)
    assert same.load_state_dict(student.state_dict())
    assert same.returned == student.returned


def test_a_head_keeps_its_pooling() -> None:
    model, _ = model_and_clip()
    model.reset_classifier(5, "avg")
    assert model.get_classifier() is model.head
    assert model.head.out_features == 5
    with pytest.raises(ConfigError, match=r"global_pool \('token'\) cannot change with the head"):
        model.reset_classifier(5, "token")


def test_recomputing_is_switched_on_and_off() -> None:
    model, video = model_and_clip()
    model(video).sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing()
    starts = [block.norm1 for block in model.blocks]
    assert len(hooked(starts, lambda: model(video).sum().backward())) == 2 * DEPTH  # each ran twice
    assert all(torch.equal(expected[name], p.grad) for name, p in model.named_parameters())
    model.set_grad_checkpointing(False)
    assert len(hooked(starts, lambda: model(video).sum().backward())) == DEPTH


def test_copies_and_pickles_compute_the_same() -> None:
    model, video = model_and_clip()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = small_classifier("mean_4f64")
    fresh.load_state_dict(torch.load(file))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh):
        assert torch.equal(other(video), model(video))


@pytest.mark.parametrize("normed", [weight_norm, spectral_norm])
def test_a_parametrised_weight_is_the_one_that_counts(normed: Any) -> None:
    model, video = model_and_clip()
    for module in (model.blocks[0].attn.qkv, model.patch_embed.proj, model.head):
        normed(module)
    model.train()(video).sum().backward()
    trained = [name for name, p in model.named_parameters() if "parametrizations" in name]
    assert len(trained) in (3, 6)
    assert all(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if name in trained)


class LowRank(nn.Module):
    """A linear layer with a low-rank addition, wrapped round it from outside as LoRA libraries do."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor, *arguments: Any) -> Tensor:
        return self.base(x, *arguments) + self.up(self.down(x))


def test_a_layer_wrapped_from_outside_is_called() -> None:
    model, video = model_and_clip()
    before = model(video)
    model.blocks[0].attn.qkv = LowRank(model.blocks[0].attn.qkv)
    after = model(video)
    assert not torch.equal(after, before)
    after.sum().backward()
    assert model.blocks[0].attn.qkv.up.weight.grad.any()


def test_gradients_are_clipped_and_parameters_flattened_by_torch() -> None:
    model, video = model_and_clip()
    model(video).sum().backward()
    assert nn.utils.clip_grad_norm_(model.parameters(), 1e-3) > 1e-3
    norms = torch.stack([p.grad.norm() for p in model.parameters()])
    assert norms.norm().item() == pytest.approx(1e-3, rel=1e-3)
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()
    other = small_classifier("mean_4f64")
    nn.utils.vector_to_parameters(torch.zeros_like(flat), other.parameters())
    nn.utils.vector_to_parameters(flat, other.parameters())
    assert torch.equal(other(video), model(video))


def test_autocast_gives_logits_in_its_dtype_near_those_of_float32() -> None:
    model, video = model_and_clip()
    expected = model(video)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(video)
        tokens = model.forward_intermediates(video, 1, intermediates_only=True)[0]
    assert logits.dtype == torch.bfloat16
    assert tokens.shape == (2, model.num_tokens, 96)
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()
