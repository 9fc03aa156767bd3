"""The quickstart's last step: the closing table, and one page with pictures that opens without a network.

`python -m umt.tools.quickstart.report --folder quickstart` reads what the quickstart wrote and changes none of it.
Every accuracy is computed from the saved scores of the views. Shapes: R videos, K classes, T frames, T' x N tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from tqdm import tqdm

from umt import drawing
from umt.data import catalog
from umt.data.lists.reading import read_list
from umt.data.loading.clips import Videos, ViewClips
from umt.data.masking import visible_tokens
from umt.data.sampling import validation_sampler
from umt.data.transforms.normalize import normalize
from umt.data.transforms.pipelines import EvalTransform
from umt.errors import UserError
from umt.models import create_model, load_weights
from umt.pages import fill
from umt.randomness import generator
from umt.tools.quickstart import figures
from umt.tools.quickstart.figures import Frames
from umt.tools.quickstart.finished import TESTED, Finished, present, read
from umt.tools.quickstart.table import margin, table, table_rows
from umt.writing import output_errors

MASKED_CLIPS, PREDICTED_CLIPS = 4, 8
_SEED = 0  # of the clips that are shown and of their masks


@dataclass(frozen=True)
class Look:
    """A test clip as pretraining would take it."""

    truth: str
    frames: Frames  # (T, H, W, 3)
    saliency: NDArray[np.float32]  # (T, h, w): a frame's sums to about 1
    visible: NDArray[np.bool_]  # (T, h, w)

    def strip(self) -> NDArray[np.uint8]:
        """The frames, the teacher's attention, and what the student gets, in three rows (h, w, 4)."""
        return figures.strip(
            self.frames, figures.heat(self.frames, self.saliency), drawing.masked(self.frames, self.visible)
        )


def look(finished: Finished, rows: list[int], clips: ViewClips) -> list[Look]:
    """The teacher's attention and the mask of the clips of `rows`, by the teacher and the flags of the pretraining."""
    flags = finished.flags["pretrain"]
    teacher = create_model(
        flags["clip_teacher"], image_size=flags["clip_input_resolution"], return_layers=flags["clip_return_layer"]
    )
    load_weights(teacher, present(finished.folder / "teacher" / "teacher.pth"))
    frames = [_frames(clips, row) for row in rows]
    video = torch.from_numpy(rearrange(frames, "r t h w c -> r c t h w"))
    with torch.no_grad():
        _, saliency = teacher.eval()(normalize(video))  # (B, T', N)
    draws = np.stack([generator(_SEED, "report", row, "mask").random(saliency.shape[1:]) for row in rows])
    noise = torch.tensor(draws, dtype=torch.float32)
    chosen = visible_tokens(flags["mask_type"], flags["mask_ratio"], noise, saliency)
    visible = torch.zeros(saliency.flatten(1).shape, dtype=torch.bool).scatter_(1, chosen, True)
    span = video.shape[2] // saliency.shape[1]  # frames of a token
    sides = dict(zip("hw", teacher.patch_grid, strict=True))
    weight = repeat(saliency, "r t (h w) -> r (t span) h w", span=span, **sides).numpy()
    seen = repeat(visible, "r (t h w) -> r (t span) h w", span=span, **sides).numpy()
    labels = finished.tests["finetune"].labels
    return [
        Look(finished.classes[labels[row]], frames[i], weight[i].astype(np.float32), seen[i])
        for i, row in enumerate(rows)
    ]


def shown_clips(finished: Finished) -> ViewClips:
    """The test videos as validation clips: one clip of evenly spread frames, the centre of the picture."""
    flags, data = finished.flags["finetune"], finished.folder / "data"
    videos = read_list(present(data / "test.csv"), separator=",", prefix=str(data))
    sampling = catalog.get(flags["data_set"]).sampling
    size = flags["input_size"]
    return ViewClips(
        Videos(videos),
        validation_sampler(sampling, flags["num_frames"], flags["sampling_rate"]),
        EvalTransform(flags["short_side_size"] or size, size),
    )


