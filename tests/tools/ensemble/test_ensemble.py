"""`umt ensemble`: score files in, a table, JSON and a score file out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from umt.data import labels
from umt.errors import ConfigError, ScoresError, UserError
from umt.evaluation.multi_label import merge_sigmoids, summarise_multi_label
from umt.evaluation.multiview import merge
from umt.evaluation.scores import ViewScores
from umt.evaluation.summary import summarise
from umt.tools.ensemble.command import main

K = 5


def run_file(
    path: Path,
    seed: int,
    *,
    videos: int = 200,
    noise: float = 1.0,
    clips: int = 2,
    start: int = 0,
    names: object = None,
) -> str:
    """A scores file of seeded logits that see the truth through noise."""
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(77 + start).integers(K, size=videos)
    scores = ViewScores(
        rows=range(videos), labels=truth.tolist(), paths=[f"v/{start + i}.mp4" for i in range(videos)],
        clips=clips, crops=1, classes=K, class_names=names,  # type: ignore[arg-type]
    )  # fmt: skip
    for row, label in enumerate(truth):
        scores.add_video(row, 1.5 * np.eye(K)[label] + noise * random.standard_normal((clips, 1, K)))
    scores.save(path)
    return str(path)


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    return [run_file(tmp_path / f"{i}.npz", i, noise=1 + i / 2) for i in range(3)]


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_fused_file_holds_what_is_reported(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = str(tmp_path / "fused.npz")
    said = told(capsys, *runs, "--weights", "3", "2", "1", "--output", out)
    fused = ViewScores.load(out)
    summary = summarise(fused)
    assert summary.merged.top1 == said["merged"]["top1"]
    assert summary.interval == tuple(said["interval"])
    members = [merge(ViewScores.load(run).logits) for run in runs]
    expected = sum(w * p for w, p in zip((3, 2, 1), members, strict=True)) / 6
    np.testing.assert_allclose(merge(fused.logits), expected, rtol=1e-4)
    assert fused.provenance["ensemble"] == "mean"


def test_an_ensemble_is_a_member_of_another(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = str(tmp_path / "two.npz")
    told(capsys, *runs[:2], "--output", out)
    whole = told(capsys, *runs)
    nested = told(capsys, out, runs[2], "--weights", "2", "1")
    assert nested["merged"] == whole["merged"]


def test_the_table_says_what_each_member_adds(runs: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(runs) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()[1:5]] == [*runs, "ensemble"]
    assert "gain over the best member" in table
    assert "200 videos; mean of probabilities; weights: equal" in table


def test_weights_are_found_on_other_videos_than_are_reported(runs: list[str], capsys: pytest.CaptureFixture) -> None:
    said = told(capsys, *runs, "--search", "0.4", "--objective", "cross_entropy")
    assert said["videos"] + said["search"]["videos"] == 200
    assert said["search"]["videos"] == pytest.approx(80, abs=3)
    assert said["members"][0]["weight"] > said["members"][2]["weight"]


def test_the_search_takes_the_videos_of_a_list(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "val.csv").write_text("".join(f"v/{i}.mp4,0\n" for i in range(50)))
    out = tmp_path / "o.npz"
    said = told(capsys, *runs, "--search", str(tmp_path / "val.csv"), "--output", str(out))
    assert (said["videos"], said["search"]["videos"]) == (150, 50)
    assert ViewScores.load(out).paths[0] == "v/50.mp4"


def test_a_list_of_names_of_classes_has_no_numbers_for_scores(runs: list[str], tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("v/0.mp4,yoga\nv/1.mp4,archery\n")
    with pytest.raises(ConfigError, match=r"--list \(.*val\.csv\) has names of classes"):
        main([*runs, "--list", str(tmp_path / "val.csv")])


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
def test_the_separator_of_a_list_is_found(tmp_path: Path, capsys: pytest.CaptureFixture, separator: str) -> None:
    (tmp_path / "test.csv").write_text("".join(f"v{i}.mp4{separator}{i}\n" for i in range(3)))
    np.save(tmp_path / "a.npy", np.eye(3))
    assert told(capsys, str(tmp_path / "a.npy"), "--list", str(tmp_path / "test.csv"))["merged"]["top1"] == 100


def test_a_list_that_names_none_of_the_videos_is_refused(runs: list[str], tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("other.mp4 0\n")
    with pytest.raises(ConfigError, match=r"--search \(.*val\.csv\) names none of the 200 videos"):
        main([*runs, "--search", str(tmp_path / "val.csv")])


def test_the_search_takes_another_split(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = [run_file(tmp_path / f"val{i}.npz", 10 + i, noise=1 + i / 2, start=1000) for i in range(3)]
    said = told(capsys, *runs, "--search_scores", *other)
    assert (said["videos"], said["search"]["videos"]) == (200, 200)


def test_a_search_on_what_is_reported_is_refused(runs: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--search_scores hold 200 of the videos that are reported, first v/0\.mp4"):
        main([*runs, "--search_scores", *runs])


def test_cross_fitting_reports_all_videos(runs: list[str], capsys: pytest.CaptureFixture) -> None:
    said = told(capsys, *runs, "--folds", "4", "--step", "0.1")
    assert said["videos"] == 200
    assert len(said["folds"]) == 4
    assert sum(fold["videos"] for fold in said["folds"]) == 200


def test_cross_fitting_does_not_see_what_it_reports(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Two members without knowledge: weights searched on the very videos pick up luck, cross-fitted ones do not."""
    chance = [run_file(tmp_path / f"{i}.npz", 50 + i, videos=60, noise=1000.0) for i in range(2)]
    fitted = told(capsys, *chance, "--folds", "5")
    weights = np.mean([fold["weights"] for fold in fitted["folds"]], axis=0)
    seen = told(capsys, *chance, "--weights", *map(str, [m["weight"] for m in fitted["members"]]))
    assert fitted["merged"]["top1"] <= seen["merged"]["top1"]
    assert weights.sum() == pytest.approx(1)


