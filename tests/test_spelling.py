"""Names that resemble a misspelt one."""

import pytest

from umt.spelling import did_you_mean, nearest

FLAGS = ["--batch_size", "--epochs", "--warmup_epochs", "--lr"]


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("--batch_sise", ["--batch_size"]),
        ("--batch-size", ["--batch_size"]),
        ("BATCH_SIZE", ["--batch_size"]),
        ("--epoch", ["--epochs", "--warmup_epochs"]),
        ("--nothing_like_it", []),
    ],
)
def test_case_and_dashes_make_no_difference_to_what_is_near(word: str, names: list[str]) -> None:
    assert nearest(word, FLAGS) == names


def test_a_name_that_contains_the_word_is_near_but_not_one_that_contains_three_letters() -> None:
    assert nearest("warm", FLAGS) == ["--warmup_epochs"]
    assert nearest("arm", FLAGS) == []


def test_no_more_names_are_suggested_than_asked_for() -> None:
    assert nearest("--epoch", FLAGS, count=1) == ["--epochs"]
    assert nearest("yoga", ["yoga", "Yoga", "YOGA"], count=2) == ["yoga", "Yoga"]


def test_the_values_of_a_mapping_are_suggested_once_each() -> None:
    boards = {"a10080": "A100-80", "a100": "A100-80", "a10040": "A100-40"}
    assert did_you_mean("a1000", boards, count=3) == "Did you mean A100-80 or A100-40?"


def test_with_no_name_near_the_sentence_says_what_there_is() -> None:
    assert did_you_mean("nosuch", ["gpu", "cpu"]) == "Choose one of gpu, cpu."
    assert did_you_mean("nosuch", ["gpu", "cpu"], "umt --help lists them.") == "umt --help lists them."