def _frames(clips: ViewClips, row: int) -> Frames:
    samples, _ = clips.read(0, row)
    return samples[0].video


def choose(labels: NDArray[np.int64], classes: list[str], count: int) -> list[int]:
    """`count` random rows, not picked by hand. Classes and things differ as long as there are others."""
    order = generator(_SEED, "report", "rows").permutation(len(labels))
    seen: Counter[str] = Counter()
    turns = []
    for row in order:
        name = classes[labels[row]]
        thing = name.split(":")[0]
        turns.append((seen[name], seen[thing]))
        seen.update({name, thing})
    return [int(order[i]) for i in sorted(range(len(order)), key=turns.__getitem__)[:count]]


def prediction_cards(finished: Finished, rows: list[int], clips: ViewClips) -> list[dict[str, Any]]:
    """For each row: the frames as a picture, the true class, and each run's answer with its probability."""
    cards = []
    for row in rows:
        answers = []
        for run in ("scratch", "finetune"):
            test = finished.tests[run]
            best = int(test.probability[row].argmax())
            answers.append(
                {
                    "run": TESTED[run],
                    "name": finished.classes[best],
                    "probability": float(test.probability[row, best]),
                    "right": bool(test.correct[row]),
                }
            )
        truth = finished.classes[finished.tests["finetune"].labels[row]]
        cards.append({"picture": figures.strip(_frames(clips, row)), "truth": truth, "answers": answers})
    return cards


def page(finished: Finished) -> tuple[str, dict[str, bytes]]:
    """The page as HTML, and its pictures as PNG files by name."""
    clips, test = shown_clips(finished), finished.tests["finetune"]
    rows = choose(test.labels, finished.classes, MASKED_CLIPS + PREDICTED_CLIPS)
    with tqdm(total=4, desc="report", unit="picture", leave=False) as bar:
        looks = look(finished, rows[:MASKED_CLIPS], clips)
        strips = [shown.strip() for shown in looks]
        bar.update()
        cards = prediction_cards(finished, rows[MASKED_CLIPS:] or rows, clips)
        bar.update()
        pictures = {"masks.png": figures.png(figures.stack(strips)), "predictions.png": figures.predictions(cards)}
        bar.update()
        pictures["curves.png"] = figures.curves(finished.logs)
        pictures["accuracy.png"] = figures.accuracies(finished.tests["scratch"].summary, test.summary)
        bar.update()
    html = fill(
        Path(__file__).with_name("report.html"),
        rows=table_rows(finished),
        margin=margin(finished),
        test=test.summary,
        classes=finished.classes,
        seconds=finished.seconds,
        epochs=finished.flags["finetune"]["epochs"],
        masks=[{"truth": shown.truth, "src": _uri(strip)} for shown, strip in zip(looks, strips, strict=True)],
        seen=np.mean([shown.visible.mean() for shown in looks]),
        held=np.mean([(shown.saliency * shown.visible).sum() / shown.saliency.sum() for shown in looks]),
        cards=[{**card, "src": _uri(card["picture"])} for card in cards],
        curves=drawing.data_uri(pictures["curves.png"]),
        accuracy=drawing.data_uri(pictures["accuracy.png"]),
        commands=finished.commands,
    )
    return html, pictures


def _uri(picture: NDArray[np.uint8]) -> str:
    return drawing.data_uri(figures.png(picture))


def _write(path: Path, content: bytes) -> None:
    with output_errors(str(path), "Free the disk or choose another folder."):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="The quickstart's closing table and report page.")
    parser.add_argument("--folder", type=Path, default=Path("quickstart"), help="what scripts/quickstart.sh wrote")
    parser.add_argument("--images", type=Path, help="also write the pictures as PNG files into this folder")
    words = parser.parse_args(argv)
    try:
        finished = read(words.folder)
        html, pictures = page(finished)
        _write(words.folder / "report.html", html.encode())
        if words.images:
            for name, picture in pictures.items():
                _write(words.images / name, picture)
    except UserError as error:
        print(f"umt: {error}", file=sys.stderr)
        return 2
    print(table(finished))
    print(f"Report: {words.folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
