"""The names that exist nearest to one that does not, for the sentence that says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def nearest(word: str, choices: Iterable[str], *, count: int = 2, cutoff: float = 0.6) -> list[str]:
    """At most `count` of `choices` that resemble `word`, the nearest first, then those that contain it.

    Case, leading dashes, and dashes instead of underscores make no difference. Of a mapping the keys are compared and
    the values returned. `cutoff`: how much alike two names must be, 1 being equal.
    """
    import difflib  # only after a mistake

    names = choices if isinstance(choices, Mapping) else {choice: choice for choice in choices}
    plain: dict[str, list[str]] = {}
    for key, name in names.items():
        plain.setdefault(_plain(key), []).append(name)
    word = _plain(word)
    keys = difflib.get_close_matches(word, plain, n=count, cutoff=cutoff)
    if len(word) >= 4:
        keys += [key for key in plain if word in key and key not in keys]
    return list(dict.fromkeys(name for key in keys[:count] for name in plain[key]))[:count]


def did_you_mean(word: str, choices: Iterable[str], otherwise: str = "", *, count: int = 2, cutoff: float = 0.6) -> str:
    """ "Did you mean A or B?" of the `nearest` choices; `otherwise`, or what there is to choose, where none is near."""
    near = nearest(word, choices, count=count, cutoff=cutoff)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    names = choices.values() if isinstance(choices, Mapping) else choices
    return otherwise or f"Choose one of {', '.join(dict.fromkeys(names))}."


def _plain(word: str) -> str:
    return word.lstrip("-").replace("-", "_").lower()
