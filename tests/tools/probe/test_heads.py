"""Many probes in one pass: each is trained as if it were alone, and learns what there is to learn and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from umt.tools.probe import attentive, linear
from umt.tools.probe.heads import Setting, Stacked, Training, fit, predict, validate
from umt.tools.probe.table import Table

SETTINGS = [Setting(0.1, 0.0), Setting(0.02, 0.01), Setting(0.003, 0.1)]
Kind = str


def _make(kind: Kind, table: Table, heads: int, classes: int = 3) -> nn.Module:
    if kind == "linear":
        return linear.LinearHeads(table, heads, classes)
    return attentive.AttentiveHeads(table.shape[-1], heads, classes)


def _data(kind: Kind, rows: int = 60, classes: int = 3, seed: int = 0) -> tuple[Table, np.ndarray]:
    """Features that tell the class: of the mean of the tokens for both probes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    centres = np.random.default_rng(9).normal(size=(classes, 8)) * 3
    shape = (rows, 8) if kind == "linear" else (rows, 4, 8)
    features = rng.normal(size=shape) + (centres[labels] if kind == "linear" else centres[labels][:, None])
    return Table(features.astype(np.float32)), labels


@pytest.mark.parametrize(("kind", "optimiser"), [("linear", "sgd"), ("attentive", "adamw")])
def test_many_settings_at_once_equal_each_alone(kind: Kind, optimiser: str) -> None:
    table, labels = _data(kind)
    training = Training(optimiser, epochs=3, batch=16)  # type: ignore[arg-type]
    together = _make(kind, table, len(SETTINGS))
    curve = fit(together, table, labels, SETTINGS, training, seed=0, validation=(table, labels))
    for place, setting in enumerate(SETTINGS):
        alone = _make(kind, table, 1)
        own = fit(alone, table, labels, [setting], training, seed=0, validation=(table, labels))
        for name, value in alone.named_parameters():
            torch.testing.assert_close(together.get_parameter(name)[place], value[0], rtol=1e-4, atol=1e-5)
        assert [c.loss[place] for c in curve] == pytest.approx([c.loss[0] for c in own], rel=1e-4)
        np.testing.assert_allclose(predict(together, table, place), predict(alone, table, 0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "attentive"])
def test_separable_data_is_told_apart_without_an_error(kind: Kind) -> None:
    table, labels = _data(kind)
    other, truth = _data(kind, seed=1)
    heads = _make(kind, table, 1)
    fit(heads, table, labels, [Setting(0.01, 0.0)], Training("adamw", 20, 16), seed=0)
    assert validate(heads, other, truth)[0] == [100.0]


@pytest.mark.parametrize("kind", ["linear", "attentive"])
def test_labels_by_lot_are_guessed_near_chance(kind: Kind) -> None:
    table, _ = _data(kind, rows=400)
    other, _ = _data(kind, rows=400, seed=1)
    rng = np.random.default_rng(5)
    heads = _make(kind, table, 1, classes=4)
    fit(heads, table, rng.integers(0, 4, 400), [Setting(0.01, 0.0)], Training("adamw", 5, 50), seed=0)
    assert abs(validate(heads, other, rng.integers(0, 4, 400))[0][0] - 25) < 8  # 3.7 standard deviations


def test_a_linear_probe_trained_to_the_end_is_where_the_gradient_vanishes() -> None:
    table, labels = _data("linear", rows=40)
    heads = linear.LinearHeads(table, 2, 3)
    decays = (0.1, 0.5)
    fit(heads, table, labels, [Setting(0.2, decay) for decay in decays], Training("sgd", 400, 40), seed=0)
    loss = F.cross_entropy(
        heads(table.rows(range(40))).transpose(1, 2), torch.from_numpy(labels)[:, None].expand(-1, 2)
    )
    gradient, bias = torch.autograd.grad(2 * loss, [heads.weight, heads.bias])  # the mean is over two settings
    for place, decay in enumerate(decays):
        assert (gradient[place] + decay * heads.weight[place]).abs().max() < 1e-4
    assert bias.abs().max() < 1e-4


def test_a_setting_that_diverges_leaves_the_others_alone() -> None:
    table, labels = _data("linear")
    heads = _make("linear", table, 2)
    training = Training("sgd", 3, 16)
    curve = fit(heads, table, labels, [Setting(1e30, 1.0), SETTINGS[1]], training, seed=0, validation=(table, labels))
    alone = _make("linear", table, 1)
    own = fit(alone, table, labels, [SETTINGS[1]], training, seed=0, validation=(table, labels))
    assert not np.isfinite(curve[-1].loss[0])
    assert curve[-1].loss[1] == pytest.approx(own[-1].loss[0], rel=1e-4)


