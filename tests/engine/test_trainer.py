"""What a step does to the weights, and what stops a run."""

import copy
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.engine import tiny_run
from umt.data.loading.clip_batch import ClipBatch
from umt.engine import checkpoints, replay
from umt.engine.ema import Ema
from umt.engine.runtime import Runtime
from umt.engine.trainer import NonFiniteError, TrainerOptions
from umt.errors import CheckpointError, OutputError, VideoError
from umt.tasks.base import StepOutput

FP16 = Runtime(precision="fp16")


def options(**changes: object) -> TrainerOptions:
    return dataclasses.replace(TrainerOptions(epochs=1, steps_per_epoch=3), **changes)  # type: ignore[arg-type]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_accumulation_equals_one_large_batch() -> None:
    large = tiny_run.build(options(), task=tiny_run.TinyTask(dropout=0), data=tiny_run.TinyData(8))
    small = tiny_run.build(options(accumulation=4), task=tiny_run.TinyTask(dropout=0), data=tiny_run.TinyData(2))
    large.fit()
    small.fit()
    # Rounding of sums in another order; a loss divided twice would differ by a factor.
    torch.testing.assert_close(weights(small.model), weights(large.model), rtol=1e-5, atol=1e-6)
    assert small.fit() == {}


def test_rates_come_from_the_schedules_by_the_steps_number() -> None:
    trainer = tiny_run.build(options(epochs=2))
    trainer.fit()
    slow, fast = trainer.strategy.optimizer.param_groups
    assert (slow["lr"], fast["lr"]) == (0.5 * 0.05 * (1 - 5 / 7), 0.05 * (1 - 5 / 7))
    assert (slow["weight_decay"], fast["weight_decay"]) == (0.05 + 0.01 * 5 / 6, 0.0)


def test_clipping_bounds_the_gradient_and_logs_its_norm_before() -> None:
    trainer = tiny_run.build(options(steps_per_epoch=1), clip_grad=1e-3)
    line = trainer.fit()
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in trainer.strategy.parameters]))
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)
    assert line["train_grad_norm"] > 1e-2


def test_the_norm_is_logged_without_clipping_too() -> None:
    assert tiny_run.build(options()).fit()["train_grad_norm"] > 0


def test_the_average_follows_the_weights() -> None:
    model = nn.Linear(3, 2)
    ema = Ema(model, decay=0.75)
    before = copy.deepcopy(model.weight.data)
    with torch.no_grad():
        model.weight += 1
    ema.update(model)
    assert torch.equal(ema.module.weight, torch.lerp(before, model.weight.data, 0.25))


def test_the_average_is_evaluated_and_saved(tmp_path: Path) -> None:
    trainer = tiny_run.build(options(output_dir=tmp_path))
    line = trainer.fit()
    content = checkpoints.load(tmp_path / "checkpoint-latest.pth")
    assert "val_ema_acc1" in line
    assert not torch.equal(content["model_ema"]["1.weight"], content["model"]["1.weight"])


def test_validation_leaves_the_training_mode_and_model_as_they_were() -> None:
    trainer = tiny_run.build(options())
    trainer.model.train()
    with trainer.evaluating(ema=True):
        assert trainer.task.model is not trainer.model
        assert not trainer.task.model.training
    assert trainer.task.model is trainer.model
    assert trainer.model.training


def test_the_best_survives_a_resume(tmp_path: Path) -> None:
    """The original forgets it, and the next epoch overwrites a better checkpoint."""
    trainer = tiny_run.build(options(output_dir=tmp_path))
    trainer.validate = lambda: {"acc1": 99.0}
    trainer.fit()
    resumed = tiny_run.build(options(output_dir=tmp_path, epochs=2))
    resumed.validate = lambda: {"acc1": 50.0}
    resumed.resume(tmp_path / "checkpoint-latest.pth")
    line = resumed.fit()
    assert (line["best"], line["best_epoch"]) == (99.0, 0)
    assert checkpoints.load(tmp_path / "checkpoint-best.pth")["progress"]["epoch"] == 1


def test_numbered_checkpoints_come_every_so_many_epochs_and_at_the_end(tmp_path: Path) -> None:
    tiny_run.build(options(output_dir=tmp_path, epochs=5, steps_per_epoch=1, save_ckpt_freq=2)).fit()
    names = {path.name for path in tmp_path.glob("checkpoint-*.pth")}
    numbered = {"checkpoint-1.pth", "checkpoint-3.pth", "checkpoint-4.pth"}
    assert names == numbered | {"checkpoint-latest.pth", "checkpoint-best.pth"}


