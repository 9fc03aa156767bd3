"""Which tokens the student sees in pretraining: attention-guided, tube or random masks, as indices.

Paper: https://arxiv.org/abs/2303.16058, section 3.2. Letters: B clips, T frames of tokens, N tokens per frame, V
visible tokens per clip. A mask is a function of `noise` alone (and of the teacher's saliency): what the noise is drawn
from decides whether a sample has the same mask with any number of workers, ranks and devices. The number of visible
tokens depends on the flags alone, so nothing here waits for the device.
"""

import torch
from torch import Tensor

from umt.errors import ConfigError

KINDS = ("attention", "tube", "random")


def visible_count(kind: str, mask_ratio: float, frames: int, tokens: int) -> int:
    """V: attention and tube mask int(tokens * mask_ratio) of each frame, random int(T * N * mask_ratio) of the clip."""
    if kind not in KINDS:
        raise ConfigError(f"--mask_type ({kind}) is not a mask. Choose one of {', '.join(KINDS)}.")
    if not 0 <= mask_ratio < 1:
        raise ConfigError(f"--mask_ratio ({mask_ratio}) must be at least 0 and below 1, e.g. --mask_ratio 0.8.")
    if kind == "random":
        return frames * tokens - int(frames * tokens * mask_ratio)
    return frames * (tokens - int(tokens * mask_ratio))


def visible_tokens(kind: str, mask_ratio: float, noise: Tensor, saliency: Tensor | None = None) -> Tensor:
    """noise (B, T, N) uniform in (0, 1), saliency (B, T, N) >= 0 -> (B, V) int64, ascending indices t * N + n.

    `attention` draws tokens of each frame one after another, without replacement, with weights `saliency` (a row need
    not sum to 1), and keeps the first N - int(N * mask_ratio). `tube` keeps the same tokens in every frame, `random`
    any of the clip. Raises `ConfigError` on another kind or ratio, or on attention without saliency.
    """
    frames, tokens = noise.shape[1:]
    visible = visible_count(kind, mask_ratio, frames, tokens)
    if kind == "random":
        return _first(noise.flatten(1), visible)
    offsets = torch.arange(frames, device=noise.device)[:, None] * tokens
    if kind == "tube":
        kept = _first(noise[:, :1], visible // frames)
    elif saliency is None:
        raise ConfigError(
            "--mask_type attention needs the teacher's attention. Give a teacher, or choose tube or random."
        )
    else:
        kept = _first(race(noise, saliency), visible // frames)
    return (kept + offsets).flatten(1)


def race(noise: Tensor, saliency: Tensor) -> Tensor:
    """Arrival times (in logarithms), same shape, whose order is a draw without replacement with weights `saliency`.

    Token i arrives after an exponential time of rate `saliency[i]`; the order of arrival has the law of a sequential
    draw (Efraimidis and Spirakis 2006, https://doi.org/10.1016/j.ipl.2005.11.003). In logarithms, so that a weight of
    zero means last, in random order, and never a tie of infinities.
    """
    noise, weight = noise.float(), saliency.float()
    tiny = torch.finfo(torch.float32).tiny
    return (-torch.log(noise.clamp(tiny, 1 - 2**-24))).log() - weight.clamp(min=tiny).log()


def _first(keys: Tensor, count: int) -> Tensor:
    """Indices of the `count` smallest keys along the last dimension, ascending."""
    return keys.topk(count, dim=-1, largest=False, sorted=False).indices.sort(dim=-1).values
