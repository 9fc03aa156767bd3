"""Validation and the multi-view test: every row once, on any number of processes, through kills and damage."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.engine.tiny_evaluation import CLASSES, CLIPS, CROPS, VIDEOS, empty_scores, score_all, task, validate, views
from umt.data.loading.clip_batch import ClipBatch
from umt.data.transforms.normalize import normalize
from umt.engine.evaluate import evaluate, weights_digest
from umt.errors import ScoresError, UserError
from umt.evaluation.multi_label import MultiLabelScores, summarise_multi_label
from umt.evaluation.multiview import merge
from umt.evaluation.partial import PartialWriter, partial_path, partial_ranks
from umt.evaluation.scores import ViewScores
from umt.evaluation.summary import summarise
from umt.evaluation.view_results import SCORES_FILE, ViewResults


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def start(folder: Path, rank: int = 0, processes: int = 1, stop_after: int = 0) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.engine.tiny_evaluation", *map(str, (folder, rank, processes, stop_after))]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the programs that results are compared with, bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The multi-view test


def test_the_merged_result_is_that_of_every_view_by_itself(tmp_path: Path) -> None:
    result, tested = score_all(tmp_path), task()
    with torch.no_grad():
        logits = [tested.model.eval()(normalize(views(row).video)) for row in range(VIDEOS)]
    expected = merge(torch.stack(logits).view(VIDEOS, CLIPS, CROPS, CLASSES).numpy())
    label = np.arange(VIDEOS) % CLASSES
    assert result.summary.merged.top1 == 100 * np.mean(expected.argmax(1) == label)
    saved = ViewScores.load(result.path)
    np.testing.assert_allclose(merge(saved.logits), expected, atol=1e-6)


def test_the_numbers_can_be_recomputed_from_the_saved_scores(tmp_path: Path) -> None:
    result = score_all(tmp_path)
    assert summarise(ViewScores.load(result.path)) == result.summary


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_no_forward_pass_is_larger_than_asked(tmp_path: Path, batch_size: int) -> None:
    tested, sizes = task(), []
    tested.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    score_all(tmp_path, task=tested, batch_size=batch_size)
    assert max(sizes) <= batch_size
    assert sum(sizes) == VIDEOS * CLIPS * CROPS


def test_views_of_one_video_may_come_in_several_batches(tmp_path: Path) -> None:
    tested = task()

    def halves(finished: frozenset[int]) -> Iterator[ClipBatch]:
        whole = [views(row) for row in range(VIDEOS)]
        yield from (video[:2] for video in whole)
        yield from (video[2:] for video in whole)

    result = evaluate(tested, halves, ViewResults(empty_scores(tested.model)), folder=tmp_path / "halves", batch_size=4)
    assert summarise(ViewScores.load(result.path)).merged == score_all(tmp_path / "whole").summary.merged


def test_a_video_that_comes_twice_counts_once(tmp_path: Path) -> None:
    repeated = score_all(tmp_path / "twice", rows=[0, 1, 2, 3, 4, 0, 1])
    assert repeated.summary == score_all(tmp_path / "once").summary


def test_a_missing_video_gives_no_accuracy_and_keeps_the_others(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match=rf"{CLIPS * CROPS} of 30 views are missing.*3\.mp4 \(row 3\)"):
        score_all(tmp_path, rows=[0, 1, 2, 4])
    assert not (tmp_path / SCORES_FILE).exists()
    assert score_all(tmp_path).resumed == 4


def with_failure(row: int) -> Any:
    def make(finished: frozenset[int]) -> Iterator[ClipBatch]:
        for other in range(VIDEOS):
            if other in finished:
                continue
            batch = views(other)
            if other == row:
                batch = batch[:0]
                batch.failures = [{"row": row, "path": f"{row}.mp4", "cause": "moov atom not found"}]
            yield batch

    return make


def test_an_unreadable_test_video_is_named_not_replaced(tmp_path: Path) -> None:
    tested = task()
    with pytest.raises(UserError, match=r"2\.mp4 \(row 2\) cannot be read: moov atom not found.*1 of 5 videos"):
        evaluate(tested, with_failure(2), ViewResults(empty_scores(tested.model)), folder=tmp_path)


def test_an_unreadable_test_video_counts_as_wrong_when_asked(tmp_path: Path) -> None:
    tested = task()
    scores = empty_scores(tested.model)
    result = evaluate(tested, with_failure(2), ViewResults(scores), folder=tmp_path, unreadable_is_wrong=True)
    assert (result.summary.videos, result.summary.unreadable) == (VIDEOS, {2: "moov atom not found"})
    assert result.summary.classes[2].top5 == 0.0


def test_the_model_is_in_evaluation_mode_and_back_in_training_after(tmp_path: Path) -> None:
    tested, modes = task(), []
    tested.model.train()
    tested.model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    score_all(tmp_path, task=tested)
    assert set(modes) == {False}
    assert tested.model.training


def test_progress_is_told_in_videos(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    score_all(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(i + 1, VIDEOS) for i in range(VIDEOS)]


# Going on after a kill


def test_a_killed_test_goes_on_from_the_videos_that_it_finished(tmp_path: Path) -> None:
    process = start(tmp_path / "killed", stop_after=3)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    tested, seen = task(), []
    tested.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    result = score_all(tmp_path / "killed", task=tested)
    whole = score_all(tmp_path / "whole")
    assert (result.resumed, sum(seen)) == (3, 2 * CLIPS * CROPS)
    assert result.summary == whole.summary
    assert (ViewScores.load(result.path).logits == ViewScores.load(whole.path).logits).all()


def interrupted(folder: Path, ranks: dict[int, list[int]], seed: int = 0) -> None:
    """Leaves behind what a killed test of weights `seed` on several processes would have."""
    tested = task(seed)
    scores = empty_scores(tested.model)
    for rank, rows in ranks.items():
        results = ViewResults(scores)
        with PartialWriter(partial_path(folder, rank), results) as writer, torch.no_grad():
            for row in rows:
                results.take(views(row), tested.model.eval()(normalize(views(row).video)))
                writer.append(row, results.dump(row))


def test_one_process_takes_up_what_several_left(tmp_path: Path) -> None:
    interrupted(tmp_path / "left", {0: [0, 2], 1: [1], 5: [3]})
    result = score_all(tmp_path / "left")
    assert (result.resumed, result.summary) == (4, score_all(tmp_path / "whole").summary)


def test_partial_scores_of_other_weights_are_not_trusted(tmp_path: Path) -> None:
    interrupted(tmp_path / "left", {0: [0, 1, 2]}, seed=1)
    result = score_all(tmp_path / "left")
    assert (result.resumed, result.summary) == (0, score_all(tmp_path / "whole").summary)


def test_partial_files_go_when_the_scores_are_whole(tmp_path: Path) -> None:
    interrupted(tmp_path, {0: [0], 7: [3]})
    score_all(tmp_path)
    assert partial_ranks(tmp_path) == []


def test_the_digest_tells_weights_apart() -> None:
    assert weights_digest(task(0).model) == weights_digest(task(0).model) != weights_digest(task(1).model)


# Validation


def singles(rows: Any) -> list[ClipBatch]:
    return [views(row, 1, 1) for row in rows]


def test_validation_is_the_mean_over_rows() -> None:
    tested = task()
    with torch.no_grad():
        logits = torch.cat([tested.model.eval()(normalize(b.video)) for b in singles(range(VIDEOS))])
    label = torch.arange(VIDEOS) % CLASSES
    result = validate(tested, singles(range(VIDEOS)))
    assert result.loss == pytest.approx(F.cross_entropy(logits, label).item(), rel=1e-6)
    assert result.acc1 == pytest.approx(100 * (logits.argmax(1) == label).double().mean().item())
    top5 = (logits.topk(5).indices == label[:, None]).any(1)
    assert result.acc5 == pytest.approx(100 * top5.double().mean().item())


def test_a_row_that_a_sampler_repeats_counts_once() -> None:
    assert validate(task(), singles([0, 1, 2, 3, 4, 0])) == validate(task(), singles(range(VIDEOS)))


def test_validation_of_a_part_of_the_list_is_refused() -> None:
    with pytest.raises(ScoresError, match="results for 4 of 5 videos"):
        validate(task(), singles(range(4)))


def test_validation_of_nothing_is_a_sentence() -> None:
    with pytest.raises(ScoresError, match="validation read no video"):
        validate(task(), [], 0)


def test_validation_without_a_label_names_the_video() -> None:
    batch = views(3, 1, 1)
    batch.label[:] = -1
    with pytest.raises(ScoresError, match=r"3\.mp4: label -1 is outside 0\.\.5"):
        validate(task(), [batch], 1)


def test_a_model_that_gives_no_numbers_is_never_right() -> None:
    tested = task()
    with torch.no_grad():
        for parameter in tested.model.parameters():
            parameter.fill_(float("nan"))
    result = validate(tested, singles(range(VIDEOS)))
    assert (result.acc1, result.acc5) == (0.0, 0.0)
    assert np.isnan(result.loss)


def test_an_unreadable_validation_video_counts_as_wrong_when_the_loader_says_so() -> None:
    readable = [row for row in range(VIDEOS) if row != 2]
    batches = singles(range(VIDEOS))
    batches[2] = batches[2][:0]
    batches[2].failures = [{"row": 2, "path": "2.mp4", "cause": "empty file"}]
    result, rest = validate(task(), batches), validate(task(), singles(readable), len(readable))
    assert (result.videos, result.unreadable, result.loss) == (VIDEOS, 1, rest.loss)
    assert (result.acc1, result.acc5) == pytest.approx((rest.acc1 * 4 / 5, rest.acc5 * 4 / 5))


# Two processes


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What each of two gloo processes found (see tiny_evaluation.main)."""
    folder = tmp_path_factory.mktemp("two")
    processes = [start(folder, rank, 2) for rank in range(2)]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    yield [json.loads((folder / f"found{rank}.json").read_text()) for rank in range(2)]
    shutil.rmtree(folder)


