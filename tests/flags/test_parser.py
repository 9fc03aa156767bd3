"""The command line: every form of a flag, typed values, and one sentence for each thing that can be wrong."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.errors import ConfigError
from umt.flags.group import kinds, rule_of
from umt.flags.parser import parser
from umt.run.command_line import parse
from umt.tasks.base import TASKS, recipe_class
from umt.tasks.classify.recipe import ClassifyRecipe
from umt.tasks.distill.recipe import DistillRecipe


def finetune(*argv: str) -> ClassifyRecipe:
    config = parse("finetune", argv, files=False)
    assert isinstance(config, ClassifyRecipe)
    return config


def pretrain(*argv: str) -> DistillRecipe:
    config = parse("pretrain", argv, files=False)
    assert isinstance(config, DistillRecipe)
    return config


@pytest.mark.parametrize("words", [["--flip"], ["--flip", "True"], ["--flip=1"], ["--no_flip", "--flip", "yes"]])
def test_a_switch_is_turned_on(words: list[str]) -> None:
    assert pretrain(*words).augment.flip is True


@pytest.mark.parametrize("words", [[], ["--flip", "False"], ["--flip=no"], ["--flip", "--no_flip"]])
def test_a_switch_is_turned_off(words: list[str]) -> None:
    assert pretrain(*words).augment.flip is False


def test_use_cls_and_use_mean_pooling_are_one_switch() -> None:
    assert finetune().model.use_mean_pooling is True
    assert finetune("--use_cls").model.use_mean_pooling is False
    assert finetune("--use_cls", "--use_mean_pooling").model.use_mean_pooling is True


def test_pairs_of_the_original_turn_each_other_off() -> None:
    config = finetune("--no_auto_resume", "--no_save_ckpt", "--no_pin_mem")
    assert (config.checkpoint.auto_resume, config.checkpoint.save_ckpt, config.loading.pin_mem) == (False, False, False)


def test_a_flag_takes_several_values() -> None:
    assert finetune("--opt_betas", "0.9", "0.999").optim.opt_betas == (0.9, 0.999)
    assert finetune("--opt_betas", "0.9", "0.95", "--opt_betas", "none").optim.opt_betas is None


def test_the_last_of_equal_flags_wins() -> None:
    assert finetune("--epochs", "5", "--epochs", "7").optim.epochs == 7


def test_values_may_be_empty_spaces_or_negative() -> None:
    config = finetune("--prefix", "", "--split", " ", "--warmup_steps", "-1")
    assert (config.data.prefix, config.data.split, config.optim.warmup_steps) == ("", " ", -1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--batch_sise", "3"], "There is no flag --batch_sise. Did you mean --batch_size or "),
        (["--zebra", "3"], "There is no flag --zebra. umt finetune --help lists them."),
        (["--no_pin_memory"], "There is no flag --no_pin_memory. Did you mean "),
        (["lists/k400"], "A flag was expected, not 'lists/k400'. Quote values that hold spaces"),
        (["--epochs", "5", "6"], "--epochs takes one value, not 2 (5 6). Quote a value that holds spaces."),
        (["--batch_size"], "--batch_size needs a value, a whole number. Try --batch_size 64."),
        (["--split"], "--split needs a value, text. Try --split ' '."),
        (["--batch_size", "8.5"], "--batch_size (8.5) must be a whole number. Try --batch_size 64."),
        (["--batch_size", "0"], "--batch_size (0) must be at least 1. Try --batch_size 64."),
        (["--lr", "fast"], "--lr (fast) must be a number. Try --lr 0.001."),
        (["--lr", "0"], "--lr (0.0) must be above 0. Try --lr 0.001."),
        (["--lr", "nan"], "--lr (nan) must be a finite number. Try --lr 0.001."),
        (["--drop_path", "1"], "--drop_path (1.0) must be below 1. Try --drop_path 0.1."),
        (["--reprob", "2"], "--reprob (2.0) must be at most 1. Try --reprob 0.25."),
        (["--opt_betas", "0.9"], "--opt_betas (0.9) takes 2 values. Try --opt_betas 0.9 0.999."),
        (["--opt_betas", "0.9", "1"], "--opt_betas (0.9 1.0) must be below 1. Try --opt_betas 0.9 0.999."),
        (["--eval", "perhaps"], "--eval (perhaps) must be True or False. Try --eval False."),
        (
            ["--decoder", "cv2"],
            "--decoder (cv2) must be one of auto, pyav, torchcodec, decord, torchcodec-cuda. Try --decoder auto.",
        ),
        (["--recount", "0"], "--recount (0) must be at least 1. Try --recount 1."),
        (["--seed", "-1"], "--seed (-1) must be at least 0. Try --seed 0."),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        finetune(*words)
    assert str(error.value).startswith(sentence)


def test_bad_input_ends_with_code_2_one_line_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "umt", "finetune", "--epoch", "3"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "umt: There is no flag --epoch. Did you mean --epochs or --warmup_epochs?\n"


@pytest.mark.parametrize("task", TASKS)
def test_every_flag_is_in_the_help_with_a_meaning(task: str) -> None:
    text = parser(recipe_class(task)).format_help()
    for group in recipe_class(task).groups().values():
        assert f"\n{group.__doc__}:\n" in text
        for field in dataclasses.fields(group):
            assert f"  --{field.name} " in text
            assert rule_of(field).help


@pytest.mark.parametrize("task", TASKS)
def test_every_default_keeps_its_own_rules_and_every_example_works(task: str) -> None:
    config = recipe_class(task)()
    assert parse(task, [], files=False) == config
    for group in recipe_class(task).groups().values():
        for field in dataclasses.fields(group):
            if rule_of(field).example is not None:
                words = str(rule_of(field).example).split()
                assert kinds(group)[field.name].length in (None, len(words))


@pytest.mark.parametrize("task", TASKS)
def test_flag_names_are_unique_and_flatten(task: str) -> None:
    config = recipe_class(task)()
    assert recipe_class(task).from_values(config.values()) == config
    names = [field.name for group in recipe_class(task).groups().values() for field in dataclasses.fields(group)]
    assert len(names) == len(set(names))


def test_values_from_python_are_held_to_the_same_rules() -> None:
    with pytest.raises(ConfigError, match=r"^--mask_ratio \(1\.2\) must be below 1\."):
        recipe_class("pretrain").from_values({"mask_ratio": 1.2})
    with pytest.raises(ConfigError, match=r"^--batch_size \(8\.0\) must be a whole number\."):
        recipe_class("pretrain").from_values({"batch_size": 8.0})
    with pytest.raises(KeyError, match="batchsize"):
        recipe_class("pretrain").from_values({"batchsize": 8})


def _values(name: str, kind: Any, rule: Any) -> st.SearchStrategy[Any]:
    if rule.choices:
        return st.sampled_from(rule.choices)
    if kind.base is bool:
        return st.booleans()
    if kind.base is str:
        return st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=8).filter(
            lambda text: not text.startswith("-") and text.lower() != "none"
        )
    low = max(v for v in (rule.at_least, rule.above, -1) if v is not None)
    high = min(v for v in (rule.at_most, rule.below, low + 1000) if v is not None)
    if kind.base is int:
        return st.integers(int(low), int(high))
    return st.floats(low, high, exclude_min=rule.above is not None, exclude_max=rule.below is not None)


_FIELDS = [(g, f) for task in TASKS for g in recipe_class(task).groups().values() for f in dataclasses.fields(g)]


@given(data=st.data(), chosen=st.sampled_from(_FIELDS))
def test_any_value_in_range_survives_the_command_line(data: st.DataObject, chosen: tuple[Any, Any]) -> None:
    group, field = chosen
    kind, rule = kinds(group)[field.name], rule_of(field)
    one = _values(field.name, kind, rule)
    several = st.lists(one, min_size=2 if kind.alone else 1, max_size=3).map(tuple)
    if kind.many:
        value = data.draw(st.one_of(one, several) if kind.alone else several)
    else:
        value = data.draw(one if kind.length is None else st.tuples(*[one] * kind.length))
    words = [str(v) for v in value] if isinstance(value, tuple) else [str(value)]
    task = next(task for task in TASKS if group in recipe_class(task).groups().values())
    given_words = vars(parser(recipe_class(task)).parse_known_args([f"--{field.name}", *words])[0])[field.name]
    assert given_words == (words[0] if kind.base is bool else words)
    from umt.flags.group import convert

    assert convert(field, kind, words) == value
    assert getattr(group(**{field.name: value}), field.name) == value


def test_few_epochs_shorten_the_default_warmup(caplog: pytest.LogCaptureFixture) -> None:
    assert finetune("--epochs", "4").optim.warmup_epochs == 1
    assert "--epochs 4 is below the usual warm-up of 5 epochs: --warmup_epochs becomes 1." in caplog.text
    assert pretrain("--epochs", "30").optim.warmup_epochs == 2
    assert finetune("--epochs", "5").optim.warmup_epochs == 5
    assert finetune("--epochs", "4", "--warmup_epochs", "3").optim.warmup_epochs == 3
    assert finetune("--epochs", "4", "--warmup_steps", "9").optim.warmup_epochs == 5
