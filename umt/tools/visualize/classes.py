"""`umt visualize` for classifiers: the likeliest classes, and where in the clip they come from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from umt.inference.recognizer import Recognizer
from umt.models import VisionTransformer
from umt.models.vit.rollout import class_maps
from umt.tools.visualize.look import Look


class ClassMaps:
    """Five answers, and a map of gradient times activation for each of the `topk` likeliest classes."""

    def __init__(self, model: Recognizer, *, topk: int = 2) -> None:
        self.model, self.topk = model, topk

    def __call__(self, look: Look, inputs: Tensor) -> None:
        encoder = self.model.model
        assert isinstance(encoder, VisionTransformer)
        with torch.no_grad(), self.model.autocast():
            tokens = encoder.forward_features(inputs)
        head: Callable[[Tensor], Tensor] = encoder.forward_head
        with torch.no_grad():
            logits = head(tokens.float())[0]
        odds = logits.sigmoid() if self.model.description.multi_label else logits.softmax(-1)
        best = odds.topk(min(self.topk, len(odds))).indices.tolist()
        look.answers = [(self.model.labels[k], float(odds[k])) for k in odds.topk(min(5, len(odds))).indices.tolist()]
        maps = class_maps(tokens.float(), head, best)[0].clamp(min=0)  # (topk, L)
        maps = maps / maps.max().clamp(min=1e-12)
        for place, (k, values) in enumerate(zip(best, maps, strict=True)):
            note = "Gradient times activation of the last tokens, where it speaks for the class."
            title = f"{self.model.labels[k]} {100 * float(odds[k]):.0f} %"
            look.add(f"class{place}", title, note, "heat", values)
