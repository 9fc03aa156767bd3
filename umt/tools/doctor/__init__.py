"""`umt doctor`: what this machine has for training, and what is missing for what.

Exit code 0 when everything that pretraining and finetuning need is there, else 1; what DeepSpeed or a cluster needs
may be missing. Every line is ok, warning (it works, but not well) or missing, with what to do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from umt.errors import ConfigError
from umt.tools.doctor.checks import Finding, findings

USAGE = """umt doctor [--json] [--folder PATH ...]

What this machine has and what is missing for what; exit code 1 if training cannot run.
  --json          for programs
  --folder PATH   output or data folders to look at; default: the present one"""


GROUPS = ("training", "readers", "options", "devices", "deepspeed", "cluster", "machine")


def examine(argv: Sequence[str]) -> tuple[str, bool]:
    """Text of `umt doctor ARGV`, and whether training can run here. Raises ConfigError for other words."""
    words, folders, as_json = list(argv), [], False
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            return USAGE, True
        if word == "--json":
            as_json = True
        elif word == "--folder" and words and not words[0].startswith("-"):
            while words and not words[0].startswith("-"):
                folders.append(words.pop(0))
        else:
            raise ConfigError(f"umt doctor takes --json and --folder PATH, not '{word}'.")
    found = sorted(findings(folders or ["."]), key=lambda f: GROUPS.index(f.needed_for))
    healthy = not any(f.state == "missing" and f.needed_for == "training" for f in found)
    if as_json:
        return json.dumps({"healthy": healthy, "findings": [vars(f) for f in found]}, indent=1), healthy
    return _table(found, healthy), healthy


def _table(found: list[Finding], healthy: bool) -> str:
    lines: list[str] = []
    last = ""
    for finding in found:
        if finding.needed_for != last:
            lines += ["", f"{finding.needed_for}:"] if lines else [f"{finding.needed_for}:"]
            last = finding.needed_for
        remedy = f"  -> {finding.remedy}" if finding.remedy else ""
        lines.append(f"  {finding.state:<8} {finding.name:<15} {finding.detail}{remedy}")
    lacking = sorted({f.needed_for for f in found if f.state == "missing"})
    lines += ["", f"Missing something: {', '.join(lacking)}." if lacking else "Nothing is missing."]
    lines.append("Training can run here." if healthy else "Training cannot run here.")
    return "\n".join(lines)
