"""`umt doctor`: what this machine has for training, and what is missing for what.

Exit code 0 if everything that training needs is there, else 1; what only DeepSpeed or a cluster needs may be missing.
Every line is ok, warning (it works, but not well) or missing, with a remedy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from umt.flags.command_line import Parser
from umt.tools.doctor.checks import Finding, findings

USAGE = """umt doctor [--json] [--folder PATH ...]

What this machine has and what is missing for what; exit code 1 if training cannot run.
  --json          for programs
  --folder PATH   output or data folders to check; default: the current folder"""


GROUPS = ("training", "readers", "options", "devices", "deepspeed", "cluster", "machine")


def main(argv: Sequence[str]) -> int:
    """Runs `umt doctor ARGV`; returns its exit code. Raises ConfigError for other words."""
    text, healthy = examine(argv)
    print(text)
    return 0 if healthy else 1


def examine(argv: Sequence[str]) -> tuple[str, bool]:
    """Text of `umt doctor ARGV`, and whether training can run here. Raises ConfigError for other words."""
    if {"-h", "--help"} & set(argv):
        return USAGE, True
    parser = Parser("umt doctor", "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", nargs="+", action="extend", default=[])
    words = parser.words(argv)
    records = sorted(findings(words.folder or ["."]), key=lambda finding: GROUPS.index(finding.needed_for))
    healthy = not any(f.state == "missing" and f.needed_for == "training" for f in records)
    if words.json:
        return json.dumps({"healthy": healthy, "findings": [vars(f) for f in records]}, indent=1), healthy
    return _table(records, healthy), healthy


def _table(records: Sequence[Finding], healthy: bool) -> str:
    lines: list[str] = []
    last = ""
    for finding in records:
        if finding.needed_for != last:
            lines += ["", f"{finding.needed_for}:"] if lines else [f"{finding.needed_for}:"]
            last = finding.needed_for
        remedy = f"  -> {finding.remedy}" if finding.remedy else ""
        lines.append(f"  {finding.state:<8} {finding.name:<15} {finding.detail}{remedy}")
    incomplete = sorted({f.needed_for for f in records if f.state == "missing"})
    lines += ["", f"Something is missing for: {', '.join(incomplete)}." if incomplete else "Nothing is missing."]
    lines.append("Training can run here." if healthy else "Training cannot run here.")
    return "\n".join(lines)
