"""The public names are those of the record."""

from __future__ import annotations

from tests.packaging.public_names import COMMAND, RECORD, public_names


def test_the_public_names_and_signatures_are_those_on_record() -> None:
    recorded, present = RECORD.read_text(encoding="utf-8").splitlines(), public_names()
    changes = [f"- {line}" for line in recorded if line not in present]
    changes += [f"+ {line}" for line in present if line not in recorded]
    assert not changes, "\n".join(
        ["Public names changed. If that is meant, say so in CHANGELOG.md and run", f"    {COMMAND}", *changes]
    )
