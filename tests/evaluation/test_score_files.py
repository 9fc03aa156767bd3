"""Score files of other codebases: each form gives the same member; what is none is refused with a sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from umt.errors import ScoresError
from umt.evaluation.ensemble import align
from umt.evaluation.fusing import ONE_CLASS, fusing
from umt.evaluation.multiview import merge
from umt.evaluation.score_files import Listed, read_scores
from umt.evaluation.scores import ViewScores

K, R = 4, 6
LOGITS = 3 * np.random.default_rng(0).standard_normal((R, K))
LABELS = np.arange(R) % K
PATHS = [f"c{i % 2}/v{i}.mp4" for i in range(R)]
NAMES = ["run", "jump, high", "swim", "größer"]


def probabilities() -> np.ndarray:
    return ONE_CLASS.values(LOGITS[:, None], "mean")


def own(path: Path, views: int = 1) -> Path:
    scores = ViewScores(
        rows=range(R), labels=LABELS.tolist(), paths=PATHS, clips=views, crops=1, classes=K, class_names=NAMES
    )
    for row in range(R):
        scores.add_video(row, np.stack([LOGITS[row] + v for v in range(views)])[:, None])
    scores.save(path)
    return path


def written(folder: Path, form: str) -> Path:
    path = folder / f"s.{form.split()[0]}"
    if form == "npz":
        np.savez(path, scores=LOGITS, labels=LABELS, paths=PATHS, class_names=NAMES)
    elif form == "npz of probabilities":
        np.savez(path, scores=probabilities(), labels=LABELS, paths=np.array(PATHS).astype("S"), class_names=NAMES)
    elif form == "json":
        path.write_text(
            json.dumps({"logits": LOGITS.tolist(), "labels": LABELS.tolist(), "paths": PATHS, "class_names": NAMES})
        )
    elif form == "csv":
        lines = ['path,label,run,"jump, high",swim,größer']
        lines += [f"{p},{y}," + ",".join(map(repr, z)) for p, y, z in zip(PATHS, LABELS, LOGITS.tolist(), strict=True)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["npz", "npz of probabilities", "json", "csv"])
def test_every_form_is_the_same_member(tmp_path: Path, form: str) -> None:
    aligned = align([read_scores(own(tmp_path / "own.npz")), read_scores(written(tmp_path, form))])
    ours, theirs = aligned.values("mean")
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
    assert aligned.members[1].class_names == tuple(NAMES)
    np.testing.assert_array_equal(aligned.members[1].labels, LABELS)


def test_json_may_map_paths_to_scores(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(dict(zip(PATHS, LOGITS.tolist(), strict=True))))
    one = read_scores(tmp_path / "s.json")
    assert one.paths == tuple(PATHS)
    np.testing.assert_array_equal(one.logits[:, 0], LOGITS)


def test_views_of_a_plain_array_are_merged(tmp_path: Path) -> None:
    views = np.stack([LOGITS, -LOGITS, LOGITS / 2], axis=1)
    np.savez(tmp_path / "s.npz", logits=views, paths=PATHS)
    merged = ONE_CLASS.values(read_scores(tmp_path / "s.npz").logits, "mean")
    np.testing.assert_array_equal(merged, merge(views[:, :, None]))


def test_a_csv_of_numbered_columns_has_no_class_names(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("path,0,1\na.mp4,0.25,0.75\n")
    one = read_scores(tmp_path / "s.csv")
    assert one.class_names == ()
    np.testing.assert_allclose(np.exp(one.logits[0, 0]), [0.25, 0.75])


def test_the_folder_of_a_test_is_its_scores(tmp_path: Path) -> None:
    own(tmp_path / "scores.npz", views=3)
    assert read_scores(tmp_path).logits.shape == (R, 3, K)


def test_a_video_that_a_test_could_not_read_has_no_vote(tmp_path: Path) -> None:
    scores = ViewScores.load(own(tmp_path / "s.npz"))
    scores.count_as_wrong(2, "truncated")
    scores.save(tmp_path / "s.npz")
    assert read_scores(tmp_path / "s.npz").unread.tolist() == [False, False, True, False, False, False]


# ---- by position alone nothing is matched


def test_an_array_without_paths_wants_a_list(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", LOGITS)
    with pytest.raises(ScoresError, match=r"s\.npy does not name its videos.*Add an array 'paths', or give --list"):
        read_scores(tmp_path / "s.npy")


def test_an_array_takes_paths_and_labels_of_the_list(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", LOGITS)
    one = read_scores(tmp_path / "s.npy", Listed("test.csv", tuple(PATHS), LABELS))
    assert one.paths == tuple(PATHS)
    np.testing.assert_array_equal(one.labels, LABELS)


def test_a_list_of_another_length_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", LOGITS)
    with pytest.raises(ScoresError, match=r"has 6 videos, --list \(test\.csv\) has 5"):
        read_scores(tmp_path / "s.npy", Listed("test.csv", tuple(PATHS[:5]), LABELS[:5]))


def test_a_list_with_other_labels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", scores=LOGITS, labels=LABELS)
    with pytest.raises(ScoresError, match=r"row 0 has label 0, in --list \(test\.csv\) 1"):
        read_scores(tmp_path / "s.npz", Listed("test.csv", tuple(PATHS), LABELS + 1))


# ---- refused


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("hostile was here"),))


@pytest.mark.parametrize("ending", ["pkl", "pickle", "pth", "npy", "npz"])
def test_nothing_is_unpickled(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"s.{ending}"
    if ending == "npy":
        np.save(file, np.array([Hostile()], object), allow_pickle=True)
    elif ending == "npz":
        np.savez(file, scores=np.array([Hostile()], object))
    else:
        file.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ScoresError, match=r"is a pickle.*Save its content as npz|as scores: Object arrays"):
        read_scores(file)
    assert not Path("hostile was here").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"scores": LOGITS[0]}, r"scores have the shape \(4,\), not"),
        ({"scores": LOGITS, "paths": PATHS[:3]}, r"3 paths for scores of the shape"),
        ({"scores": LOGITS, "paths": PATHS, "labels": [1]}, r"1 labels for scores"),
        ({"scores": LOGITS, "paths": PATHS, "class_names": ["a"]}, r"1 class_names for scores"),
        ({"scores": LOGITS * np.inf, "paths": PATHS}, r"the scores of c0/v0\.mp4 are not finite \(6 such videos\)"),
        ({"probabilities": LOGITS, "paths": PATHS}, r"probabilities must be 0 to 1 and sum to 1"),
        ({"features": LOGITS}, r"holds features, and no 'scores'"),
        ({"scores": LOGITS, "paths": np.arange(R)}, r"type int64 and not text"),
    ],
)
def test_content_that_cannot_be_is_a_sentence(tmp_path: Path, content: dict[str, object], sentence: str) -> None:
    np.savez(tmp_path / "s.npz", **content)  # type: ignore[arg-type]
    with pytest.raises(ScoresError, match=sentence):
        read_scores(tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("s.npz", "no zip", "cannot be read as scores: its content is not that of an npz file"),
        ("s.npy", "no array", "cannot be read as scores: its content is not that of an npy file"),
        ("s.npz", "", r"s\.npz is empty \(0 bytes\)"),
        ("s.json", "", r"s\.json is empty \(0 bytes\)"),
        ("s.npz", "<!DOCTYPE html><html>", r"s\.npz is a web page, not scores: the download failed"),
        ("s.csv", "\n<html>", r"s\.csv is a web page, not scores"),
        ("s.npz", "version https://git-lfs.github.com/spec/v1\n", r"is a git-lfs pointer.*Run: git lfs pull"),
        ("s.json", "{", "cannot be read as scores"),
        ("s.json", "[1, 2]", "must hold an object"),
        ("s.csv", "path,0,1\n", "needs a header"),
        ("s.csv", "path,0,1\na,1\n", "record 2 has 2 fields, the header has 3"),
        ("s.csv", "path,0,1\na,1,x\n", "could not convert string to float"),
        ("s.xls", "", r"scores cannot be read from '\.xls'"),
    ],
)
def test_a_file_that_is_none_is_a_sentence(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ScoresError, match=sentence):
        read_scores(tmp_path / name)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_a_sentence(tmp_path: Path, share: float) -> None:
    data = own(tmp_path / "s.npz").read_bytes()
    (tmp_path / "s.npz").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ScoresError, match=r"s\.npz is not whole: its end is missing\. Copy it again"):
        read_scores(tmp_path / "s.npz")


def test_a_compressed_file_that_is_damaged_is_a_sentence(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "s.npz", scores=LOGITS, paths=PATHS)
    data = bytearray((tmp_path / "s.npz").read_bytes())
    data[60:120] = bytes(60)
    (tmp_path / "s.npz").write_bytes(data)
    with pytest.raises(ScoresError, match=r"s\.npz is not whole: .*Copy it again"):
        read_scores(tmp_path / "s.npz")


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match=r"none\.npz does not exist"):
        read_scores(tmp_path / "none.npz")


def test_a_folder_without_scores_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScoresError, match=r"holds no scores\.npz, and no 0\.txt"):
        read_scores(tmp_path)


# ---- several labels a video

SETS = (LOGITS > 0).astype(int)


@pytest.mark.parametrize("name", ["logits", "probabilities", "scores"])
def test_labels_of_every_class_make_a_multi_label_member(tmp_path: Path, name: str) -> None:
    kind = fusing(multi_label=True)
    values = LOGITS if name == "logits" else kind.probability(LOGITS)
    np.savez(tmp_path / "s.npz", **{name: values}, labels=SETS, paths=PATHS)
    member = read_scores(tmp_path / "s.npz")
    assert member.fusing is kind
    np.testing.assert_allclose(kind.values(member.logits, "mean"), kind.probability(LOGITS), rtol=1e-9)


def test_a_test_of_a_multi_label_list_is_a_multi_label_member(tmp_path: Path) -> None:
    scores = ViewScores(rows=range(R), labels=SETS, paths=PATHS, clips=2, crops=1, classes=K)
    for row in range(R):
        scores.add_video(row, np.stack([LOGITS[row]] * 2)[:, None])
    scores.save(tmp_path / "s.npz")
    member = read_scores(tmp_path / "s.npz")
    np.testing.assert_array_equal(member.labels, SETS)
    assert member.logits.shape == (R, 2, K)


def test_labels_of_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", scores=LOGITS, labels=SETS[:, 1:], paths=PATHS)
    with pytest.raises(ScoresError, match=r"labels of the shape \(6, 3\) for scores of the shape \(6, 1, 4\)"):
        read_scores(tmp_path / "s.npz")


def test_probabilities_of_several_classes_are_0_to_1(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", probabilities=LOGITS, labels=SETS, paths=PATHS)
    with pytest.raises(ScoresError, match="probabilities must be 0 to 1; save logits as 'logits'"):
        read_scores(tmp_path / "s.npz")


# ---- the original's result files


def originals(folder: Path, ranks: int = 2, *, twice: bool = True) -> None:
    """Two clips x one crop of every video, dealt to ranks; the sampler's padding repeats a view."""
    lines = [f"v{i} {[float(x) for x in LOGITS[i] + clip]} {LABELS[i]} {clip} 0\n" for clip in (0, 1) for i in range(R)]
    for rank in range(ranks):
        share = lines[rank::ranks] + (lines[:1] if twice else [])
        (folder / f"{rank}.txt").write_text("87.5, 100.0\n" + "".join(share))