def test_no_save_ckpt_writes_no_checkpoint(tmp_path: Path) -> None:
    tiny_run.build(options(output_dir=tmp_path, save_ckpt=False, save_every_steps=1)).fit()
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_every_epoch_has_its_own_order() -> None:
    """The original's non-distributed runs repeat the first epoch's order."""
    asked: list[tuple[int, int]] = []

    class Data(tiny_run.TinyData):
        def batches(self, epoch: int, start: int = 0) -> Iterator[ClipBatch]:
            asked.append((epoch, start))
            return super().batches(epoch, start)

    tiny_run.build(options(epochs=3), data=Data()).fit()
    assert asked == [(0, 0), (1, 0), (2, 0)]


def test_resuming_in_mid_epoch_asks_for_the_next_micro_batch(tmp_path: Path) -> None:
    tiny_run.build(options(output_dir=tmp_path, epochs=1, steps_per_epoch=3, accumulation=2)).fit()
    content = checkpoints.load(tmp_path / "checkpoint-latest.pth")
    content["progress"] |= {"epoch": 0, "step": 2}
    checkpoints.save(content, tmp_path / "checkpoint-latest.pth")
    asked: list[tuple[int, int]] = []

    class Data(tiny_run.TinyData):
        def batches(self, epoch: int, start: int = 0) -> Iterator[ClipBatch]:
            asked.append((epoch, start))
            return super().batches(epoch, start)

    resumed = tiny_run.build(options(epochs=1, steps_per_epoch=3, accumulation=2), data=Data())
    resumed.resume(tmp_path / "checkpoint-latest.pth")
    resumed.fit()
    assert asked == [(0, 4)]


def test_resuming_under_other_conditions_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_run.build(options(output_dir=tmp_path)).fit()
    resumed = tiny_run.build(options(epochs=2, seed=7), place=Runtime(threads=3))
    resumed.resume(tmp_path / "checkpoint-latest.pth")
    assert "threads 1 -> 3, seed 0 -> 7. The run goes on, but not bit for bit" in caplog.text


def test_resuming_in_mid_epoch_with_other_steps_is_refused(tmp_path: Path) -> None:
    trainer = tiny_run.build(options(output_dir=tmp_path))
    trainer.progress.step = 2
    trainer.save(["checkpoint-latest.pth"])
    with pytest.raises(CheckpointError, match="stands in step 2 of 3 of an epoch, but an epoch of this run has 4"):
        tiny_run.build(options(steps_per_epoch=4)).resume(tmp_path / "checkpoint-latest.pth")


def test_resuming_another_architecture_is_refused(tmp_path: Path) -> None:
    tiny_run.build(options(output_dir=tmp_path)).fit()
    other = tiny_run.build(options(), task=tiny_run.TinyTask(width=9))
    with pytest.raises(CheckpointError, match=r"is of another architecture: 1.weight is 8 x 96 there and 9 x 96 here"):
        other.resume(tmp_path / "checkpoint-latest.pth")


def test_an_unwritable_output_folder_is_refused_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"--output_dir .* cannot be written"):
        tiny_run.build(options(output_dir=tmp_path / "file" / "run"))


class PoisonedTask(tiny_run.TinyTask):
    """Its loss is no number as soon as a clip of row 17 is in the batch."""

    def training_step(self, batch: ClipBatch, seed: int) -> StepOutput:
        output = super().training_step(batch, seed)
        poison = torch.where(batch.row == 17, math.nan, 0.0).sum()
        return StepOutput(output.loss + poison * self.model[1].weight.sum())


def test_a_non_finite_loss_stops_before_the_weights_move_and_names_the_samples(tmp_path: Path) -> None:
    trainer = tiny_run.build(options(output_dir=tmp_path, accumulation=2, epochs=1), task=PoisonedTask())
    # Rows 16 to 19 are the first micro-batch of the third step.
    with pytest.raises(NonFiniteError, match=r"epoch 0, step 2, before the weights.*row 17 videos/17.mp4.*umt replay"):
        trainer.fit()
    saved = replay.load(tmp_path / "nonfinite-2-rank0.pth")
    assert saved["batches"][0]["row"].tolist() == [16, 17, 18, 19]
    assert all(torch.equal(saved["model"][name], value) for name, value in trainer.model.state_dict().items())
    assert torch.isfinite(weights(trainer.model)).all()


