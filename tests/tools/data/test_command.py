"""`umt data`: finds its tools without torch, and names the nearest one."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from umt.errors import ConfigError
from umt.tools.data.command import COMMANDS, main


def test_help_lists_every_tool_without_torch() -> None:
    code = "import sys; from umt.__main__ import run; run(['data', '--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert all(f"umt data {name} " in done.stdout for name in COMMANDS)


def test_a_misspelt_tool_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"'prepaer' is not a command. Did you mean prepare\?"):
        main(["prepaer"])


def test_an_unknown_tool_gets_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'xyzzy' is not a command. Choose one of prepare"):
        main(["xyzzy"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_tool_has_a_main(name: str) -> None:
    assert callable(importlib.import_module(COMMANDS[name][0]).main)