def test_the_originals_files_are_that_member(tmp_path: Path) -> None:
    originals(tmp_path)
    aligned = align([read_scores(own(tmp_path / "own.npz", views=2)), read_scores(tmp_path)])
    ours, theirs = aligned.values("mean")
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
    assert aligned.notes == ("videos are matched by file name up to the first dot",)


def test_a_rank_that_is_missing_is_named(tmp_path: Path) -> None:
    originals(tmp_path, ranks=3)
    (tmp_path / "1.txt").unlink()
    with pytest.raises(ScoresError, match=r"has 2\.txt but no 1\.txt"):
        read_scores(tmp_path)


def test_a_view_that_is_missing_is_named(tmp_path: Path) -> None:
    originals(tmp_path, ranks=5, twice=False)
    with pytest.raises(ScoresError, match=r"0\.txt: v0 has 1 of 2 views, clip 1, crop 0 is missing"):
        read_scores(tmp_path / "0.txt")


def test_two_videos_of_one_name_are_refused(tmp_path: Path) -> None:
    originals(tmp_path)
    with (tmp_path / "1.txt").open("a") as file:
        file.write(f"v0 {[0.0] * K} 0 0 0\n")
    with pytest.raises(ScoresError, match=r"1\.txt:\d+: there are two videos 'v0'"):
        read_scores(tmp_path)


def test_a_line_that_is_cut_is_named(tmp_path: Path) -> None:
    originals(tmp_path, ranks=1)
    file = tmp_path / "0.txt"
    file.write_text(file.read_text()[:-30])
    with pytest.raises(ScoresError, match=r"0\.txt:14: this is not a line of the original's results"):
        read_scores(tmp_path)


def test_names_with_brackets_and_spaces_are_names(tmp_path: Path) -> None:
    (tmp_path / "0.txt").write_text("0, 0\na [b] c [1.0, 2.0] 1 0 0\n")
    one = read_scores(tmp_path)
    assert one.paths == ("a [b] c",)
    assert one.logits.tolist() == [[[1.0, 2.0]]]
