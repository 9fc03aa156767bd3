"""The quickstart's last step: the closing table, and one page with pictures that opens without a network.

`python -m umt.tools.quickstart.report --folder quickstart` reads what the quickstart wrote and changes none of it.
Every accuracy is computed from the saved scores of the views. Shapes: R videos, K classes, T frames, T' x N tokens.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from numpy.typing import NDArray
from tqdm import tqdm

from umt import drawing
from umt.config.schema import FinetuneConfig, PretrainConfig, build, flatten
from umt.data import catalog
from umt.data.lists.reading import read_list
from umt.data.loading.clips import Videos, ViewClips
from umt.data.masking import visible_tokens
from umt.data.sampling import validation_sampler
from umt.data.transforms.normalize import normalize
from umt.data.transforms.pipelines import EvalTransform
from umt.errors import OutputError, UserError
from umt.evaluation.multiview import merge
from umt.evaluation.scores import ViewScores
from umt.evaluation.summary import Summary, summarise
from umt.models import create_model, load_weights
from umt.pages import fill
from umt.randomness import generator
from umt.tools.quickstart import figures
from umt.tools.quickstart.figures import Frames

PARTS = {"finetune": "pretrained", "scratch": "from scratch"}  # run folder -> what it is called in the table
PROBED = ("random", "student")  # frozen weights, in the order of the table
PROBES = {"knn": "kNN", "linear": "linear", "attentive": "attentive"}
MASKED_CLIPS, PREDICTED_CLIPS = 4, 8
_SEED = 0  # of the clips that are shown and of their masks


class ReportError(UserError):
    """The folder does not hold a finished quickstart."""


@dataclass(frozen=True)
class Test:
    """One finished test: its numbers, and what it says of every video."""

    __test__ = False  # a name that begins with Test is not a test of pytest's

    summary: Summary
    labels: NDArray[np.int64]  # (R,)
    probability: NDArray[np.float64]  # (R, K), merged over the views

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(R,): whether the true class comes first."""
        return self.probability.argmax(1) == self.labels


@dataclass(frozen=True)
class Results:
    """What the quickstart left in `folder`."""

    folder: Path
    classes: list[str]
    tests: dict[str, Test]  # "finetune" and "scratch"
    logs: dict[str, list[dict[str, Any]]]  # those and "teacher" and "pretrain"
    pretrain: PretrainConfig
    finetune: FinetuneConfig
    seconds: dict[str, float]  # how long each stage took, where its files tell
    commands: dict[str, str]
    probes: dict[str, Any]  # probe/results.json


def read(folder: Path) -> Results:
    """Reads a finished quickstart. ReportError naming the file that is missing, or tests that cannot be compared."""
    names = [line for line in _text(folder / "data" / "labels.txt").splitlines() if line]
    runs = ("teacher", "pretrain", "finetune", "scratch")
    logs = {run: [json.loads(line) for line in _text(folder / run / "log.txt").splitlines()] for run in runs}
    configs = {run: json.loads(_text(folder / run / "config.json")) for run in runs[1:]}
    scores = {run: ViewScores.load(_present(folder / run / "scores.npz")) for run in PARTS}
    finetuned, scratch = scores.values()
    same = finetuned.classes == scratch.classes == len(names) and finetuned.paths == scratch.paths
    if not (same and np.array_equal(finetuned.labels, scratch.labels)):
        raise ReportError(f"{folder}: the two tests and data/labels.txt do not agree in videos or classes. {_AGAIN}")
    for one in scores.values():
        one.class_names = names
    tests = {run: Test(summarise(one), one.labels, merge(one.logits)) for run, one in scores.items()}
    pretrain, finetune = (_config(configs[run]) for run in ("pretrain", "finetune"))
    assert isinstance(pretrain, PretrainConfig)
    assert isinstance(finetune, FinetuneConfig)
    probes = json.loads(_text(folder / "probe" / "results.json"))
    commands = {r: _command(folder / r) for r in configs}
    commands["probe"] = _typed(["probe", *probes["command"][2:]])
    seconds = _seconds(folder, logs) | {"the probes": probes["seconds"]}
    return Results(folder, names, tests, logs, pretrain, finetune, seconds, commands, probes)


