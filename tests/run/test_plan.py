"""What follows from a configuration: batch, scaled rates, steps, tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.data.lists import parquet as parquet_list
from umt.data.lists.lines import Row
from umt.errors import ConfigError
from umt.processes import announced_size
from umt.run.command_line import parse
from umt.run.plan import Plan, plan, render_dry_run
from umt.tasks.distill.recipe import DistillRecipe


def made(task: str, words: str = "", *, world_size: int = 1, videos: int | None = 10_000) -> Plan:
    return plan(parse(task, words.split(), files=False), world_size=world_size, videos=videos)


def test_rates_scale_with_gpus_accumulation_and_copies() -> None:
    run = made("finetune", "--batch_size 8 --update_freq 2 --num_sample 2 --lr 1e-3 --min_lr 1e-5", world_size=4)
    assert (run.videos_per_step, run.clips_per_step) == (64, 128)
    assert (run.lr, run.min_lr, run.warmup_lr) == pytest.approx((5e-4, 5e-6, 5e-7))


def test_pretraining_accumulates_too() -> None:
    assert made("pretrain", "--batch_size 8 --update_freq 4").videos_per_step == 32


def test_steps_drop_the_incomplete_last_one() -> None:
    run = made("finetune", "--batch_size 16 --epochs 3 --warmup_epochs 1", videos=100)
    assert (run.steps_per_epoch, run.total_steps, run.warmup_steps) == (6, 18, 6)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"--batch_size \(64\) x 2 processes .* = 128 videos a step, but the list has 100"
    ):
        made("finetune", world_size=2, videos=100)


def test_steps_of_an_unknown_list_are_unknown() -> None:
    run = made("finetune", "--nb_classes 5 --data_set image_folder", videos=None)
    assert (run.videos, run.steps_per_epoch, run.total_steps, run.warmup_steps) == (None, None, None, None)


def test_visible_tokens_are_those_of_the_original() -> None:
    recipe = parse("pretrain", ["--mask_ratio", "0.8"], files=False)
    assert isinstance(recipe, DistillRecipe)
    assert recipe.grid == (8, 14, 14)
    assert recipe.visible == 40


@settings(max_examples=40)
@given(batch=st.integers(1, 64), world=st.integers(1, 64), times=st.integers(1, 64))
def test_the_global_batch_is_reached_exactly(batch: int, world: int, times: int) -> None:
    flags = f"--batch_size {2 * batch} --global_batch_size {2 * batch * world * times} --num_sample 1"
    run = made("finetune", flags, world_size=world, videos=10**6)
    assert run.accumulation == times
    assert run.videos_per_step == 2 * batch * world * times


@settings(max_examples=40)
@given(batch=st.integers(1, 32), world=st.integers(1, 16), wanted=st.integers(1, 2000))
def test_an_indivisible_global_batch_is_refused_with_one_that_works(batch: int, world: int, wanted: int) -> None:
    flags = f"--batch_size {batch} --mixup 0 --cutmix 0 --global_batch_size"
    if wanted % (batch * world):
        with pytest.raises(ConfigError, match="is no multiple of GPUs x --batch_size") as error:
            made("finetune", f"{flags} {wanted}", world_size=world, videos=10**6)
        nearest = int(str(error.value).split("works: --global_batch_size ")[1].split()[0].rstrip(".,"))
        assert abs(nearest - wanted) < batch * world
        wanted = nearest
    assert made("finetune", f"{flags} {wanted}", world_size=world, videos=10**6).videos_per_step == wanted


def test_accumulation_and_global_batch_may_not_contradict() -> None:
    assert made("finetune", "--batch_size 16 --update_freq 4 --global_batch_size 64").accumulation == 4
    with pytest.raises(ConfigError, match=r"--update_freq \(2\) contradicts --global_batch_size \(64\), which needs 4"):
        made("finetune", "--batch_size 16 --update_freq 2 --global_batch_size 64")


def test_a_recipe_on_its_own_gpus_needs_no_notice() -> None:
    assert made("finetune", "--batch_size 16 --recipe_gpus 16", world_size=16).notice is None
    assert made("finetune", "--batch_size 16 --recipe_gpus 16 --global_batch_size 256", world_size=2).notice is None


def test_a_smaller_batch_is_held_against_the_recipes_own() -> None:
    recipe = "--batch_size 16 --recipe_gpus 16 --batch_size 8"
    notice = made("finetune", recipe, world_size=4).notice
    assert notice is not None
    assert "made for 16 x 16 x 1 = 256, so the learning rate is 0.125 times the recipe's" in notice
    assert "--global_batch_size 256 keeps the recipe" in notice
    assert made("finetune", f"{recipe} --global_batch_size 256", world_size=4).notice is None


def test_accumulating_up_to_the_recipes_batch_needs_no_notice() -> None:
    assert made("finetune", "--batch_size 16 --recipe_gpus 16 --update_freq 4", world_size=4).notice is None


def test_a_changed_batch_is_said() -> None:
    notice = made("finetune", "--batch_size 16 --recipe_gpus 16", world_size=3).notice
    assert notice is not None
    assert "3 x 16 x 1 = 48 videos a step" in notice
    assert "the learning rate is 0.1875 times the recipe's; no accumulation gives 256 on 3 GPUs" in notice


@pytest.mark.parametrize(
    ("environ", "size"),
    [
        ({}, 1),
        ({"GPUS": "8"}, 8),
        ({"WORLD_SIZE": "4", "GPUS": "8"}, 4),
        ({"OMPI_COMM_WORLD_SIZE": "6"}, 6),
        ({"SLURM_STEP_NUM_TASKS": "16", "SLURM_NTASKS": "8"}, 16),
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0", "GPUS": "4"}, 4),  # a batch script
        ({"SLURM_NTASKS": "16"}, 1),
    ],
)
def test_the_environment_says_how_many_processes_there_are(environ: dict[str, str], size: int) -> None:
    assert announced_size(environ) == size


def test_a_senseless_number_of_processes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^The environment variable GPUS \(many\) must be a whole number above 0\."):
        announced_size({"GPUS": "many"})


def test_a_dry_run_prints_one_fact_a_line() -> None:
    text = render_dry_run(parse("finetune", ["--dry_run", "--output_dir", "runs/mine"]), {"UMT_LAUNCH_COMMAND": "go"})
    assert text.startswith("umt finetune mine\n  command      go\n  model        vit_base_patch16_224: width 768")
    assert "\n  views        5 clips x 3 crops = 15\n" in text


def test_a_folder_of_parquet_lists_is_counted_as_one_of_csv_lists_is(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    rows = [Row(f"{i}.mp4", -1, i % 2) for i in range(8)]
    for split in ("train", "val", "test"):
        parquet_list.write(str(tmp_path / f"{split}.parquet"), rows)
    words = f"--data_path {tmp_path} --nb_classes 2 --batch_size 2 --warmup_epochs 0 --dry_run"
    shown = render_dry_run(parse("finetune", words.split()))
    assert f"8 for training (counted in {tmp_path / 'train.parquet'})" in shown
    assert f"{tmp_path / 'val.parquet'}, " in shown


def test_a_dry_run_says_what_is_frozen_and_how_classes_count() -> None:
    words = "--finetune w.pth --freeze_blocks 12 --class_weights sqrt --multi_label --nb_classes 3 --dry_run"
    text = render_dry_run(parse("finetune", words.split(), files=False), {})
    assert "frozen       the embedding and the first 12 of 12 blocks: the head alone is trained" in text
    assert "weighted     classes count in the loss by sqrt" in text
    assert "3 classes, several a video" in text
