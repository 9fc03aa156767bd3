"""`umt data check` run here, and what it found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from umt.tools.data.check import main


@dataclass
class Outcome:
    """Exit code, text and JSON of a check."""

    code: int
    text: str
    report: dict[str, Any]

    def found(self, *kinds: str) -> list[tuple[str, int, str]]:
        """Kind, line and path of the findings, or of those of `kinds`."""
        return [(f["kind"], f["line"], f["path"]) for f in self.report["findings"] if not kinds or f["kind"] in kinds]

    def detail(self, kind: str) -> str:
        """What the first finding of a kind says."""
        return next(f["detail"] for f in self.report["findings"] if f["kind"] == kind)


Check = Callable[..., Outcome]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs the command; the cache is one of this test."""
    monkeypatch.setenv("UMT_CACHE", str(tmp_path / "cache"))

    def check(*words: object) -> Outcome:
        out = tmp_path / "report.json"
        capsys.readouterr()
        code = main([*map(str, words), "--num_workers", "1", "--json", str(out)])
        return Outcome(code, capsys.readouterr().out, json.loads(out.read_text()))

    return check