_AGAIN = "Run scripts/quickstart.sh again, it goes on where it stopped; --fresh starts over."


def _present(path: Path) -> Path:
    if not path.is_file():
        raise ReportError(f"{path} is missing, so the quickstart has not finished. {_AGAIN}")
    return path


def _text(path: Path) -> str:
    return _present(path).read_text(encoding="utf-8")


def _config(values: Mapping[str, Any]) -> PretrainConfig | FinetuneConfig:
    known = flatten(build(values["task"], {}))  # a run writes facts beside its flags
    flags = {name: value for name, value in values.items() if name in known}
    flags = {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()}  # JSON has none
    return build(values["task"], flags)


def _command(run: Path) -> str:
    """The command that started `run`, as one types it, a line for every few flags."""
    lines = _text(run / "environment.jsonl").splitlines()
    words = [str(word) for word in json.loads(lines[-1])["command"]]
    start = next((i for i, word in enumerate(words) if word in ("pretrain", "finetune", "test")), len(words))
    return _typed(words[start:])


def _typed(words: Sequence[str]) -> str:
    flags = " ".join("\n    " * word.startswith("--") + shlex.quote(word) for word in words)
    made = [f"python -m umt {flags.splitlines()[0].strip()}" if flags else ""]
    for flag in flags.splitlines()[1:]:
        longer = f"{made[-1]} {flag.strip()}"
        if len(longer) <= 108:
            made[-1] = longer
        else:
            made.append(f"    {flag.strip()}")
    return " \\\n".join(made)


