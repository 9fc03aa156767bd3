"""scripts/launch.sh: the last flag wins, the environment names data and weights, what is shown is what is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.recipes.conftest import run_script

K400 = "finetuning/k400/b16_ptk710_ftk710_ftk400_f8_res224"
PRETRAIN = "pretraining/b16_ptk710_f8_res224"


def test_a_further_flag_wins() -> None:
    assert run_script(K400, "--dry_run", "--epochs", "1").facts["schedule"].startswith("1 epochs ")


def test_a_shorter_run_takes_its_warm_up_along() -> None:
    run = run_script(PRETRAIN, "--dry_run", "--epochs", "50", "--warmup_epochs", "10", "--epochs", "5", GPUS="32")
    assert run.facts["schedule"] == "5 epochs x 321 = 1605 steps, warm-up 321"
    assert run.errors == "--epochs 5 replaces the recipe's 50: --warmup_epochs 10 becomes 1.\n"


def test_a_warm_up_that_is_asked_for_and_does_not_fit_is_refused() -> None:
    run = run_script(K400, "--dry_run", "--epochs", "1", "--warmup_epochs", "2")
    assert run.returncode == 2
    assert run.errors == (
        "umt: --warmup_epochs (2) must not exceed --epochs (1). Shorten the warm-up, e.g. --warmup_epochs 1.\n"
    )


def test_a_misspelt_flag_ends_with_code_2_and_the_nearest() -> None:
    run = run_script(K400, "--dry_run", "--lerning_rate", "1")
    assert (run.returncode, run.output) == (2, "")
    assert run.errors.startswith("umt: There is no flag --lerning_rate.")


def test_the_environment_names_data_weights_and_output(tmp_path: Path) -> None:
    run = run_script(
        *(K400, "--dry_run"),
        DATA_PATH="my lists",
        PREFIX="/videos",
        MODEL_PATH="b16.pth",
        OUTPUT_DIR="out",
        cwd=tmp_path,
    )
    assert run.facts["lists"].startswith("my lists/train.csv (not there)")
    assert run.facts["data"].startswith("Kinetics_sparse, separator ',', prefix '/videos'")
    assert run.facts["start from"] == "b16.pth (not there)"
    assert run.facts["output"] == "out"


def test_the_environment_names_the_list_and_the_teacher_of_a_pretraining(tmp_path: Path) -> None:
    run = run_script(PRETRAIN, "--dry_run", DATA_PATH="k710.csv", TEACHER_PATH="clip.pt", cwd=tmp_path)
    assert run.facts["lists"] == "k710.csv (not there)"
    assert run.facts["teacher"].endswith("weights clip.pt (not there)")


def test_roots_move_every_default_at_once(tmp_path: Path) -> None:
    run = run_script(K400, "--dry_run", DATA_ROOT="/data", OUTPUT_ROOT="/runs", cwd=tmp_path)
    assert "/data/k400/train.csv" in run.facts["lists"]
    assert run.facts["start from"].startswith("/runs/finetuning/k710/b16_ptk710_ftk710_f8_res224/checkpoint-best.pth")
    assert run.facts["output"] == f"/runs/{K400}"


def test_relative_paths_count_from_where_the_script_is_called_and_lists_are_counted(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.csv").write_text("".join(f"{n}.mp4,{n % 400}\n" for n in range(1000)))
    run = run_script(K400, "--dry_run", DATA_PATH="lists", GPUS="2", cwd=tmp_path)
    assert run.facts["videos"] == "1000 for training (counted in lists/train.csv)"
    assert run.facts["schedule"] == "5 epochs x 31 = 155 steps, warm-up 31"  # 1000 // (2 x 16)


def test_fewer_gpus_than_the_recipe_are_said_loudly() -> None:
    run = run_script(K400, "--dry_run", GPUS="1")
    assert "1 x 16 x 1 = 16 videos a step, but the recipe was made for 16 x 16 x 1 = 256" in run.notice
    assert "the learning rate is 0.0625 times the recipe's; --global_batch_size 256 keeps the recipe" in run.notice


def test_the_global_batch_size_keeps_the_recipe_on_fewer_gpus() -> None:
    run, whole = run_script(K400, "--dry_run", "--global_batch_size", "256", GPUS="4"), "256 videos = 512 clips a step"
    assert run.facts["batch"] == f"4 GPUs x 16 videos x 4 accumulated = {whole} (recipe: 16 GPUs)"
    assert run.notice == ""
    assert run.facts["lr"].startswith("2e-05 x 512 / 256 = 4e-05,")


def test_several_gpus_run_under_torchrun_on_a_free_port() -> None:
    command = run_script(K400, "--dry_run", GPUS="4").facts["command"]
    assert re.search(
        r"python\S* -m torch.distributed.run --standalone --nproc_per_node 4 -m umt finetune --job", command
    )


def test_one_gpu_runs_a_plain_process() -> None:
    command = run_script(K400, "--dry_run", GPUS="1").facts["command"]
    assert re.search(r"python\S* -m umt finetune --job", command)


def test_visible_devices_are_the_gpus() -> None:
    assert run_script(K400, "--dry_run", CUDA_VISIBLE_DEVICES="0,2,5").facts["batch"].startswith("3 GPUs ")
    for none in ("", "-1"):
        assert run_script(K400, "--dry_run", CUDA_VISIBLE_DEVICES=none).facts["batch"].startswith("1 GPUs ")


def test_a_senseless_number_of_gpus_is_refused() -> None:
    run = run_script(K400, "--dry_run", GPUS="two")
    assert run.returncode == 2
    assert run.errors == "umt: GPUS (two) must be a whole number above 0. Unset it for the default.\n"


def test_the_command_shown_is_the_command_run() -> None:
    shown = run_script(K400, "--epochs", "2", "--dry_run", GPUS="3").facts["command"]
    nothing = {"GPUS": "3", "CUDA_VISIBLE_DEVICES": ""}
    started = run_script(K400, "--epochs", "2", **nothing, PYTHON="echo")  # says its arguments instead of running them
    assert started.returncode == 0
    assert " ".join(shlex.split(shown)[1:]) == started.output.splitlines()[-1]


def test_a_stray_word_after_dry_run_is_refused() -> None:
    run = run_script(K400, "--dry_run", "stray")
    assert run.returncode == 2
    assert "stray" in run.errors


def test_dry_run_false_is_no_dry_run() -> None:
    assert "--dry_run" not in run_script(K400, "--dry_run", "False", PYTHON="echo").output


@pytest.mark.parametrize("gpus", ["1", "2"])
def test_a_missing_list_stops_before_anything_starts(gpus: str, tmp_path: Path) -> None:
    run = run_script(K400, DATA_PATH="nowhere", GPUS=gpus, CUDA_VISIBLE_DEVICES="", cwd=tmp_path)
    assert run.returncode == 2
    assert run.errors.startswith("umt: --data_path (nowhere) does not exist.")
    assert run.errors.count("\n") == 1
