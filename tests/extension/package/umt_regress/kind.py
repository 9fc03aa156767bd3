"""What `umt regress` offers to the tools."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from umt.tasks.base import Kind, Task

KIND = Kind(
    about="regression of one number",
    task="umt_regress.kind:task_from_record",
    load="umt.inference.recognizer:load",
    predict="umt_regress.kind:NumberPredictor",
    export="umt_regress.kind:export",
    check="umt_regress.kind:check",
    show="umt_regress.shown:RegressShown",
)


def task_from_record(record: Mapping[str, Any]) -> Task:
    """The task of a checkpoint's record, with new weights."""
    from umt_regress.build import listed, make_task
    from umt_regress.recipe import RegressRecipe

    recipe = RegressRecipe.from_record(record)
    return make_task(recipe, listed(recipe, "train")[1])


class NumberPredictor:
    """Answers with the mean over the views (`umt.tasks.base.predictor.Predictor`)."""

    columns = ("number",)

    @staticmethod
    def add_flags(add: Callable[..., object]) -> None:
        add("--digits", type=int, default=3, help="digits of the number (3)")

    @classmethod
    def of(cls, model: Any, words: Namespace) -> NumberPredictor:
        return cls(model, words.digits)

    def __init__(self, model: Any, digits: int) -> None:
        self.model, self.digits = model, digits

    def outputs(self, views: Any) -> Any:
        return self.model.logits(views)

    def answer(self, outputs: Any) -> float:
        return round(float(outputs.mean()), self.digits)

    def facts(self) -> dict[str, Any]:
        return {"digits": self.digits}

    def lines(self, answer: float) -> list[str]:
        return [f"{answer:.{self.digits}f}"]

    def line(self, answer: float) -> str:
        return f" {answer:.{self.digits}f}"

    def rows(self, answer: float) -> Iterator[tuple[object, ...]]:
        yield (answer,)

    def described(self, answer: float) -> float:
        return answer

    def drawn(self, answer: float, width: int, height: int) -> Any:
        from PIL import Image, ImageDraw

        image = Image.new("RGBA", (width, 16), (0, 0, 0, 175))
        ImageDraw.Draw(image).text((2, 2), self.line(answer))
        return image


def export(request: Any) -> Iterator[str]:
    """The weights as a TorchScript-free pair: model.pth and number.json."""
    import torch

    from umt.engine import checkpoints

    content = checkpoints.load(Path(request.checkpoint))
    request.output.mkdir(parents=True)
    torch.save({"model": content["model"]}, request.output / "model.pth")
    (request.output / "number.json").write_text(json.dumps({"scale": content["config"]["scale"]}))
    yield f"{request.output}: model.pth and number.json"


def check(argv: Sequence[str]) -> int:
    """`umt data check regress FOLDER`: each line is a video that is there, and a number."""
    from umt_regress.lists import read

    folder = Path(argv[0])
    lost = [path for split in ("train", "val", "test") for path in read(folder / f"{split}.csv")[0]
            if not (folder / path).is_file()]  # fmt: skip
    sys.stdout.write(f"{len(lost)} videos are missing.\n" if lost else "No problems found.\n")
    return 1 if lost else 0
