"""DeepSpeed's JSON from the flags, with a person's file on top; contradictions and missing parts in a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from umt.errors import ConfigError
from umt.run import deepspeed
from umt.run.command_line import parse
from umt.run.plan import render_dry_run


def made(words: str = "", *, precision: str = "fp32", world: int = 4, task: str = "finetune") -> dict[str, Any]:
    config = parse(task, ["--enable_deepspeed", *words.split()], files=False)
    accumulation = config.optim.update_freq
    return deepspeed.deepspeed_json(
        config.optim, config.parallel, precision=precision, world_size=world, accumulation=accumulation
    )


def refused(words: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        made(words, **options)
    return str(caught.value)


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """Writes a file of one's own -> the flag that names it."""

    def write(content: Any) -> str:
        path = tmp_path / "ds.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return f"--deepspeed_config {path}"

    return write


@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_batches_clipping_and_stage_follow_the_flags(task: str) -> None:
    entries = made("--batch_size 6 --update_freq 3 --clip_grad 0.5 --zero_stage 2", task=task)
    assert entries["train_batch_size"] == 6 * 3 * 4
    assert entries["train_micro_batch_size_per_gpu"] == 6
    assert entries["gradient_accumulation_steps"] == 3
    assert entries["gradient_clipping"] == 0.5
    assert entries["zero_optimization"]["stage"] == 2


def test_the_optimiser_and_its_rates_are_not_deepspeeds() -> None:
    assert not {"optimizer", "scheduler"} & made("--opt_betas 0.9 0.98 --opt_eps 1e-6 --zero_stage 1").keys()


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_summed_and_exchanged_in_fp32(stage: int, precision: str) -> None:
    entries = made(f"--zero_stage {stage}", precision=precision)
    other = "fp16" if precision == "bf16" else "bf16"
    assert entries[precision]["enabled"] is True
    assert other not in entries
    assert entries["data_types"] == {"grad_accum_dtype": "fp32"}
    assert entries["communication_data_type"] == "fp32"


