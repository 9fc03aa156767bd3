"""The same predictions and features on a GPU as on the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.inference.tiny import DESCRIPTION, tiny
from umt.inference.extraction import Extractor
from umt.inference.recognizer import Recognizer

pytestmark = pytest.mark.gpu

VIEWS = torch.randint(0, 256, (6, 8, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.03), ("fp16", 0.01)])
def test_a_gpu_sees_what_the_cpu_does(precision: str, tolerance: float) -> None:
    here = tiny()
    there = Recognizer(tiny().model, DESCRIPTION, device=torch.device("cuda"), precision=precision, batch_size=4)
    assert torch.allclose(here.predict(VIEWS), there.predict(VIEWS), atol=tolerance)
    features = [Extractor(model, ["pre_logits"])(VIEWS)["pre_logits"] for model in (here, there)]
    assert torch.allclose(*features, atol=10 * tolerance)
