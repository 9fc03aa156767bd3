"""A flag is a dataclass field: its type, default, range and help stand in one place, and argparse is built from it.

A group of flags is a frozen dataclass derived from `Group`; building one checks every range, so that a value that came
from Python is held to the same rules as one that came from the command line.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import types
import typing
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Literal

from umt.errors import ConfigError

Scalar = bool | int | float | str
OnResume = Literal["refuse", "say", "ignore"]


@dataclass(frozen=True)
class Rule:
    """What a flag's value must satisfy, and how it presents itself in `--help`."""

    help: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    example: str | None = None  # shown in error messages where the default is no good example
    off: tuple[str, ...] = ()  # of a switch: flags that turn it off, where `--no_<name>` is not the only one
    on_resume: OnResume | None = None  # what a change between two starts of one run leads to; None: as its group says

    def complaint(self, value: Any) -> str | None:
        """The rule that `value` breaks, in words, or None. Every element of a tuple is held to the rule."""
        if value is None:
            return None
        for item in value if isinstance(value, tuple) else (value,):
            if self.choices and item not in self.choices:
                return f"must be one of {', '.join(self.choices)}"
            if isinstance(item, float) and not math.isfinite(item):
                return "must be a finite number"
            if self.at_least is not None and item < self.at_least:
                return f"must be at least {self.at_least:g}"
            if self.above is not None and item <= self.above:
                return f"must be above {self.above:g}"
            if self.at_most is not None and item > self.at_most:
                return f"must be at most {self.at_most:g}"
            if self.below is not None and item >= self.below:
                return f"must be below {self.below:g}"
        return None


def flag(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    example: str | None = None,
    off: tuple[str, ...] = (),
    on_resume: OnResume | None = None,
) -> Any:
    """A dataclass field that is also a command-line flag."""
    rule = Rule(help, at_least, at_most, above, below, choices, example, off, on_resume)
    return dataclasses.field(default=default, metadata={"rule": rule})


def rule_of(field: Field[Any]) -> Rule:
    """The rule given to `flag` for this field."""
    rule = field.metadata["rule"]
    assert isinstance(rule, Rule)
    return rule


@dataclass(frozen=True)
class Kind:
    """The type of a flag: `base` is bool, int, float or str; `length` values are taken when it is a tuple.

    With `many` it takes one value or more, and with `alone` a single one of them is itself, not a tuple.
    """

    base: type
    optional: bool = False
    length: int | None = None
    many: bool = False
    alone: bool = False

    @property
    def words(self) -> str:
        return {bool: "True or False", int: "a whole number", float: "a number", str: "text"}[self.base]


def _kind(annotation: Any) -> Kind:
    optional = alone = False
    if isinstance(annotation, types.UnionType):
        kinds = typing.get_args(annotation)
        *single, annotation = (kind for kind in kinds if kind is not type(None))
        optional, alone = type(None) in kinds, bool(single)
    if typing.get_origin(annotation) is tuple:
        items = typing.get_args(annotation)
        if items[-1] is Ellipsis:
            return Kind(items[0], optional, many=True, alone=alone)
        return Kind(items[0], optional, len(items))
    return Kind(annotation, optional)


_KINDS: dict[type, dict[str, Kind]] = {}  # resolving annotations takes most of the time of a parse


def kinds(group: type[Group]) -> dict[str, Kind]:
    """Kind of every flag of a group, by name."""
    if group not in _KINDS:
        hints = typing.get_type_hints(group)
        _KINDS[group] = {f.name: _kind(hints[f.name]) for f in dataclasses.fields(group)}
    return _KINDS[group]


def example(field: Field[Any]) -> str:
    """A value that works, as typed on the command line: the default unless the rule names a better one."""
    given = rule_of(field).example
    if given is not None:
        return f"--{field.name} {given}"
    value = field.default
    words = [str(v) for v in value] if isinstance(value, tuple) else [str(value)]
    return " ".join([f"--{field.name}", *map(shlex.quote, words)])


@dataclass(frozen=True)
class Group:
    """Base of a group of flags.

    Attributes:
        on_resume: what a change of one of its flags between two starts of one run leads to: `refuse`, since it makes
            another recipe; `say`, since people do it on purpose; `ignore`, since what is learnt does not
            depend on it.
    """

    on_resume: ClassVar[OnResume] = "refuse"

    def __post_init__(self) -> None:
        known = kinds(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = known[field.name]
            expected = (int, float) if kind.base is float else kind.base
            items = value if isinstance(value, tuple) else (value,)
            wrong_type = value is not None and not all(
                isinstance(v, expected) and (kind.base is bool or not isinstance(v, bool)) for v in items
            )
            if wrong_type or (value is None and not kind.optional):
                raise ConfigError(f"--{field.name} ({value}) must be {kind.words}. Try {example(field)}.")
            complaint = rule_of(field).complaint(value)
            if complaint is not None:
                raise ConfigError(f"--{field.name} ({_shown(value)}) {complaint}. Try {example(field)}.")


def _shown(value: Any) -> str:
    return " ".join(str(v) for v in value) if isinstance(value, tuple) else str(value)


_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


def convert(field: Field[Any], kind: Kind, words: list[str]) -> Any:
    """The typed value of the words that followed a flag. Raises ConfigError with the flag, the words and a remedy."""
    name = field.name
    if kind.optional and len(words) == 1 and words[0].lower() == "none":
        return None
    if kind.length is not None:
        if len(words) != kind.length:
            raise ConfigError(f"--{name} ({' '.join(words)}) takes {kind.length} values. Try {example(field)}.")
        return tuple(_convert_one(field, kind, word) for word in words)
    if not words:
        raise ConfigError(f"--{name} needs a value, {kind.words}. Try {example(field)}.")
    if kind.many and not (kind.alone and len(words) == 1):
        return tuple(_convert_one(field, kind, word) for word in words)
    return _convert_one(field, kind, words[0])


def _convert_one(field: Field[Any], kind: Kind, word: str) -> Scalar:
    if kind.base is str:
        return word
    if kind.base is bool:
        if word.lower() in _TRUE | _FALSE:
            return word.lower() in _TRUE
    else:
        try:
            return kind.base(word)
        except ValueError:
            pass
    raise ConfigError(f"--{field.name} ({word}) must be {kind.words}. Try {example(field)}.")