def _seconds(folder: Path, logs: Mapping[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Stages and their seconds: training and validation from the logs, the test from the times of its files."""
    stages = {}
    for run, name in (("pretrain", "pretraining"), ("finetune", "finetuning"), ("scratch", "training from scratch")):
        stages[name] = sum(line.get("train_seconds", 0) + line.get("val_seconds", 0) for line in logs[run])
    trained, tested = (folder / "finetune" / name for name in ("checkpoint-latest.pth", "test.json"))
    if trained.exists() and tested.exists():
        stages["a test"] = tested.stat().st_mtime - trained.stat().st_mtime
    # A test that went on another day counts the pause: what took hours was a pause.
    return {name: value for name, value in stages.items() if 0 < value < 3600}


def table_rows(results: Results) -> list[dict[str, Any]]:
    """Chance, frozen and from scratch, frozen and pretrained: percents per view and merged, and the 95 % interval of
    merged top-1.
    """
    count = len(results.classes)
    chance = {"per_view": (100 / count, min(500 / count, 100)), "interval": None}
    rows: list[dict[str, Any]] = [{"name": "chance", **chance, "merged": chance["per_view"]}]
    for run, frozen in (("scratch", "random"), ("finetune", "student")):
        rows += _probe_rows(results, frozen)
        one = results.tests[run].summary
        rows.append(
            {
                "name": PARTS[run],
                "per_view": (one.per_view.top1, one.per_view.top5),
                "merged": (one.merged.top1, one.merged.top5),
                "interval": one.interval,
            }
        )
    return rows


def _probe_rows(results: Results, frozen: str) -> list[dict[str, Any]]:
    """The probes of `frozen` weights: "random" or "student"."""
    found = next(one for one in results.probes["models"] if (one["name"] == "random weights") == (frozen == "random"))
    return [
        {
            "name": f"{frozen}, {PROBES[probe['probe']]}",
            "per_view": tuple(probe["per_view"]),
            "merged": (probe["top1"], probe["top5"]),
            "interval": tuple(probe["interval"]),
        }
        for probe in found["probes"]
    ]


def margin(results: Results, samples: int = 10_000) -> tuple[float, float, float]:
    """Points of merged top-1 that pretraining adds, and their 95 % bootstrap interval over the same videos."""
    pretrained, scratch = (results.tests[run] for run in PARTS)
    gain = pretrained.correct.astype(int) - scratch.correct
    shares = np.bincount(gain + 1, minlength=3) / len(gain)
    drawn = generator(_SEED, "margin").multinomial(len(gain), shares, size=samples)
    low, high = np.quantile(drawn[:, 2] - drawn[:, 0], [0.025, 0.975]) * (100 / len(gain))
    return pretrained.summary.merged.top1 - scratch.summary.merged.top1, float(low), float(high)


def table(results: Results) -> str:
    """The closing table as text."""
    one = results.tests["finetune"].summary
    views = f"merged, {one.clips} clips x {one.crops} crops"
    lines = [
        f"{'':<20}{'per view':^16}{views:^36}".rstrip(),
        f"{'':<20}{'top-1':>8}{'top-5':>8}{'top-1':>10}{'95 % interval':>16}{'top-5':>8}",
    ]
    for row in table_rows(results):
        interval = f"{row['interval'][0]:.1f} to {row['interval'][1]:.1f}" if row["interval"] else ""
        (view1, view5), (top1, top5) = row["per_view"], row["merged"]
        lines.append(f"{row['name']:<20}{view1:>8.2f}{view5:>8.2f}{top1:>10.2f}{interval:>16}{top5:>8.2f}")
    lines.append("kNN, linear, attentive: probes of frozen features, random weights beside the pretrained student.")
    points, low, high = margin(results)
    lines.append(
        f"Finetuned, pretraining adds {points:+.1f} points of merged top-1 (95 % interval {low:+.1f} to {high:+.1f})."
    )
    if results.seconds:
        lines.append("Time: " + ", ".join(f"{name} {value:.0f} s" for name, value in results.seconds.items()) + ".")
    return "\n".join(lines)


@dataclass(frozen=True)
class Look:
    """A test clip as pretraining would take it."""

    truth: str
    frames: Frames  # (T, H, W, 3)
    saliency: NDArray[np.float32]  # (T, h, w): a frame's sums to about 1
    visible: NDArray[np.bool_]  # (T, h, w)


def look(results: Results, rows: list[int], clips: ViewClips) -> list[Look]:
    """The teacher's attention and the mask of the clips of `rows`, by the teacher and the flags of the pretraining."""
    config = results.pretrain
    settings = config.teacher
    teacher = create_model(
        settings.clip_teacher, image_size=settings.clip_input_resolution, return_layers=settings.clip_return_layer
    )
    load_weights(teacher, _present(results.folder / "teacher" / "teacher.pth"))
    frames = [_frames(clips, row) for row in rows]
    video = torch.from_numpy(rearrange(frames, "r t h w c -> r c t h w"))
    with torch.no_grad():
        _, saliency = teacher.eval()(normalize(video))  # (B, T', N)
    draws = [generator(_SEED, "report", row, "mask").random(saliency.shape[1:]) for row in rows]
    chosen = visible_tokens(
        settings.mask_type, settings.mask_ratio, torch.tensor(np.stack(draws), dtype=torch.float32), saliency
    )
    visible = torch.zeros(saliency.flatten(1).shape, dtype=torch.bool).scatter_(1, chosen, True)
    span = video.shape[2] // saliency.shape[1]  # frames of a token
    sides = dict(zip("hw", teacher.patch_grid, strict=True))
    weight = repeat(saliency, "r t (h w) -> r (t span) h w", span=span, **sides).numpy()
    seen = repeat(visible, "r (t h w) -> r (t span) h w", span=span, **sides).numpy()
    labels = results.tests["finetune"].labels
    return [
        Look(results.classes[labels[row]], frames[i], weight[i].astype(np.float32), seen[i])
        for i, row in enumerate(rows)
    ]


def _clips(results: Results) -> ViewClips:
    """The test videos as validation clips: one clip of evenly spread frames, the centre of the picture."""
    config, data = results.finetune, results.folder / "data"
    videos = read_list(_present(data / "test.csv"), separator=",", prefix=str(data))
    kind = catalog.get(config.data.data_set).sampling
    size = config.model.input_size
    return ViewClips(
        Videos(videos),
        validation_sampler(kind, config.data.num_frames, config.data.sampling_rate),
        EvalTransform(config.augment.short_side_size or size, size),
    )


def _frames(clips: ViewClips, row: int) -> Frames:
    samples, _ = clips.read(0, row)
    return samples[0].video


def choose(labels: NDArray[np.int64], classes: list[str], count: int) -> list[int]:
    """`count` rows by lot: nobody picked the pretty ones. Classes differ, and what is seen, while there are others."""
    order = generator(_SEED, "report", "rows").permutation(len(labels))
    seen: Counter[str] = Counter()
    turns = []
    for row in order:
        name = classes[labels[row]]
        thing = name.split(":")[0]
        turns.append((seen[name], seen[thing]))
        seen.update({name, thing})
    return [int(order[i]) for i in sorted(range(len(order)), key=turns.__getitem__)[:count]]


def prediction_cards(results: Results, rows: list[int], clips: ViewClips) -> list[dict[str, Any]]:
    """For each row: the frames as a picture, the true class, and what each run says with which probability."""
    cards = []
    for row in rows:
        answers = []
        for run in ("scratch", "finetune"):
            test = results.tests[run]
            best = int(test.probability[row].argmax())
            answers.append(
                {
                    "run": PARTS[run],
                    "name": results.classes[best],
                    "probability": float(test.probability[row, best]),
                    "right": bool(test.correct[row]),
                }
            )
        truth = results.classes[results.tests["finetune"].labels[row]]
        cards.append({"picture": figures.strip(_frames(clips, row)), "truth": truth, "answers": answers})
    return cards


def make(results: Results) -> tuple[str, dict[str, bytes]]:
    """The page as HTML, and its pictures as PNG files by name."""
    clips, labels = _clips(results), results.tests["finetune"].labels
    rows = choose(labels, results.classes, MASKED_CLIPS + PREDICTED_CLIPS)
    with tqdm(total=4, desc="report", unit="picture", leave=False) as bar:
        looks = look(results, rows[:MASKED_CLIPS], clips)
        strips = [
            figures.strip(one.frames, figures.heat(one.frames, one.saliency), drawing.masked(one.frames, one.visible))
            for one in looks
        ]
        held = np.mean([(one.saliency * one.visible).sum() / one.saliency.sum() for one in looks])
        bar.update()
        cards = prediction_cards(results, rows[MASKED_CLIPS:] or rows, clips)
        bar.update()
        pictures = {"masks.png": figures.png(figures.stack(strips)), "predictions.png": figures.predictions(cards)}
        bar.update()
        pictures["curves.png"] = figures.curves(results.logs)
        pictures["accuracy.png"] = figures.accuracies(
            results.tests["scratch"].summary, results.tests["finetune"].summary
        )
        bar.update()
    masks = [
        {"truth": one.truth, "src": drawing.data_uri(figures.png(s))} for one, s in zip(looks, strips, strict=True)
    ]
    page = fill(
        Path(__file__).with_name("report.html"),
        rows=table_rows(results),
        margin=margin(results),
        test=results.tests["finetune"].summary,
        classes=results.classes,
        seconds=results.seconds,
        pretrain=results.pretrain,
        finetune=results.finetune,
        masks=masks,
        seen=np.mean([one.visible.mean() for one in looks]),
        held=held,
        cards=[{**card, "src": drawing.data_uri(figures.png(card["picture"]))} for card in cards],
        curves=drawing.data_uri(pictures["curves.png"]),
        accuracy=drawing.data_uri(pictures["accuracy.png"]),
        commands=results.commands,
    )
    return page, pictures


def write(path: Path, content: bytes) -> None:
    """Writes a file of the report. OutputError if that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}). Free the disk or choose another folder."
        ) from error


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="The quickstart's closing table and report page.")
    parser.add_argument("--folder", type=Path, default=Path("quickstart"), help="what scripts/quickstart.sh wrote")
    parser.add_argument("--images", type=Path, help="also write the pictures as PNG files into this folder")
    words = parser.parse_args(argv)
    try:
        results = read(words.folder)
        page, pictures = make(results)
        write(words.folder / "report.html", page.encode())
        if words.images:
            for name, picture in pictures.items():
                write(words.images / name, picture)
    except UserError as error:
        print(f"umt: {error}", file=sys.stderr)
        return 2
    print(table(results))
    print(f"Report: {words.folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
