"""A run's flags: groups of flags, side by side in one frozen dataclass, each flag's name unique among them."""

from __future__ import annotations

import dataclasses
import shlex
import typing
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass
from typing import Any, ClassVar, TypeVar

from umt.flags.group import Group

F = TypeVar("F", bound="FlagGroups")
_GROUPS: dict[type[Any], dict[str, type[Group]]] = {}  # resolving annotations takes most of the time of a parse


@dataclass(frozen=True)
class Choice:
    """A value that was not given: chosen by what was found, and why."""

    flag: str
    value: Any
    why: str

    @property
    def shown(self) -> str:
        """The value as typed on a command line."""
        if isinstance(self.value, float):
            return f"{self.value:g}"
        if isinstance(self.value, tuple):
            return shlex.join(f"{value:g}" if isinstance(value, float) else str(value) for value in self.value)
        return shlex.quote(str(self.value).replace("\t", "\\t"))


class FlagGroups:
    """Base of a frozen dataclass whose fields are groups of flags (and perhaps others, which are no flags).

    Attributes:
        command: `umt COMMAND` takes these flags.
        legacy: flags of others that are accepted and have no effect, each with the reason.
    """

    command: ClassVar[str]
    legacy: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def groups(cls) -> dict[str, type[Group]]:
        """The groups by the names of their fields, in order."""
        if cls not in _GROUPS:
            hints = typing.get_type_hints(cls)
            _GROUPS[cls] = {
                field.name: hints[field.name]
                for field in dataclasses.fields(cls)  # type: ignore[arg-type]
                if isinstance(hints[field.name], type) and issubclass(hints[field.name], Group)
            }
        return _GROUPS[cls]

    @classmethod
    def flags(cls) -> Iterator[tuple[type[Group], Field[Any]]]:
        """Every flag with its group."""
        for group in cls.groups().values():
            for field in dataclasses.fields(group):
                yield group, field

    @classmethod
    def from_values(cls: type[F], values: Mapping[str, Any], **others: Any) -> F:
        """From flat flag names and typed values; what is not named keeps its default.

        `others`: fields that are no flags.

        Raises KeyError for a name that is no flag, ConfigError for a value that breaks its flag's rule.
        """
        left = dict(values)
        parts: dict[str, Any] = {}
        for name, group in cls.groups().items():
            names = [field.name for field in dataclasses.fields(group)]
            parts[name] = group(**{n: left.pop(n) for n in names if n in left})
        if left:
            raise KeyError(f"{cls.__name__} has no flag {', '.join(left)}")
        return cls(**parts, **others)

    @classmethod
    def from_record(cls: type[F], record: Mapping[str, Any]) -> F:
        """From what a checkpoint or config.json keeps: flags among other things, tuples perhaps as lists."""
        names = {field.name for _, field in cls.flags()}
        values = {name: value for name, value in record.items() if name in names}
        return cls.from_values({k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def values(self) -> dict[str, Any]:
        """Every flag and its value, flat, as `from_values` takes it."""
        return {flag: value for part in self.groups() for flag, value in vars(getattr(self, part)).items()}

    def with_flags(self: F, **values: Any) -> F:
        """The same with other values of some flags."""
        changed: dict[str, Any] = {}
        for part, group in self.groups().items():
            names = {field.name for field in dataclasses.fields(group)} & values.keys()
            if names:
                changed[part] = dataclasses.replace(getattr(self, part), **{name: values.pop(name) for name in names})
        if values:
            raise KeyError(f"{type(self).__name__} has no flag {', '.join(values)}")
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]