def test_the_loss_scale_of_fp16_follows_torch() -> None:
    assert made("--zero_stage 2", precision="fp16")["fp16"] == {
        "enabled": True,
        "loss_scale": 0,
        "initial_scale_power": 16,
        "loss_scale_window": 2000,
        "hysteresis": 1,
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_stage_0_has_no_half_precision_section(precision: str) -> None:
    assert not {"bf16", "fp16", "torch_autocast"} & made("--zero_stage 0", precision=precision).keys()


def test_a_file_comes_on_top_entry_by_entry(own: Any) -> None:
    flag = own({"zero_optimization": {"overlap_comm": True, "reduce_bucket_size": 7}, "wall_clock_breakdown": True})
    entries = made(f"--zero_stage 2 {flag}")
    assert entries["zero_optimization"]["stage"] == 2
    assert entries["zero_optimization"]["overlap_comm"] is True
    assert entries["zero_optimization"]["reduce_bucket_size"] == 7
    assert entries["wall_clock_breakdown"] is True


def test_auto_leaves_an_entry_to_the_flag(own: Any) -> None:
    content = {
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": "auto"},
        "optimizer": "auto",
    }
    words = "--zero_stage 1 --batch_size 2 --clip_grad 2"
    assert made(f"{words} {own(content)}", precision="bf16") == made(words, precision="bf16")


def test_a_file_may_clip_where_no_flag_does(own: Any) -> None:
    assert made(own({"gradient_clipping": 0.7}))["gradient_clipping"] == 0.7


def test_a_file_that_repeats_the_precision_changes_nothing_at_stage_0(own: Any) -> None:
    assert made(own({"bf16": {"enabled": True}, "fp16": {"enabled": False}}), precision="bf16") == made()


@pytest.mark.parametrize(
    ("content", "key", "flag"),
    [
        ({"train_batch_size": 7}, "is 7, but GPUs x --batch_size x accumulation = 4 x 2 x 1 = 8", "--batch_size"),
        ({"train_micro_batch_size_per_gpu": 3}, "_per_gpu' is 3, but --batch_size is 2", "--batch_size"),
        ({"gradient_accumulation_steps": 5}, "'gradient_accumulation_steps' is 5, but --update_freq", "--update_freq"),
        ({"zero_optimization": {"stage": 3}}, "'zero_optimization.stage' is 3, but --zero_stage is 1", "--zero_stage"),
        ({"gradient_clipping": 9.0}, "'gradient_clipping' is 9.0, but --clip_grad is 0.5", "--clip_grad"),
        ({"bf16": {"enabled": True}}, "'bf16.enabled' is true, but --precision is fp32", "--precision"),
        ({"fp16": {"enabled": True}}, "'fp16.enabled' is true, but --precision is fp32", "--precision"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_a_flag_is_refused(own: Any, content: Any, key: str, flag: str) -> None:
    sentence = refused(f"--batch_size 2 --zero_stage 1 --clip_grad 0.5 {own(content)}")
    assert key in sentence
    assert f"Change {flag} or the file" in sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"optimizer": {"type": "Adam"}}, r"'optimizer' must not be there, since the optimiser comes from --opt"),
        ({"scheduler": {"type": "WarmupLR"}}, r"'scheduler' must not be there, since the rates come from --lr"),
        ({"torch_autocast": {"enabled": True}}, r"'torch_autocast' must not be there, .* --precision"),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, r"offload_optimizer' is not supported here"),
        ("{'stage': 1}", r"is no JSON: .* line 1 column 2"),
        ("[1]", r"must hold an object, \{...\}, not a list"),
    ],
)
def test_what_a_file_must_not_hold_is_refused(own: Any, content: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        made(f"--zero_stage 1 {own(content)}")


def test_a_file_that_is_not_there_is_named() -> None:
    assert refused("--deepspeed_config nowhere.json").startswith("--deepspeed_config (nowhere.json) cannot be read: No")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--enable_deepspeed --fsdp", "^--enable_deepspeed and --fsdp both say how weights are held"),
        ("--zero_stage 2", r"^--zero_stage \(2\) needs --enable_deepspeed"),
        ("--deepspeed_config x.json", r"^--deepspeed_config \(x.json\) needs --enable_deepspeed"),
        ("--enable_deepspeed --zero_stage 1 --opt lamb", r"^--opt \(lamb\) looks at whole weights, of which ZeRO"),
        ("--enable_deepspeed --zero_stage 4", r"--zero_stage \(4\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("task", ["pretrain", "finetune"])
def test_flags_that_do_not_go_together_are_refused(task: str, words: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(task, words.split(), files=False)


def test_any_optimiser_goes_with_stage_0() -> None:
    assert made("--opt lamb")["zero_optimization"] == {"stage": 0}


def test_the_dry_run_shows_the_json() -> None:
    words = "--dry_run --enable_deepspeed --zero_stage 2 --precision bf16 --batch_size 4"
    text = render_dry_run(parse("finetune", words.split()), {"WORLD_SIZE": "8"})
    line = next(line for line in text.splitlines() if line.strip().startswith("deepspeed"))
    assert json.loads(line.split(maxsplit=1)[1]) == made("--zero_stage 2 --batch_size 4", precision="bf16", world=8)


def test_the_dry_run_needs_no_deepspeed_and_says_what_auto_was_taken_for() -> None:
    words = ["finetune", "--dry_run", "--enable_deepspeed", "--zero_stage", "1"]
    # A process in which importing it fails, as where it is not installed.
    code = "import sys; sys.modules['deepspeed'] = None; import umt.__main__ as m; m.run(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"bf16": {"enabled": true}' in done.stdout
    assert "(with --precision auto settled as bf16)" in done.stdout


def test_a_missing_compiler_or_ninja_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler, .* and 'c\+\+' is not on PATH"):
        deepspeed.check_compiler({"PATH": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"and 'no-such-compiler' is not on PATH. .* name yours with CXX"):
        deepspeed.check_compiler({"PATH": os.environ["PATH"], "CXX": "no-such-compiler -O2"})
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    with pytest.raises(ConfigError, match=r"needs ninja, .* Install it with pip install ninja"):
        deepspeed.check_compiler({"PATH": str(tmp_path)}, bin_folder=tmp_path)
    (tmp_path / "ninja").symlink_to(compiler)
    deepspeed.check_compiler({"PATH": str(tmp_path)}, bin_folder=tmp_path)
