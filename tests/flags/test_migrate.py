"""Shell scripts written for the original keep working: every flag of it is accepted and explained, with its default."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from umt.errors import ConfigError
from umt.flags.legacy import REFUSED
from umt.run.command_line import parse
from umt.tasks.base import recipe_class

ROOT = Path(__file__).parents[2]
ORIGINAL: dict[str, dict[str, Any]] = json.loads((ROOT / "tests/golden/original_flags/flags.json").read_text())
PAGE = (ROOT / "docs" / "migrate.md").read_text(encoding="utf-8")
both_tasks = pytest.mark.parametrize("task", ["pretrain", "finetune"])


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def explained(task: str) -> dict[str, str]:
    """What the page says of each flag of a task."""
    page = section("Both programs") + section({"pretrain": "Pretraining", "finetune": "Finetuning"}[task])
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `--")]
    return {name: meaning for names, meaning in lines for name in re.findall(r"`--(\w+)`", names)}


@both_tasks
def test_every_flag_of_the_original_is_explained_and_no_other(task: str) -> None:
    assert sorted(explained(task)) == sorted(ORIGINAL[task])


@both_tasks
def test_every_flag_of_the_original_is_accepted(task: str) -> None:
    defaults = recipe_class(task)().values()
    for name, value in ORIGINAL[task].items():
        if name not in REFUSED:
            # Our own default where the original's contradicts the other defaults, such as 16 frames of 1 segment.
            value = defaults.get(name, value)
            words = [f"--{name}"] if value is None or value == "" else [f"--{name}", str(value)]
            if value is None and name in defaults:
                words.append("none")
            elif value == "":
                words.append("")
            assert parse(task, [*words, "--dry_run"]).command == task


@both_tasks
def test_the_flags_called_ignored_are_those_that_warn(task: str) -> None:
    ignored = {name for name, meaning in explained(task).items() if meaning.startswith("ignored")}
    assert ignored == set(recipe_class(task).legacy) - {"local-rank"}


@both_tasks
def test_defaults_are_the_originals_except_those_that_the_page_lists(task: str) -> None:
    said = re.findall(r"^\| `--(\w+)`(.*?) \|", section("Defaults that differ"), re.MULTILINE)
    listed = {name for name, where in said if task == "pretrain" or "(pretraining)" not in where}
    defaults = recipe_class(task)().values()
    shared = defaults.keys() & ORIGINAL[task].keys()
    assert {name for name in shared if defaults[name] != ORIGINAL[task][name]} == listed & shared


def test_a_script_of_the_original_runs_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    script = """
        --model vit_base_patch16_224 --data_path lists --prefix videos --data_set Kinetics_sparse --split ,
        --nb_classes 710 --finetune b16.pth --log_dir logs --output_dir out --batch_size 16 --num_sample 2
        --input_size 224 --short_side_size 224 --save_ckpt_freq 100
        --num_frames 8 --sampling_rate 16 --num_workers 12 --warmup_epochs 2
        --tubelet_size 1 --epochs 35 --lr 2e-4 --drop_path 0.1 --opt adamw --opt_betas 0.9 0.999 --weight_decay 0.05
        --test_num_segment 4 --test_num_crop 3 --dist_eval --test_best --use_decord True --color_jitter 0.4
        --dist_url env://"""
    with caplog.at_level(logging.WARNING, logger="umt"):
        config = parse("finetune", [*script.split(), "--dry_run"])
    assert config.values()["epochs"] == 35
    (record,) = caplog.records
    assert re.findall(r"--(\w+) \(", record.getMessage()) == ["dist_url", "color_jitter", "dist_eval"]


@pytest.mark.parametrize("rank", ["1", "7"])
def test_other_processes_do_not_repeat_the_warning(
    rank: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RANK", rank)
    parse("finetune", ["--dist_eval", "--dry_run"])
    assert caplog.records == []


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_other_words_for_deepspeed_are_refused_with_the_right_one(task: str) -> None:
    with pytest.raises(ConfigError, match=r"^--deepscale: use --enable_deepspeed, and --deepspeed_config FILE for"):
        parse(task, ["--deepscale", "--dry_run"])
