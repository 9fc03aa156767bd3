"""`umt plan`: every recipe, GPUs by name, this machine measured, and one sentence for what does not exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from umt.errors import ConfigError
from umt.run.command_line import parse
from umt.tasks.base.sizing import Sizing, sizing_of
from umt.tools.plan.command import plan_command, resolve
from umt.tools.plan.hardware import GPUS, find_gpu, recognise
from umt.tools.plan.memory import STRATEGIES, Parts, parts
from umt.tools.plan.trace import trace

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "exp").rglob("*.sh"))
QUICK = ("exp/pretraining/b16_ptk710_f8_res224.sh", "exp/finetuning/ssv2/b16_ptk710_ftk710_ftssv2_f8_res224.sh")
TINY = [
    *("finetune", "--model", "vit_tiny_patch8_64", "--input_size", "64", "--num_frames", "4", "--tubelet_size", "1"),
    *("--batch_size", "2", "--nb_classes", "16", "--threads", "1"),
]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def tiny(*flags: str) -> Sizing:
    """The run of TINY with more flags."""
    return sizing_of(parse("finetune", [*TINY[1:], *flags], files=False))


def totals(text: str) -> list[float]:
    """GiB of the rows of the table."""
    rows = re.findall(r"^[* ] (?:alone|DDP|--).* (\d+\.\d+)(?:  fits|  too large)?$", text, flags=re.M)
    return [float(row) for row in rows]


@pytest.mark.parametrize("script", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in SCRIPTS])
def test_every_recipe_has_a_plan(script: str) -> None:
    text = plan_command([script, "--gpu", "A100-80"])
    assert re.search(r"parameters +(8[5-9]|9\d|30\d)\.\d M trained", text)
    assert re.search(r"^Hours: [\d.]+ for \d+ epochs = \d+ steps", text, flags=re.M)
    assert sum(line.startswith("*") for line in text.splitlines()) == 1
    assert all(0 < total < 200 for total in totals(text))
    starred = next(line for line in text.splitlines() if line.startswith("* DDP"))
    assert starred.endswith("  fits"), "published recipes ran on GPUs of 80 GB"


def test_the_experiment_runs_as_its_flags_say() -> None:
    config = resolve("exp/pretraining/b16_ptk710_f8_res224.sh", ["--batch_size", "7"])
    assert (config.model.model, config.optim.batch_size) == ("pretrain_umt_base_patch16_224", 7)
    assert not config.runtime.dry_run


@pytest.mark.slow
def test_more_gpus_take_less_time_and_no_more_memory_each() -> None:
    few, many = (plan_command([QUICK[0], "--gpu", "H100", "--gpus", n]) for n in ("8", "16"))
    hours = [float(re.search(r"^Hours: ([\d.]+)", t, flags=re.M).group(1)) for t in (few, many)]  # type: ignore[union-attr]
    assert hours[0] == pytest.approx(2 * hours[1], rel=0.02)
    assert all(b <= a for a, b in zip(totals(few), totals(many), strict=True))


def test_hours_are_flops_over_the_rate_that_is_assumed() -> None:
    text = plan_command([*TINY, "--gpu", "T4", "--utilisation", "0.5", "--precision", "fp16"])
    assert "50% of the 65 TFLOP/s that the data sheet gives for fp16" in text
    seconds = float(re.search(r"^Hours: ([\d.e-]+) s a step", text, flags=re.M).group(1))  # type: ignore[union-attr]
    step = trace(tiny(), precision="fp16")
    assert seconds == pytest.approx(step.flops / 32.5e12, rel=0.01)


@pytest.mark.parametrize(
    ("name", "board"),
    [("a100", "A100-80"), ("A100 40GB", "A100-40"), ("v100-32", "V100"), ("4090", "RTX4090"), ("h-100", "H100")],
)
def test_a_gpu_goes_by_the_names_that_people_use(name: str, board: str) -> None:
    assert find_gpu(name).name == board


def test_an_unknown_gpu_gets_the_nearest_names() -> None:
    with pytest.raises(
        ConfigError, match=r"--gpu \(A1000\) is not in the table\. Did you mean A100-80 or A100-40( or \w+)?\?"
    ):
        plan_command([*TINY, "--gpu", "A1000"])
    with pytest.raises(ConfigError, match=r"--gpu \(abacus\) is not in the table\. Choose one of A10, A100-40"):
        plan_command([*TINY, "--gpu", "abacus"])


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-40"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Tesla T4", "t4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10", "a10"),
    ],
)
def test_the_driver_s_name_finds_the_rates_and_the_board_keeps_its_own_memory(driver: str, name: str) -> None:
    gpu = recognise(driver, 12.5)
    assert gpu is not None
    assert (gpu.bf16, gpu.memory, gpu.name) == (GPUS[name].bf16, 12.5, driver)


def test_a_board_that_the_table_lacks_is_not_guessed() -> None:
    assert recognise("NVIDIA Quadro P400", 2.0) is None


def test_a_script_that_does_not_exist_gets_a_near_one() -> None:
    with pytest.raises(
        ConfigError, match=r"there is no script .*\. Did you mean exp/pretraining/b16_ptk710_f8_res224\.sh"
    ):
        plan_command(["exp/b16_ptk710_f8.sh"])
    with pytest.raises(ConfigError, match="Name a file below exp/, or pretrain or finetune"):
        plan_command(["nothing.sh"])


def test_a_script_that_is_no_experiment_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "hello.sh"
    script.write_text("echo hello\n")
    with pytest.raises(ConfigError, match=r"prints no flags\. Is it an experiment that calls launch\?"):
        plan_command([str(script)])


def test_a_flag_that_does_not_exist_is_the_scripts_own_sentence() -> None:
    with pytest.raises(ConfigError, match=r"batch_sise.*--batch_size"):
        plan_command([QUICK[0], "--batch_sise", "3"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "umt plan takes an experiment"),
        ([*TINY, "--gpus", "0"], r"--gpus \(0\) must be at least 1"),
        ([*TINY, "--gpus", "many"], "umt plan: argument --gpus: invalid int value"),
        ([*TINY, "--utilisation", "35"], r"--utilisation \(35\) is a share of the peak rate"),
        ([*TINY, "--measure", "--gpu", "T4"], "--measure times this machine, --gpu models another one"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan_command(words)


def test_measuring_times_a_real_step_of_this_cpu() -> None:
    text = plan_command([*TINY, "--measure", "--device", "cpu", "--precision", "fp32"])
    seconds, clips = re.search(r"measured: ([\d.]+) s for (\d+) clips on CPU, 1 threads", text).groups()  # type: ignore[union-attr]
    assert float(seconds) > 0
    assert int(clips) == 2


@pytest.mark.parametrize("command", ["plan", "doctor"])
def test_help_imports_no_torch(command: str) -> None:
    code = f"import sys; from umt.__main__ import run; run([{command!r}, '--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"umt {command}" in done.stdout.splitlines()[0]


def of(strategy: str, precision: str = "bf16", gpus: int = 4) -> Parts:
    return parts(trace(tiny(), precision=precision), strategy, gpus=gpus, precision=precision, ema=True, overhead=False)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_optimisers_state_is_whole_or_shared_out(strategy: str) -> None:
    trained = trace(tiny(), precision="bf16").trained
    share = 1 if strategy == "ddp" else 1 / 4
    assert of(strategy).optimizer == pytest.approx(8 * trained * share, rel=0.01)
    assert of(strategy).ema == pytest.approx(4 * trained * (1 / 4 if strategy == "fsdp" else 1), rel=0.01)


def test_gradients_take_four_bytes_a_parameter_until_they_are_shared_out() -> None:
    trained = trace(tiny(), precision="bf16").trained
    for strategy in ("ddp", "zero1"):
        assert of(strategy).gradients == pytest.approx(4 * trained, rel=0.01)
    for strategy in ("zero2", "zero3", "fsdp"):
        assert of(strategy).gradients - _in_passing(strategy) == pytest.approx(trained, rel=0.01)


def _in_passing(strategy: str) -> float:
    """Buckets of ZeRO, or whole gradients of what FSDP holds at the same time."""
    step = trace(tiny(), precision="bf16")
    return 400e6 if strategy != "fsdp" else 4 * (step.outside_blocks + 2 * step.largest_block)


def test_mixup_of_one_copy_takes_videos_in_pairs() -> None:
    assert tiny("--num_sample", "1").least_batch() == 2
    assert tiny("--num_sample", "2").least_batch() == 1
    assert tiny("--num_sample", "1", "--mixup", "0", "--cutmix", "0").least_batch() == 1


def test_on_one_gpu_the_table_has_the_strategy_of_the_run() -> None:
    text = plan_command([*TINY, "--gpu", "T4", "--enable_deepspeed", "--zero_stage", "1"])
    assert [line.split("  ")[0] for line in text.splitlines() if line.startswith("* ")] == [
        "* --enable_deepspeed --zero_stage 1"
    ]


def test_recomputing_more_blocks_needs_no_more_memory() -> None:
    sizing = tiny("--batch_size", "16")
    steps = [trace(sizing.recomputing(blocks), precision="bf16") for blocks in range(5)]
    peaks = [parts(step, "ddp", gpus=1, precision="bf16", overhead=False).total for step in steps]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < 0.6 * peaks[0]