@pytest.mark.parametrize("videos", [VIDEOS, 1])
def test_two_processes_test_as_one(two_processes: list[dict[str, Any]], videos: int, tmp_path: Path) -> None:
    alone = plain(score_all(tmp_path, videos).summary.to_json())
    assert [found[f"test {videos}"] for found in two_processes] == [alone, alone]


@pytest.mark.parametrize("videos", [VIDEOS, 1])
def test_two_processes_validate_as_one(two_processes: list[dict[str, Any]], videos: int) -> None:
    result = validate(task(), singles(range(videos)), videos)
    alone = [result.loss, result.acc1, result.acc5, result.videos]
    assert [found[f"validate {videos}"] for found in two_processes] == [alone, alone]


def test_a_gap_stops_both_processes_with_the_same_sentence(two_processes: list[dict[str, Any]]) -> None:
    first, second = (found["gap"] for found in two_processes)
    assert first == second
    assert "1.mp4 (row 1)" in first


# Several labels a video


def several(row: int, clips: int = 1, crops: int = 1) -> ClipBatch:
    batch = views(row, clips, crops)
    batch.label = ((torch.arange(CLASSES) + row) % 3 == 0).float().repeat(len(batch), 1)
    return batch


def test_validation_of_several_labels_has_precision_and_no_accuracy() -> None:
    tested = task()
    found = validate(tested, [several(row) for row in (3, 1, 0, 2, 4, 2)], multi_label=True)  # row 2 came twice
    with torch.no_grad():
        logits = torch.cat([tested.model.eval()(normalize(several(row).video)) for row in range(VIDEOS)])
    truth = torch.cat([several(row).label for row in range(VIDEOS)])
    assert found.loss == pytest.approx(F.binary_cross_entropy_with_logits(logits, truth).item(), rel=1e-6)
    assert found.many == MultiLabelScores.of(logits.sigmoid().numpy(), truth.numpy() > 0)
    assert list(found.metrics()) == ["loss", "map", "f1_micro", "f1_macro"]


def test_a_test_of_several_labels_merges_sigmoids_and_keeps_the_labels(tmp_path: Path) -> None:
    tested = task()
    labels = np.concatenate([several(row).label.numpy() for row in range(VIDEOS)])
    scores = ViewScores(
        rows=range(VIDEOS), labels=labels, paths=[f"{row}.mp4" for row in range(VIDEOS)], clips=CLIPS, crops=CROPS,
        classes=CLASSES,
    )  # fmt: skip
    batches = [several(row, CLIPS, CROPS) for row in range(VIDEOS)]
    result = evaluate(tested, lambda done: batches, ViewResults(scores), folder=tmp_path)
    saved = ViewScores.load(result.path)
    assert np.array_equal(saved.labels, labels)
    assert result.summary == summarise_multi_label(saved)
