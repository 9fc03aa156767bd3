"""Mixup and CutMix of the clips of a batch, on the device.

Papers: https://arxiv.org/abs/1710.09412, https://arxiv.org/abs/1905.04899. timm's `Mixup` mixes images (B, C, H, W):
clips are folded to (B, C * T, H, W), so that a cut is a rectangle of the frame that stays for the whole clip. (On five
dimensions timm would cut time and height.)
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from umt.errors import ConfigError

MODES = ("batch", "elem", "pair")


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """timm draws from numpy's global generator: seeds it for a while, then restores its state."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)


class ClipMixup:
    """Mixes each clip with its partner, the batch in reverse order; targets are mixed likewise and smoothed.

    `mixup_alpha` and `cutmix_alpha` (0: off) shape the beta distributions of the share; `cutmix_minmax` bounds the
    sides of the cut instead. `prob`: of mixing at all; `switch_prob`: of cutmix where both are on. `mode`: one draw
    per batch, per clip ("elem") or per pair.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        cutmix_minmax: tuple[float, float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        label_smoothing: float = 0.1,
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"--mixup_mode ({mode}) is not known. Choose one of {', '.join(MODES)}.")
        if mixup_alpha <= 0 and cutmix_alpha <= 0 and cutmix_minmax is None:
            raise ConfigError("mixing needs --mixup or --cutmix above 0, or --cutmix_minmax. Leave it out altogether.")
        from timm.data.mixup import Mixup

        mixup = functools.partial(
            Mixup,
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            cutmix_minmax=cutmix_minmax,
            prob=prob,
            switch_prob=switch_prob,
            mode=mode,
        )
        self._mixup = mixup(label_smoothing=label_smoothing, num_classes=num_classes)
        self._shares = mixup(label_smoothing=0.0)

    def __call__(self, video: Tensor, label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """video (B, 3, T, H, W) float, mixed in place, label (B,) -> mixed video, soft targets (B, classes) float32.

        label (B, classes) of a multi-label list is mixed as the clips are, and not smoothed. Everything random is a
        function of `seed`. Raises `ConfigError` on an odd B.
        """
        if len(video) % 2:
            raise ConfigError(
                f"--mixup and --cutmix mix clips in pairs: the clips of a step ({len(video)}) must be even in number. "
                "Choose --batch_size and --num_sample so that their product is even."
            )
        with _numpy_seed(seed):
            if label.ndim == 1:
                mixed, target = self._mixup(video.flatten(1, 2), label)
            else:
                # With B classes, one per clip, the targets are each clip's shares of all others.
                self._shares.num_classes = len(video)
                mixed, shares = self._shares(video.flatten(1, 2), torch.arange(len(video), device=label.device))
                target = shares @ label.float()
        return mixed.unflatten(1, video.shape[1:3]), target
