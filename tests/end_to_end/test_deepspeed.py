"""`--enable_deepspeed` through the command line, on real videos; and what it needs, said before any work is done."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.end_to_end.conftest import Command, Data, environment, with_flags
from tests.end_to_end.test_two_processes import COMMON, NO_MIXING, RECOMPUTED, log_lines, torchrun
from umt.engine import checkpoints
from umt.errors import install

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason=f"DeepSpeed is not installed: {install('deepspeed')}"
)
STAGE = {"pretrain": 2, "finetune": 3}


def flags_of(task: str, data: Data) -> list[str]:
    common = {**COMMON, **RECOMPUTED, "save_ckpt_freq": 1, "output_dir": "out", "clip_grad": 1}
    return with_flags(data.pretrain if task == "pretrain" else with_flags(data.finetune, **NO_MIXING), **common)


def assert_same_weights(one: Path, two: Path) -> None:
    # As in test_two_processes: 2 % of the largest step that a weight can have taken.
    ours, theirs = (checkpoints.load(folder / "out" / "checkpoint-latest.pth") for folder in (one, two))
    rate = max(group["lr"] for group in ours["optimizer"]["param_groups"])
    steps = 2 * ours["conditions"]["steps_per_epoch"]
    for key in {"model", "model_ema"} & ours.keys():
        assert ours[key].keys() == theirs[key].keys()
        for name, value in ours[key].items():
            torch.testing.assert_close(theirs[key][name], value, rtol=0, atol=0.02 * max(rate, 3e-4) * steps)


@pytest.fixture(scope="module", params=["pretrain", "finetune"])
def pair(
    request: pytest.FixtureRequest, data: Data, umt: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """A task, and the folders of the same run in one plain process and in two under DeepSpeed."""
    task: str = request.param
    one, two = (tmp_path_factory.mktemp(f"{task}-{name}") for name in ("one", "deepspeed"))
    umt(*flags_of(task, data), cwd=one)
    done = torchrun(*flags_of(task, data), "--enable_deepspeed", "--zero_stage", str(STAGE[task]), cwd=two)
    assert done.returncode == 0, done.stderr[-4000:]
    return task, one, two


@pytest.mark.slow
@needs_deepspeed
def test_a_run_under_deepspeed_equals_a_plain_one(pair: tuple[str, Path, Path]) -> None:
    _, one, two = pair
    for first, second in zip(log_lines(one), log_lines(two), strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert second[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert_same_weights(one, two)


@pytest.mark.slow
@needs_deepspeed
def test_its_json_is_saved_with_the_run(pair: tuple[str, Path, Path]) -> None:
    task, _, two = pair
    entries = json.loads((two / "out" / "deepspeed_config.json").read_text())
    assert entries["zero_optimization"]["stage"] == STAGE[task]
    assert entries["train_batch_size"] == 8
    assert entries["gradient_clipping"] == 1


@pytest.mark.slow
@needs_deepspeed
def test_one_plain_process_goes_on_from_its_first_epoch(
    pair: tuple[str, Path, Path], data: Data, umt: Command, tmp_path: Path
) -> None:
    task, one, two = pair
    umt(*flags_of(task, data), "--resume", str(two / "out" / "checkpoint-0.pth"), cwd=tmp_path)
    assert_same_weights(one, tmp_path)


@pytest.mark.slow
@needs_deepspeed
def test_deepspeed_in_one_process_goes_on_from_a_plain_first_epoch(
    pair: tuple[str, Path, Path], data: Data, umt: Command, tmp_path: Path
) -> None:
    task, one, _ = pair
    words = ["--enable_deepspeed", "--zero_stage", "1", "--resume", str(one / "out" / "checkpoint-0.pth")]
    umt(*flags_of(task, data), *words, cwd=tmp_path)
    assert_same_weights(one, tmp_path)


def said(umt: Command, words: list[str], **options: object) -> str:
    """The one sentence of a run that must end with exit code 2."""
    lines = umt(*words, "--enable_deepspeed", code=2, **options).stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_a_missing_deepspeed_is_said_in_a_sentence(task: str, data: Data, umt: Command, tmp_path: Path) -> None:
    # An interpreter that finds what is installed here, except DeepSpeed.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'deepspeed' else real(name, *a)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    sentence = said(umt, flags_of(task, data), env=environment(PYTHONPATH=path), cwd=tmp_path)
    assert "--enable_deepspeed needs DeepSpeed, which is not installed. Install it with pip install" in sentence
    assert not (tmp_path / "out" / "log.txt").exists()


@needs_deepspeed
def test_a_missing_compiler_is_said_in_a_sentence(data: Data, umt: Command, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("ninja", "git"):
        found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)]))
        if found:
            (tmp_path / "bin" / name).symlink_to(found)
    env = environment(PATH=str(tmp_path / "bin"))
    env.pop("CXX", None)
    sentence = said(umt, flags_of("finetune", data), env=env, cwd=tmp_path)
    assert "needs a C++ compiler" in sentence
    assert "Install one, e.g. apt-get install g++" in sentence


@pytest.mark.slow
@needs_deepspeed
def test_fp16_on_a_cpu_is_refused(data: Data, umt: Command, tmp_path: Path) -> None:
    words = [*flags_of("finetune", data), "--precision", "fp16", "--zero_stage", "1"]
    assert "--precision (fp16): DeepSpeed has no fp16 on a CPU." in said(umt, words, cwd=tmp_path)


@pytest.mark.slow
@needs_deepspeed
def test_a_file_that_contradicts_a_flag_is_refused_before_training(data: Data, umt: Command, tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"train_micro_batch_size_per_gpu": 64}')
    sentence = said(umt, [*flags_of("pretrain", data), "--deepspeed_config", "ds.json"], cwd=tmp_path)
    assert "'train_micro_batch_size_per_gpu' is 64, but --batch_size is 4. Change --batch_size or the file" in sentence
    assert not (tmp_path / "out" / "log.txt").exists()
