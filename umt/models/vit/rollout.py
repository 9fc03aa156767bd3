"""Where a trained model looks: attention matrices of its blocks, and how they flow from the last block to the first.

Attention rollout: Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928. Nothing here changes a model: hooks take
what goes into each block's attention, and the matrices are computed again, apart from the fused attention.
Shapes: B clips, L tokens, D width, h heads, K classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umt.errors import ConfigError
from umt.layers.attention import Attention, split_heads

_CHUNK = 1 << 28  # scores held at once, in bytes: those of 16 frames of a large model would take gigabytes


def _projected(attention: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    bias = torch.cat((attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias))
    return split_heads(F.linear(x, attention.qkv.weight, bias), attention.heads)


def attention_weights(attention: Attention, x: Tensor) -> Tensor:
    """x (B, L, D), what goes into `attention` -> softmax(q k^T / sqrt(d)), (B, h, L, L) float32; each row sums to 1."""
    q, k, _ = _projected(attention, x)
    return _softmax_rows(q, k)


def mean_attention(attention: Attention, x: Tensor, *, chunk: int = _CHUNK) -> Tensor:
    """The same averaged over heads, (B, L, L) float32; so many queries at a time that scores take `chunk` bytes."""
    q, k, _ = _projected(attention, x)
    batch, heads, length, _ = q.shape
    step = max(1, chunk // (4 * batch * heads * length))
    return torch.cat([_softmax_rows(part, k).mean(1) for part in q.split(step, dim=2)], dim=1)


def _softmax_rows(q: Tensor, k: Tensor) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.float().softmax(dim=-1)


@contextlib.contextmanager
def _watched(blocks: Iterable[nn.Module], take: Callable[[Attention, Tensor], None]) -> Iterator[None]:
    """Calls `take(attention, its input)` for each block that runs."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        take(cast(Attention, module), inputs[0].detach())

    handles = [cast(nn.Module, block.attn).register_forward_pre_hook(hook) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def block_attentions(blocks: Sequence[nn.Module], run: Callable[[], object]) -> list[Tensor]:
    """Head-averaged attention (B, L, L) float32 of each of `blocks`, in the order in which `run()` runs them.

    Raises `ConfigError` for blocks whose attention is not this library's.
    """
    if not all(isinstance(block.attn, Attention) for block in blocks):
        raise ConfigError("attention maps need blocks of umt.layers.block, whose attn is umt's Attention.")
    taken: list[Tensor] = []
    with torch.no_grad(), _watched(blocks, lambda attention, x: taken.append(mean_attention(attention, x))):
        run()
    return taken


def rollout(attentions: Sequence[Tensor], *, residual: float = 0.5) -> Tensor:
    """Attentions (B, L, L), first block first -> how much each input token counts for the mean of the outputs, (B, L).

    Each block passes on (1 - residual) A + residual I, whose rows sum to 1, so the result does too. The video models
    pool by the mean and have no class token, so it begins with equal parts at the last block and goes down; the product
    of the matrices itself is never made.
    """
    length = attentions[0].shape[-1]
    share = attentions[0].new_full((attentions[0].shape[0], 1, length), 1 / length)
    for attention in reversed(attentions):
        share = (1 - residual) * (share @ attention) + residual * share
    return share[:, 0]


def received(attention: Tensor) -> Tensor:
    """attention (B, L, L) -> what each token receives, averaged over all that look (B, L); it sums to 1."""
    return attention.mean(dim=1)


def class_maps(tokens: Tensor, head: Callable[[Tensor], Tensor], classes: Sequence[int]) -> Tensor:
    """How much each token speaks for each of `classes`: gradient times activation at `tokens`, (B, K, L), signed.

    tokens (B, L, D) before pooling; `head` gives logits (B, classes) of them. Summed over the tokens of a mean-pooled
    model without its norm these would be the logits less their biases: class activation maps (Zhou et al. 2016,
    https://arxiv.org/abs/1512.04150), by the gradient as in Grad-CAM (https://arxiv.org/abs/1610.02391).
    """
    with torch.enable_grad():
        tokens = tokens.detach().requires_grad_(True)
        logits = head(tokens)
        maps = []
        for k in classes:
            (gradient,) = torch.autograd.grad(logits[:, k].sum(), tokens, retain_graph=True)
            maps.append((gradient * tokens).sum(-1).detach())
    return torch.stack(maps, dim=1)