def test_the_replay_of_a_stopped_step_shows_the_sample_at_fault(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        tiny_run.build(options(output_dir=tmp_path, accumulation=2), task=PoisonedTask()).fit()
    path = tmp_path / "nonfinite-2-rank0.pth"
    seen = replay.replay(path, lambda config: PoisonedTask(config["width"]), runtime=Runtime())
    assert [sample.name for sample in seen.samples if not math.isfinite(sample.loss)] == ["row 17 copy 0 videos/17.mp4"]
    assert math.isnan(seen.losses[0])
    assert seen.bad_gradients == ["1.weight"]
    assert any("row 17 copy 0 videos/17.mp4" in line for line in seen.lines())


def test_the_replay_of_a_whole_step_is_exact(tmp_path: Path) -> None:
    """Same weights, same batch, same seeds: the loss that the run saw, dropout and all."""
    trainer = tiny_run.build(options())
    batch, seed = tiny_run.clips(0, [0, 1, 2, 3]), trainer.training_step.micro_seed(5, 0)
    trainer.model.train()
    trainer.runtime.seed(seed)
    loss = float(trainer.task.training_step(batch, seed).loss.detach())
    path = tmp_path / "step.pth"
    replay.save(
        path, task=trainer.task, model=trainer.model, batches={0: batch}, seeds={0: seed}, global_step=5,
        precision="fp32", scale=1.0, config={},
    )  # fmt: skip
    assert replay.replay(path, lambda _: tiny_run.TinyTask(), runtime=Runtime()).losses == {0: loss}


def test_a_replay_of_something_else_is_refused(tmp_path: Path) -> None:
    checkpoints.save({"format": 1}, tmp_path / "checkpoint-latest.pth")
    with pytest.raises(CheckpointError, match="is no saved step"):
        replay.load(tmp_path / "checkpoint-latest.pth")


class OverflowingTask(tiny_run.TinyTask):
    """Gradients of 1e4 times the loss scale: more than fp16 holds until the scale has come down."""

    def training_step(self, batch: ClipBatch, seed: int) -> StepOutput:
        half = self.model(batch.video.float() / 255)
        return StepOutput((half * 10).float().pow(2).mean() * 1e3)


def test_an_fp16_overflow_is_skipped_and_counted() -> None:
    trainer = tiny_run.build(options(steps_per_epoch=20), task=OverflowingTask(), place=FP16, lr=1e-4)
    line = trainer.fit()
    assert 0 < line["train_overflows"] < 20
    assert trainer.strategy.scaler.get_scale() == 65536 / 2 ** line["train_overflows"]
    assert torch.isfinite(weights(trainer.model)).all()


def test_overflows_without_end_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="the gradient is not finite"):
        tiny_run.build(
            options(steps_per_epoch=20, max_overflows=2, output_dir=tmp_path), task=OverflowingTask(), place=FP16
        ).fit()


class FailingData(tiny_run.TinyData):
    """Every micro-batch reports one video that could not be read."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[ClipBatch]:
        for batch in super().batches(epoch, start):
            batch.failures.append({"row": int(batch.row[0]), "path": batch.paths[0], "cause": "moov atom not found"})
            yield batch


def test_replaced_videos_are_listed_with_their_cause(tmp_path: Path) -> None:
    tiny_run.build(options(output_dir=tmp_path), data=FailingData()).fit()
    first = json.loads((tmp_path / "failures.jsonl").read_text().splitlines()[0])
    assert first == {"step": 0, "epoch": 0, "row": 0, "path": "videos/0.mp4", "cause": "moov atom not found"}


def test_more_unreadable_videos_than_allowed_stop_the_run() -> None:
    trainer = tiny_run.build(options(epochs=3, failure_budget=2), data=FailingData())
    said = r"3 training videos .* more than the 2 allowed \(--max_failures\).*(\n  moov atom not found){3}$"
    with pytest.raises(VideoError, match=said):
        trainer.fit()


def test_a_video_that_fails_in_every_epoch_counts_once() -> None:
    tiny_run.build(options(epochs=3, failure_budget=3), data=FailingData()).fit()


def test_data_that_ends_too_early_is_an_error_not_a_short_epoch() -> None:
    class Short(tiny_run.TinyData):
        def batches(self, epoch: int, start: int = 0) -> Iterator[ClipBatch]:
            yield tiny_run.clips(0, [0, 1])

    with pytest.raises(RuntimeError, match="the training data ended before step 2 of 3 of epoch 0"):
        tiny_run.build(options(), data=Short()).fit()


def test_bf16_trains_with_fp32_weights() -> None:
    trainer = tiny_run.build(options(), place=Runtime(precision="bf16"))
    trainer.fit()
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