def test_temperatures_are_found_where_weights_are(runs: list[str], capsys: pytest.CaptureFixture) -> None:
    said = told(capsys, *runs, "--search", "0.5", "--temperature", "auto")
    assert [m["temperature"] for m in said["members"]] != [1, 1, 1]


def test_the_same_seed_gives_the_same_numbers(runs: list[str], capsys: pytest.CaptureFixture) -> None:
    one, two, other = (told(capsys, *runs, "--search", "0.5", "--seed", seed) for seed in "332")
    assert one == two
    assert one["merged"] != other["merged"]


def test_two_orders_of_kinetics_400_are_matched_by_their_names(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The published order and the alphabetical one also spell some names differently."""
    umt, alphabetical = labels.names_of("k400_umt"), labels.names_of("k400")
    place = labels.numbers("k400_umt")
    order = [place[labels.plain(name)] for name in alphabetical]
    logits = np.random.default_rng(0).standard_normal((3, 400))
    for name, names, columns, label in (
        ("a", umt, range(400), [0, 17, 399]),
        ("b", alphabetical, order, [order.index(y) for y in (0, 17, 399)]),
    ):
        np.savez(
            tmp_path / name, scores=logits[:, list(columns)], labels=label, paths=["x", "y", "z"], class_names=names
        )
    alone = told(capsys, str(tmp_path / "a.npz"))
    both = told(capsys, str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    assert both["merged"] == alone["merged"]
    assert both["cross_entropy"] == pytest.approx(alone["cross_entropy"])
    assert "numbers its classes in another order" in both["notes"][0]


def test_scores_without_labels_are_fused_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in "ab":
        np.savez(tmp_path / name, scores=np.eye(3), paths=["x", "y", "z"])
    assert main([str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--output", str(tmp_path / "o.npz")]) == 0
    assert "3 videos, none with a label: no accuracy." in capsys.readouterr().out
    assert ViewScores.load(tmp_path / "o.npz").labels.tolist() == [-1, -1, -1]


@pytest.fixture
def several(tmp_path: Path) -> list[str]:
    """Two tests of a multi-label list."""
    truth = np.random.default_rng(5).random((60, K)) < 0.3
    files = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        scores = ViewScores(
            rows=range(60), labels=truth, paths=[f"v/{i}.mp4" for i in range(60)], clips=2, crops=1, classes=K
        )
        for row in range(60):
            scores.add_video(row, 2.0 * truth[row] - 1 + random.standard_normal((2, 1, K)))
        files.append(tmp_path / f"several{seed}.npz")
        scores.save(files[-1])
    return [str(file) for file in files]


def test_tests_of_a_multi_label_list_are_fused(
    several: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = told(capsys, *several, "--output", str(tmp_path / "o.npz"))
    fused = ViewScores.load(tmp_path / "o.npz")
    assert fused.multi_label
    summary = summarise_multi_label(fused)
    assert content["merged"] == pytest.approx(dataclasses.asdict(summary.merged))
    parts = [merge_sigmoids(ViewScores.load(file).logits) for file in several]
    np.testing.assert_allclose(merge_sigmoids(fused.logits), sum(parts) / 2, rtol=1e-4)
    assert content["gain_interval"][0] <= content["gain"] <= content["gain_interval"][1]


@pytest.mark.parametrize("flag", ["--search", "--folds"])
def test_weights_are_not_searched_on_a_multi_label_list(several: list[str], flag: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag} searches weights for tests with one class per video"):
        main([*several, flag, "0.5" if flag == "--search" else "3"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--search", "0.5", "--folds", "3"], "--search and --folds both say where weights are searched"),
        (["--weights", "1", "1", "1", "--folds", "3"], "--weights are given, so --folds has nothing to search for"),
        (["--folds", "1"], r"--folds \(1\) must be at least 2"),
        (["--search", "1.5"], r"--search \(1\.5\) must be a list, or a fraction between 0 and 1"),
        (["--search_scores", "a"], "--search_scores has 1 files for 3 members"),
        (["--temperature", "auto"], "--temperature auto needs videos to be fitted on"),
        (["--temperature", "0"], r"--temperature \(0\) must be auto, one number above 0, or 3"),
        (["--output", "fused.txt"], r"--output \(fused\.txt\) must end in \.npz"),
        (["--step", "2"], r"--step \(2\) must be above 0"),
        (["--seed", "-1"], r"--seed \(-1\) must be at least 0"),
        (["--weigths", "1"], "there is no flag --weigths. Did you mean --weights"),
    ],
)
def test_flags_that_cannot_be_are_a_sentence(runs: list[str], flags: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        main([*runs, *flags])


def test_the_wrong_number_of_weights_is_a_sentence(runs: list[str]) -> None:
    with pytest.raises(ScoresError, match=r"--weights \(1 2\) must be 3 numbers"):
        main([*runs, "--weights", "1", "2"])


def test_no_files_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="umt ensemble takes score files"):
        main([])


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--list", "none/l.csv"], r"--list \(none/l\.csv\) is not an existing list\. Check the path"),
        (["--search", "none/l.csv"], r"--search \(none/l\.csv\) is neither a fraction nor an existing list"),
        (["--step", "0"], r"--step \(0\) must be above 0 and at most 1"),
        (["http://127.0.0.1:9/x.npz"], r"^http://127\.0\.0\.1:9/x\.npz is a URL, .*Download it first"),
    ],
)
def test_a_mistake_is_told_with_our_own_flag(runs: list[str], argv: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        main([*runs[:2], *argv] if argv[0].startswith("--") else [runs[0], *argv])
