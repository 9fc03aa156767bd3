"""The transformer block, drop path and recomputation."""

import torch
from torch import nn

from umt.layers.block import Block, make_blocks, run_block
from umt.layers.drop_path import DropPath


def test_norms_of_a_block_have_eps_1e_6() -> None:
    norms = [m for m in Block(24, 3).modules() if isinstance(m, nn.LayerNorm)]
    assert [norm.eps for norm in norms] == [1e-6, 1e-6]


def test_drop_path_grows_linearly_from_zero() -> None:
    rates = [m.rate for m in make_blocks(24, 4, 3, drop_path=0.3).modules() if isinstance(m, DropPath)]
    torch.testing.assert_close(rates, [0.0, 0.1, 0.2, 0.3], rtol=0, atol=1e-12)


def test_drop_path_keeps_or_drops_whole_samples_and_rescales() -> None:
    torch.manual_seed(0)
    out = DropPath(0.25)(torch.ones(4000, 3, 2))
    kept = out[:, 0, 0] > 0
    assert torch.equal(out, kept[:, None, None] * torch.full_like(out, 1 / 0.75))
    assert abs(kept.float().mean().item() - 0.75) < 0.03


def test_drop_path_rests_in_evaluation() -> None:
    x = torch.randn(4, 3)
    assert DropPath(0.9).eval()(x) is x


def test_dropout_sits_after_the_second_layer_of_the_mlp_only() -> None:
    block = Block(24, 3, drop=0.5)
    drops = {name: m.p for name, m in block.named_modules() if isinstance(m, nn.Dropout)}
    assert drops == {"attn.proj_drop": 0.5, "mlp.drop": 0.5}


def test_the_activation_is_the_exact_gelu() -> None:
    assert Block(24, 3).mlp.act.approximate == "none"


def test_recomputation_repeats_the_same_drops() -> None:
    blocks = [Block(24, 3, drop=0.3, attn_drop=0.3, drop_path=0.3) for _ in range(2)]
    blocks[1].load_state_dict(blocks[0].state_dict())
    x = torch.randn(4, 5, 24)
    gradients = []
    for block, recompute in zip(blocks, (False, True), strict=True):
        torch.manual_seed(1)
        run_block(block, x, recompute).square().sum().backward()
        gradients.append({name: p.grad for name, p in block.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
