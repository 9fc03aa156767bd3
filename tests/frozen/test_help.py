"""The flags that `--help` shows are those of before: names, what they take, defaults (tests/frozen/record.py)."""

from __future__ import annotations

import pytest

from tests.frozen import observed

EXPECTED = observed.golden("help.json")


def test_the_commands_are_those_of_before() -> None:
    assert [*observed.commands(), *observed.commands("data"), *observed.commands("weights")] == EXPECTED["commands"]


@pytest.mark.parametrize("command", observed.COMMANDS)
def test_a_command_has_the_flags_of_before(command: str) -> None:
    assert observed.flag_table(command) == EXPECTED["flags"][command]


@pytest.mark.parametrize(
    ("task", "switch"),
    [
        (task, flag.removeprefix("--"))
        for task in ("pretrain", "finetune")
        for flag, takes in EXPECTED["flags"][task].items()
        if takes.startswith("True|False")
    ],
)
def test_a_switch_is_understood_with_no_before_its_name(task: str, switch: str) -> None:
    assert observed.printed(task, f"--no_{switch}", "--dry_run").startswith(f"umt {task}")