def test_a_linear_probe_does_not_care_for_the_scale_and_origin_of_features() -> None:
    table, labels = _data("linear")
    rng = np.random.default_rng(3)
    moved = Table((table.array * rng.uniform(0.5, 9, 8) + rng.normal(size=8)).astype(np.float32))
    logits = []
    for one in (table, moved):
        heads = linear.LinearHeads(one, 1, 3)
        fit(heads, one, labels, [Setting(0.1, 0.01)], Training("sgd", 5, 16), seed=0)
        logits.append(predict(heads, one, 0))
    np.testing.assert_allclose(*logits, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_stacked_optimiser_is_torchs_for_each_setting(kind: str) -> None:
    torch.manual_seed(0)
    first, targets = torch.randn(1, 4, 3).repeat(3, 1, 1), torch.randn(6, 4, 3)
    stacked = nn.Parameter(first.clone())
    ours = Stacked([stacked], SETTINGS, kind)  # type: ignore[arg-type]
    single = [nn.Parameter(first[0].clone()) for _ in SETTINGS]
    theirs: list[torch.optim.Optimizer] = [
        torch.optim.SGD([p], lr=s.lr, momentum=0.9, weight_decay=s.weight_decay)
        if kind == "sgd"
        else torch.optim.AdamW([p], lr=s.lr, weight_decay=s.weight_decay)
        for p, s in zip(single, SETTINGS, strict=True)
    ]
    for target in targets:
        ((stacked - target) ** 2).sum().backward()
        ours.step(1.0)
        for p, optimiser in zip(single, theirs, strict=True):
            optimiser.zero_grad()
            ((p - target) ** 2).sum().backward()
            optimiser.step()
    torch.testing.assert_close(stacked.detach(), torch.stack([p.detach() for p in single]), rtol=1e-4, atol=1e-6)


def test_attentive_pooling_is_multi_head_attention_with_one_query() -> None:
    width, probes = 128, 2  # two attention heads
    heads = attentive.AttentiveHeads(width, probes, 3)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.3
            )
    tokens = torch.randn(5, 7, width)
    seen = heads.attend(tokens)
    for p in range(probes):
        theirs = nn.MultiheadAttention(width, 2, batch_first=True)
        with torch.no_grad():
            theirs.in_proj_weight.copy_(torch.cat((heads.q[p], heads.k[p], heads.v[p])))
            theirs.in_proj_bias.copy_(torch.cat((heads.q_bias[p], torch.zeros(width), heads.v_bias[p])))
            theirs.out_proj.weight.copy_(torch.eye(width))
            theirs.out_proj.bias.zero_()
        expected, _ = theirs(heads.query[p].expand(5, 1, -1), tokens, tokens)
        torch.testing.assert_close(seen[:, p], expected[:, 0], rtol=1e-4, atol=1e-4)


def test_the_order_of_tokens_does_not_matter_to_an_attentive_probe() -> None:
    heads = attentive.AttentiveHeads(8, 2, 3)
    with torch.no_grad():
        heads.weight.normal_()
    tokens = torch.randn(4, 6, 8)
    torch.testing.assert_close(heads(tokens), heads(tokens[:, torch.randperm(6)]), rtol=1e-4, atol=1e-5)


def test_features_larger_than_memory_are_read_as_those_in_memory(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(50, 3, 4)).astype(np.float16)
    np.save(tmp_path / "x.npy", array)
    chosen = np.array([7, 3, 3, 44, 12, 9, 30])
    here = Table(array).take(chosen)
    there = Table(np.load(tmp_path / "x.npy", mmap_mode="r"), resident=0).take(chosen)
    order = np.array([6, 0, 2, 1, 5])
    for (a, x), (b, y) in zip(here.batches(order, 2), there.batches(order, 2), strict=True):
        np.testing.assert_array_equal(a, b)
        assert torch.equal(x, y)
        np.testing.assert_array_equal(x, array[chosen[a]].astype(np.float32))
    for ours, theirs in zip(here.moments(), there.moments(), strict=True):
        torch.testing.assert_close(ours, theirs)
    flat = array[chosen].astype(np.float64).reshape(-1, 4)
    np.testing.assert_allclose(there.moments()[1], flat.std(0), rtol=1e-4)
