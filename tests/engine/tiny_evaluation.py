"""A test of a tiny classifier, run in this process or as a program of its own that can be killed or started twice.

`python -m tests.engine.tiny_evaluation FOLDER RANK PROCESSES STOP_AFTER` tests `VIDEOS` videos; after STOP_AFTER of
them (0: never) it says so and waits to be killed.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from umt.data.loading.clip_batch import ClipBatch
from umt.engine.evaluate import Evaluation, evaluate, weights_digest
from umt.errors import UserError
from umt.evaluation.scores import ViewScores
from umt.evaluation.validation import Validation, ValidationScores
from umt.evaluation.view_results import ViewResults
from umt.models import VisionTransformer
from umt.tasks.classify.task import Classify

VIDEOS, CLIPS, CROPS, CLASSES = 5, 2, 3, 6


def task(seed: int = 0) -> Classify:
    torch.manual_seed(seed)
    sizes = {"image_size": 16, "patch_size": 8, "width": 24, "depth": 1, "heads": 2, "num_frames": 2}
    return Classify(VisionTransformer(num_classes=CLASSES, init_scale=1.0, **sizes))


def views(row: int, clips: int = CLIPS, crops: int = CROPS) -> ClipBatch:
    """All views of one video: pixels and label are functions of its row."""
    n = clips * crops
    pixels = torch.Generator().manual_seed(row)
    index = torch.arange(n)
    return ClipBatch(
        video=torch.randint(0, 256, (n, 3, 2, 16, 16), generator=pixels, dtype=torch.uint8),
        label=torch.full((n,), row % CLASSES),
        row=torch.full((n,), row),
        copy=0 * index,
        clip=index // crops,
        crop=index % crops,
        seed=index,
        paths=[f"{row}.mp4"] * n,
    )


def empty_scores(model: torch.nn.Module, videos: int = VIDEOS, **provenance: Any) -> ViewScores:
    return ViewScores(
        rows=range(videos),
        labels=[row % CLASSES for row in range(videos)],
        paths=[f"{row}.mp4" for row in range(videos)],
        clips=CLIPS,
        crops=CROPS,
        classes=CLASSES,
        provenance={"weights": weights_digest(model), **provenance},
    )


def loader(rows: Iterable[int]) -> Callable[[frozenset[int]], Iterator[ClipBatch]]:
    rows = list(rows)
    return lambda finished: (views(row) for row in rows if row not in finished)


def score_all(folder: Path, videos: int = VIDEOS, rows: Iterable[int] | None = None, **options: Any) -> Evaluation:
    tested = options.pop("task", None) or task()
    rows = range(videos) if rows is None else rows
    scores = empty_scores(tested.model, videos)
    return evaluate(tested, loader(rows), ViewResults(scores), folder=folder, **{"batch_size": 4, **options})


def validate(
    tested: Classify, batches: Iterable[ClipBatch], videos: int = VIDEOS, multi_label: bool = False
) -> Validation:
    results = ValidationScores(videos, multi_label=multi_label)
    summary = evaluate(tested, lambda finished: batches, results, unreadable_is_wrong=True).summary
    assert isinstance(summary, Validation)
    return summary


def main(folder: Path, rank: int, processes: int, stop_after: int) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        dist.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=processes)

    def progress(done: int, total: int) -> None:
        if done == stop_after:
            sys.stdout.write("waiting\n")
            sys.stdout.flush()
            time.sleep(600)

    found: dict[str, Any] = {}
    if processes > 1:
        for videos in (VIDEOS, 1):  # with one video, the second process has none
            share = range(rank, videos, processes)
            found[f"test {videos}"] = score_all(folder / str(videos), videos, share).summary.to_json()
            result = validate(task(), (views(row, 1, 1) for row in share), videos)
            found[f"validate {videos}"] = [result.loss, result.acc1, result.acc5, result.videos]
        try:
            score_all(folder / "gap", VIDEOS, [0, 2, 4] if rank == 0 else [3])
        except UserError as error:
            found["gap"] = str(error)
    else:
        found["test"] = score_all(folder, progress=progress).summary.to_json()
    (folder / f"found{rank}.json").write_text(json.dumps(found))
    if processes > 1:
        # An exit that leaves gloo's threads to the interpreter's end dies by SIGABRT now and then.
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
