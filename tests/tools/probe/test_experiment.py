"""An experiment on features: settings are chosen without the test, which is looked at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from umt.data.lists.video_list import VideoList
from umt.evaluation.metrics import bootstrap_interval
from umt.inference import features
from umt.inference.feature_files import FeaturesError, Row
from umt.tools.probe.experiment import Experiment, Outcome, Plan, best
from umt.tools.probe.features import Kept, Views, token_grid
from umt.tools.probe.heads import Setting
from umt.tools.probe.lists import Lists

WIDTH, TOKENS, CLASSES = 6, 3, 3
PLAN = Plan(
    neighbours=(1, 3), temperatures=(0.07,), linear_settings=(Setting(0.1, 0), Setting(1e-6, 0)), linear_epochs=20,
    attentive_settings=(Setting(0.01, 0), Setting(1e-6, 0)), attentive_epochs=10,
)  # fmt: skip


def _lists(counts: dict[str, int], *, seed: int = 0, hold: bool = False) -> Lists:
    videos = {}
    for name, count in counts.items():
        labels = np.arange(count) % CLASSES
        if name == "test":
            labels = np.random.default_rng(seed).permutation(labels)
        videos[name] = VideoList(name, [f"{name}{i}" for i in range(count)], labels.tolist())
    chooses = np.arange(counts["train"]) % 5 == 0 if hold else None
    return Lists(videos, CLASSES, None, chooses)


def _row(row: int, tokens: torch.Tensor) -> Row:
    """tokens (V, L, D)."""
    layers = {"pooled": tokens.mean(1).half(), "tokens": tokens.half()}
    return Row(row, f"{row}.mp4", 0, np.zeros((1, 1), np.int32), layers)


def _kept(
    folder: Path, lists: Lists, *, views: dict[str, Views], unreadable: dict[str, list[int]] | None = None,
    weights: str = "none",
) -> Kept:  # fmt: skip
    """Features that tell the class (of the test by row, whatever its labels)."""
    rows = {name: len(videos) for name, videos in lists.videos.items()}
    about = {"views": {name: [v.clips, v.crops] for name, v in views.items()}, "weights": weights}
    kept = Kept(folder, about, rows, WIDTH, TOKENS)
    centres = np.random.default_rng(1).normal(size=(CLASSES, WIDTH))
    for split, count in rows.items():
        rng = np.random.default_rng(len(split) + count)
        shape = (views[split].count, TOKENS, WIDTH)
        made = [
            _row(row, torch.from_numpy(centres[row % CLASSES] + 0.4 * rng.normal(size=shape))) for row in range(count)
        ]
        kept.write(split, [row for row in made if row.row not in (unreadable or {}).get(split, [])])
    return kept


def _run(folder: Path, lists: Lists, probe: str, views: dict[str, Views] | None = None) -> Outcome:
    views = views or {name: Views() for name in lists.videos}
    return Experiment(_kept(folder, lists, views=views), lists, views, PLAN, torch.device("cpu")).run(probe)


@pytest.mark.parametrize("probe", ["knn", "linear", "attentive"])
@pytest.mark.parametrize("hold", [False, True])
def test_the_labels_of_the_test_change_neither_choice_nor_scores(tmp_path: Path, probe: str, hold: bool) -> None:
    counts = {"train": 30, "test": 12} if hold else {"train": 30, "val": 9, "test": 12}
    one, other = (_run(tmp_path / str(seed), _lists(counts, seed=seed, hold=hold), probe) for seed in (1, 2))
    assert one.chosen == other.chosen
    assert one.tried == other.tried
    np.testing.assert_array_equal(one.scores.logits, other.scores.logits)
    assert one.summary.merged.top1 != other.summary.merged.top1


@pytest.mark.parametrize("probe", ["knn", "linear", "attentive"])
def test_features_that_tell_the_classes_score_full_marks(tmp_path: Path, probe: str) -> None:
    lists = _lists({"train": 30, "val": 9, "test": 12})
    lists.videos["test"].labels[:] = np.arange(12) % CLASSES
    made = _run(tmp_path, lists, probe)
    assert made.summary.merged.top1 == 100
    assert made.summary.interval == (100, 100)
    if probe != "knn":
        assert made.chosen == 0, "the learning rate that learns"


def test_the_interval_is_over_the_test_videos(tmp_path: Path) -> None:
    made = _run(tmp_path, _lists({"train": 30, "val": 9, "test": 60}, seed=3), "linear")
    right = made.scores.logits[:, 0, 0].argmax(1) == made.scores.labels
    assert made.summary.merged.top1 == pytest.approx(100 * right.mean())
    assert made.summary.interval == bootstrap_interval(right)


def test_views_of_a_test_video_are_merged_and_training_clips_are_samples(tmp_path: Path) -> None:
    views = {"train": Views(2), "val": Views(2, 3), "test": Views(2, 3)}
    made = _run(tmp_path, _lists({"train": 30, "val": 9, "test": 12}), "linear", views)
    assert made.scores.logits.shape == (12, 2, 3, CLASSES)
    assert made.summary.videos == 12


def test_an_unreadable_test_video_counts_as_wrong_and_a_training_one_not_at_all(tmp_path: Path) -> None:
    lists = _lists({"train": 30, "val": 9, "test": 12})
    lists.videos["test"].labels[:] = np.arange(12) % CLASSES
    views = {name: Views() for name in lists.videos}
    kept = _kept(tmp_path, lists, views=views, unreadable={"test": [4], "train": [0, 1]})
    experiment = Experiment(kept, lists, views, PLAN, torch.device("cpu"))
    assert len(experiment.fitted.places) == 28
    made = experiment.run("knn")
    assert made.summary.merged.top1 == pytest.approx(100 * 11 / 12)
    assert list(made.summary.unreadable) == [4]


def test_a_probe_chosen_on_held_out_videos_is_trained_on_all(tmp_path: Path) -> None:
    lists = _lists({"train": 30, "test": 12}, hold=True)
    views = {name: Views() for name in lists.videos}
    experiment = Experiment(_kept(tmp_path, lists, views=views), lists, views, PLAN, torch.device("cpu"))
    assert len(experiment.fitted.places) == 24
    assert len(experiment.all.places) == 30
    assert not set(experiment.choice[1].places) & set(experiment.fitted.places)


def test_the_best_setting_has_the_highest_top1_and_among_equals_the_lowest_loss() -> None:
    def tried(*pairs: tuple[float, float]) -> list[dict[str, float]]:
        return [{"top1": top1, "loss": loss} for top1, loss in pairs]

    assert best(tried((50, 1.0), (60, 2.0), (60, 1.5), (60, 1.5))) == 2
    assert best(tried((90, float("nan")), (20, 3.0))) == 1


def test_features_of_other_weights_or_views_lie_elsewhere(tmp_path: Path) -> None:
    lists = _lists({"train": 6, "test": 3})
    views = {name: Views() for name in lists.videos}
    assert _kept(tmp_path, lists, views=views).folder == _kept(tmp_path, lists, views=views).folder
    assert _kept(tmp_path, lists, views=views).folder != _kept(tmp_path, lists, views=views, weights="x").folder


def _two(folder: Path) -> Kept:
    """An empty folder for 600 training videos, in shards of 256, and two of the test."""
    about = {"views": {"train": [1, 1], "test": [1, 1]}, "weights": "none"}
    return Kept(folder, about, {"train": 600, "test": 2}, WIDTH, 3)


def test_features_are_missing_until_their_shard_is_written(tmp_path: Path) -> None:
    kept = _two(tmp_path)
    kept.write("train", [_row(row, torch.full((1, 3, WIDTH), float(row))) for row in range(256)])
    again = _two(tmp_path)
    assert [len(group.missing()) for group in again.groups("train")] == [0, 256, 88]
    assert again.present("train").tolist() == list(range(256))
    array = again.array("train", "tokens")
    assert array.shape == (600, 3, WIDTH)
    np.testing.assert_array_equal(array[np.array([7, 3, 300])][:, 0, 0], [7, 3, 0])


def test_kept_features_are_read_like_those_of_umt_extract(tmp_path: Path) -> None:
    kept = _two(tmp_path)
    kept.write("test", [_row(row, torch.full((1, 3, WIDTH), float(row))) for row in (0, 1)])
    rows = [(row, array.shape) for row, _, array in features.read(kept.folder / "test", "pooled")]
    assert rows == [(0, (1, WIDTH)), (1, (1, WIDTH))]


def test_a_shard_that_is_gone_is_missing_and_one_that_is_cut_is_named(tmp_path: Path) -> None:
    kept = _two(tmp_path)
    kept.write("test", [_row(row, torch.ones(1, 3, WIDTH)) for row in (0, 1)])
    (file,) = (kept.folder / "test").glob("*.safetensors")
    content = file.read_bytes()
    file.unlink()
    assert [group.missing() for group in _two(tmp_path).groups("test")] == [[0, 1]]
    file.write_bytes(content[:-60])
    with pytest.raises(FeaturesError, match=rf"{file.name} cannot be read as features .* Delete it"):
        _two(tmp_path).groups("test")[0].missing()


def test_tokens_are_pooled_in_space_until_they_fit() -> None:
    clip = 2 * 8 * 14 * 14 * 768
    assert token_grid((8, 14, 14), 10, 768, 10 * clip) == (8, 14, 14)
    assert token_grid((8, 14, 14), 10, 768, 9 * clip) == (8, 7, 7)
    assert token_grid((8, 14, 14), 10, 768, 1) == (8, 1, 1)
