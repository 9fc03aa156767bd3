"""On a GPU: the pretraining step never waits for the device, and gives the numbers of the CPU."""

import pytest
import torch

from tests.models.original import facts, small_clip
from tests.tasks.distill.test_task import SMALL_NOISE, golden_task, tiny_batch, tiny_task

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("mask", ["attention", "tube", "random"])
def test_a_pretraining_step_does_not_wait_for_the_device(mask: str) -> None:
    task, device = tiny_task(mask_type=mask), torch.device("cuda")
    task.to(device)
    batch = tiny_batch().to(device)
    with torch.autocast("cuda", torch.bfloat16):
        task.training_step(batch, seed=0).loss.backward()  # warms up libraries, which may wait
        torch.cuda.set_sync_debug_mode("error")
        try:
            task.training_step(batch, seed=0).loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_loss_on_a_gpu_equals_the_original() -> None:
    task, device = golden_task(), torch.device("cuda")
    task.to(device)
    loss = task.align(small_clip().to(device), SMALL_NOISE.to(device)).loss
    assert loss.item() == pytest.approx(facts("losses")["l2"]["loss"], rel=1e-4)
