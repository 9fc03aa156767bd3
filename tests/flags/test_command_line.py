"""The argparse of the tools: mistakes are one sentence, and numbers keep to their range."""

from __future__ import annotations

import pytest

from umt.errors import ConfigError
from umt.flags.command_line import COUNT, COUNT_OR_0, SHARE, Number, Parser


def parser(**options: object) -> Parser:
    made = Parser("umt data thing", "does a thing")
    made.add_argument("--label_order", **options)  # type: ignore[arg-type]
    return made


def test_a_misspelt_flag_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"there is no flag --lable-order. Did you mean --label_order\?"):
        parser().words(["--lable-order", "umt"])


def test_a_misspelt_flag_is_said_before_the_one_that_is_missing_for_it() -> None:
    with pytest.raises(ConfigError, match=r"there is no flag --lable_order. Did you mean --label_order\?"):
        parser(required=True).words(["--lable_order=here"])


def test_a_word_too_many_is_named() -> None:
    with pytest.raises(ConfigError, match="'twice' is one word too many"):
        parser().words(["twice"])


def test_words_of_another_parser_are_handed_back() -> None:
    words, rest = parser().known_words(["--label_order", "umt", "--other", "1"])
    assert (words.label_order, rest) == ("umt", ["--other", "1"])


@pytest.mark.parametrize(
    ("number", "word", "sentence"),
    [
        (COUNT, "0", r"^--label_order \(0\) must be at least 1\.$"),
        (COUNT_OR_0, "-1", r"^--label_order \(-1\) must be at least 0\.$"),
        (COUNT, "many", "umt data thing: argument --label_order: invalid int value: 'many'"),
        (SHARE, "2", r"^--label_order \(2\) is a share, from 0 to 1\.$"),
        (SHARE, "nan", r"\(nan\) is a share"),
        (
            Number(float, above=0, at_most=1, remedy="Try 0.5."),
            "0",
            r"\(0\) must be above 0 and at most 1\. Try 0\.5\.$",
        ),
        (Number(float, at_least=0, below=1), "1", r"\(1\) must be at least 0 and below 1"),
    ],
)
def test_a_number_out_of_its_range_is_refused_in_a_sentence(number: Number, word: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parser(type=number).words(["--label_order", word])


def test_every_one_of_several_numbers_is_held_to_the_range() -> None:
    several = parser(type=COUNT, nargs="+")
    assert several.words(["--label_order", "1", "2"]).label_order == [1, 2]
    with pytest.raises(ConfigError, match=r"--label_order \(0\) must be at least 1"):
        several.words(["--label_order", "1", "0"])
