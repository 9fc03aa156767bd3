"""`--fsdp` on real videos: two gloo processes under torchrun do what one plain process does, and hand over to one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.end_to_end.conftest import Command, Data, with_flags
from tests.end_to_end.test_two_processes import COMMON, NO_MIXING, RECOMPUTED, log_lines, torchrun
from umt.engine import checkpoints
from umt.evaluation.scores import ViewScores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["pretrain", "finetune"])
def runs(
    request: pytest.FixtureRequest, data: Data, umt: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path, Path]:
    """Flags, and folders of the run in one plain process and in two with --fsdp."""
    flags = with_flags(getattr(data, request.param), **COMMON, **RECOMPUTED, save_ckpt_freq=1)
    if request.param == "finetune":
        flags = with_flags(flags, **NO_MIXING)
    plain, sharded = (tmp_path_factory.mktemp(f"{request.param}-{name}") for name in ("plain", "fsdp"))
    umt(*flags, "--output_dir", "out", cwd=plain)
    done = torchrun(*flags, "--output_dir", "out", "--fsdp", cwd=sharded)
    assert done.returncode == 0, done.stderr[-4000:]
    return flags, plain, sharded


def assert_same_weights(one: Path, two: Path) -> None:
    """As test_two_processes: some of one step's rate, where AdamW divides a small gradient by itself."""
    plain, other = (checkpoints.load(folder / "out" / checkpoints.LATEST) for folder in (one, two))
    rate = max(group["lr"] for group in plain["optimizer"]["param_groups"])
    limit = 0.02 * max(rate, 3e-4) * 2 * plain["conditions"]["steps_per_epoch"]
    for key in {"model", "model_ema"} & plain.keys():
        assert plain[key].keys() == other[key].keys()
        for name, value in plain[key].items():
            torch.testing.assert_close(other[key][name], value, rtol=0, atol=limit)


def test_losses_and_accuracies_equal_those_of_a_plain_process(runs: tuple[list[str], Path, Path]) -> None:
    one, two = map(log_lines, runs[1:])
    assert [line.keys() for line in one] == [line.keys() for line in two]
    for first, second in zip(one, two, strict=True):
        for name, value in first.items():
            assert second[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_weights_and_their_average_equal_those_of_a_plain_process(runs: tuple[list[str], Path, Path]) -> None:
    assert_same_weights(*runs[1:])


def test_the_test_after_training_scores_every_view_as_a_plain_process(runs: tuple[list[str], Path, Path]) -> None:
    flags, plain, sharded = runs
    if flags[0] == "pretrain":
        assert not (sharded / "out" / "scores.npz").exists()
        return
    one, two = (ViewScores.load(folder / "out" / "scores.npz") for folder in (plain, sharded))
    assert two.seen.all()
    np.testing.assert_allclose(two.logits, one.logits, atol=1e-3)


def test_one_plain_process_goes_on_from_the_checkpoint_of_two(
    runs: tuple[list[str], Path, Path], umt: Command, tmp_path: Path
) -> None:
    flags, plain, sharded = runs
    umt(*flags, "--output_dir", "out", "--resume", str(sharded / "out" / checkpoints.numbered(0)), cwd=tmp_path)
    assert_same_weights(plain, tmp_path)
    # The very last line of a finetuning is its test's.
    last, wanted = ([line for line in log_lines(folder) if "epoch" in line][-1] for folder in (tmp_path, plain))
    assert last["epoch"] == wanted["epoch"] == 1
    assert last["train_lr"] == wanted["train_lr"]
    assert last["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-5)
