"""What a check says: a summary for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from umt.tools.data.check.findings import ERROR, KINDS, WARNING, Finding
from umt.tools.data.check.lists import Checked

SHOWN = 3  # findings of a kind in the summary


@dataclass
class Report:
    """The result of a check."""

    lists: Sequence[Checked]
    files: int
    findings: list[Finding]
    depth: str  # how closely the files were looked at
    decoded: int = 0
    known: int = 0  # of `decoded`, from an earlier check
    seconds: float = 0.0
    fixed: list[dict[str, Any]] = field(default_factory=list)

    @property
    def trainable(self) -> bool:
        """Whether nothing would stop a run."""
        return all(finding.weight != ERROR for finding in self.findings)

    def counts(self) -> dict[str, int]:
        """Findings of each kind, in the order of the report."""
        numbers = dict.fromkeys(KINDS, 0)
        for finding in self.findings:
            numbers[finding.kind] += finding.count
        return {kind: number for kind, number in numbers.items() if number}

    def as_json(self) -> dict[str, Any]:
        """For `--json`: everything, nothing cut short."""
        return {
            "may_be_trained_on": self.trainable,
            "files_looked_at": self.depth,
            "lists": [
                {
                    "source": checked.source,
                    "role": checked.role,
                    "rows": len(checked.videos),
                    "note": checked.note or checked.videos.note,
                }
                for checked in self.lists
            ],
            "files": {"different": self.files, "decoded": self.decoded, "known": self.known},
            "seconds": round(self.seconds, 1),
            "counts": self.counts(),
            "findings": [finding.as_json() for finding in self.findings],
            "fixed": self.fixed,
        }

    def text(self) -> str:
        """For people: kinds with counts, the first of each, what to do."""
        lines = [self._title(), ""]
        width = max((len(checked.source) for checked in self.lists), default=0)
        for checked in self.lists:
            note = ", ".join(n for n in (checked.role, checked.note, checked.videos.note) if n)
            lines.append(f"  {checked.source:<{width}}  {len(checked.videos):>7} rows  {note}".rstrip())
        for weight in (ERROR, WARNING):
            kinds = {f.kind for f in self.findings if f.weight == weight}
            for kind in (k for k in KINDS if k in kinds):
                lines += ["", *self._kind(kind, weight)]
        lines += ["", self._verdict()]
        return "\n".join(lines)

    def _title(self) -> str:
        looked = f"; {self.decoded} decoded" if self.depth == "decoded" else ""
        if self.known:
            looked += f", {self.known} of them known from an earlier check"
        files = "not looked for" if self.depth == "lines" else "looked for" + looked
        lists, rows = _number(len(self.lists), "list"), sum(len(checked.videos) for checked in self.lists)
        return f"{lists}, {rows} rows, {self.files} different files {files} ({self.seconds:.1f} s)"

    def _kind(self, kind: str, weight: str) -> list[str]:
        findings = [f for f in self.findings if f.kind == kind and f.weight == weight]
        number = sum(f.count for f in findings)
        lines = [f"{weight:<8}{number:>7}  {KINDS[kind].what}. {KINDS[kind].remedy}"]
        for finding in findings[:SHOWN]:
            what = "  ".join(part for part in (finding.place, finding.path, finding.detail) if part)
            lines.append(f"{'':17}{what}")
        if len(findings) > SHOWN:
            lines.append(f"{'':17}... and {len(findings) - SHOWN} more (--json FILE has all)")
        return lines

    def _verdict(self) -> str:
        errors = sum(f.count for f in self.findings if f.weight == ERROR)
        warnings = sum(f.count for f in self.findings) - errors
        lists, these = ("list", "this") if len(self.lists) == 1 else ("lists", "these")
        if errors:
            also = f" and {_number(warnings, 'warning')}" if warnings else ""
            return f"{_number(errors, 'error')}{also}: {these} {lists} cannot be trained on."
        problems = f"{_number(warnings, 'warning')}, no errors" if warnings else "No problems found"
        return f"{problems}; {these} {lists} can be trained on."


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
