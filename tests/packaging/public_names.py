"""The names that others lean on, read from the source without importing it, one per line with its signature.

python -m tests.packaging.public_names    writes them to tests/packaging/public_names.txt
"""

from __future__ import annotations

from collections.abc import Iterator

import griffe

from tests.packaging.repository import ROOT

MODULES = ("umt", "umt.models", "umt.inference", "umt.tasks.base")
RECORD = ROOT / "tests/packaging/public_names.txt"
COMMAND = "python -m tests.packaging.public_names"


def public_names() -> list[str]:
    """One line per name of `MODULES`. A package's own modules are among its names only where `__all__` says so."""
    library = griffe.load("umt", search_paths=[ROOT], resolve_aliases=True, resolve_external=False)
    lines = []
    for name in MODULES:
        module = library if name == "umt" else library[name.removeprefix("umt.")]
        lines += _members(module, name)
    return lines


def _members(module: griffe.Object | griffe.Alias, path: str) -> Iterator[str]:
    for name, member in sorted(module.members.items()):
        if member.is_public and (not member.is_module or name in (module.exports or ())):
            yield from _lines(member, f"{path}.{name}")


def _lines(member: griffe.Object | griffe.Alias, path: str) -> Iterator[str]:
    member = member.final_target if isinstance(member, griffe.Alias) else member  # an alias has no return type
    if member.is_module:
        yield from _members(member, path)
    elif member.is_function:
        yield member.signature(name=path)
    elif member.is_class:
        yield member.signature(name=path, return_type=False) or path  # "" where it has no constructor
        for name, inner in sorted(member.all_members.items()):  # with those of bases in this library
            if inner.is_public and not name.startswith("_"):
                yield from _lines(inner, f"{path}.{name}")
    else:
        yield path if member.annotation is None else f"{path}: {member.annotation}"


def main() -> None:
    RECORD.write_text("\n".join(public_names()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
