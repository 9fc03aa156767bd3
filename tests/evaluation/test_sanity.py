"""The report at the end: each advice where it belongs, and none where nothing is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from umt.evaluation.sanity import ClassResult, Facts, confused, examine

CLASSES = tuple(ClassResult(name, 100, 50, 90.0) for name in ("run", "jump", "swim", "walk"))
GOOD = Facts(
    classes=CLASSES, videos=(400, 100, 200), score=90.0, baseline=25.0, interval=(85.0, 94.0), mean_over_classes=90.0,
    train=(95.0, 0.2), val=(90.0, 0.4), epoch=18, epochs=20, first_loss=math.log(4),
)  # fmt: skip


def advice(**changes: Any) -> str:
    return "\n".join(examine(dataclasses.replace(GOOD, **changes)).advice)


def test_a_good_run_gets_no_advice() -> None:
    assert advice() == "Nothing looks wrong."


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"score": 25.0, "interval": (20.0, 30.0)}, "top-1 25.0 is no better than 25.0"),
        ({"score": 40.0, "interval": (20.0, 60.0)}, "top-1 40.0 cannot be told, on so few videos, from 25.0"),
        ({"score": 25.0, "random_start": True}, "It started from random weights: give --finetune"),
        ({"train": (99.0, 0.0), "val": (40.0, 3.0)}, "Training 99, validation 40: overfitting. More videos help most"),
        ({"train": (45.0, 1.2), "val": (44.0, 1.2)}, "Training 45 only: it has not learnt its own videos."),
        ({"epoch": 20}, "The last epoch was the best: more than --epochs 20 may give more."),
        ({"epoch": 3}, "Epoch 3 was the best: --epochs 6 would do."),
        ({"first_loss": 2.5}, "The first loss (2.50) is above the 1.39 of a head that knows nothing"),
        ({"first_loss": 0.4}, "The first loss (0.40) is below the 1.39"),
        ({"classes": (*CLASSES, ClassResult("fly", 2, 1, 0.0)), "first_loss": None}, "1 classes have fewer than 5"),
        ({"unreadable": (3, 0)}, "3 training videos cannot be read and were replaced: umt data check."),
        ({"tested_on_validation": True}, "The test videos are those by which the best epoch was chosen"),
        ({"videos": (400, 100, 12)}, "12 test videos say little"),
        (
            {"classes": (*CLASSES, ClassResult("fly", 20, 10, 40.0))},
            "Rare classes do worse (40, e.g. fly): more videos of them, or --class_weights balanced.",
        ),
        ({"classes": (*CLASSES, ClassResult("fly", 90, 10, 0.0))}, "Never right: fly. Look at these videos"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_a_remedy(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in advice(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"first_loss": 0.2, "new_head": False},  # a head that knows the classes
        {"first_loss": 3.0, "weighted": True},
        {"multi_label": True, "first_loss": math.log(2)},
        {"train": (None, 0.5), "val": (60.0, 0.9)},  # mixed clips have no accuracy
        {"train": (50.0, 1.0), "val": (90.0, 0.4), "epoch": 9},  # an early epoch was the best: it is not more epochs
    ],
)
def test_what_is_as_it_should_be_is_not_complained_of(changes: dict[str, Any]) -> None:
    assert advice(**changes) == "Nothing looks wrong."


def test_the_text_has_the_numbers_that_a_person_asks_for() -> None:
    made = dataclasses.replace(GOOD, pairs=(("run", "walk", 7),), unreadable=(1, 2))
    text = examine(made).text()
    for part in (
        "400 training, 100 validation and 200 test videos of 4 classes",
        "90.0 (95 % interval 85.0 to 94.0); without looking at the video 25.0",
        "chance       25.0",
        "18 of 20 was tested: training 95.0, loss 0.200; validation 90.0, loss 0.400",
        "1.386; a new head gives 1.386",
        "run taken for walk (7)",
        "1 in training, 2 in the test",
    ):
        assert part in text
    json.dumps(examine(made).to_json())


def test_pairs_are_ordered_by_how_often_they_are_confused() -> None:
    truth, said = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 1, 1, 2, 2, 0])
    assert confused(truth, said, ["a", "b", "c"]) == [("a", "b", 2), ("b", "c", 1), ("c", "a", 1)]
