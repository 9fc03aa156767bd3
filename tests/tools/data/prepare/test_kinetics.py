"""`umt data prepare k400|k600|k700|k710`: official files in every form, videos under every usual name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tools.data.prepare.conftest import Tree, kinetics_csv
from umt.data import labels
from umt.data.lists.reading import read_list
from umt.errors import AnnotationError, ConfigError, OutputError
from umt.tools.data.prepare import prepare

TRAIN = [("abseiling", "0wR5jVB-WPk", 417, 427), ("yoga", "a_b-c_d-e_f", 5, 15), ("zumba", "-1234567890", 0, 10)]
VAL = [("abseiling", "valvalvalv1", 1, 11), ("petting animal (not cat)", "valvalvalv2", 2, 12)]
TEST = [("yoga", "testtesttes", 3, 13)]
NAMES = {
    "abseiling/0wR5jVB-WPk_000417_000427.mp4", "yoga/a_b-c_d-e_f_000005_000015.mp4",
    "zumba/-1234567890_000000_000010.mp4", "abseiling/valvalvalv1_000001_000011.mp4",
    "petting animal (not cat)/valvalvalv2_000002_000012.mp4",
}  # fmt: skip


@pytest.fixture
def deepmind(tmp_path: Path) -> Path:
    """The folder of the DeepMind archive: train.csv, validate.csv, test.csv, and the same as JSON beside them."""
    folder = tmp_path / "kinetics400"
    for name, rows, split in (("train", TRAIN, "train"), ("validate", VAL, "validate"), ("test", TEST, "test")):
        kinetics_csv(folder / f"{name}.csv", rows, split)
        (folder / f"{name}.json").write_text(json.dumps(as_json(rows, split)))
    return folder


def as_json(rows: list[tuple[str, str, int, int]], split: str) -> dict[str, object]:
    return {
        video: {"annotations": {"label": label, "segment": [float(a), float(b)]}, "duration": 10.0, "subset": split}
        for label, video, a, b in rows
    }


def rows_of(out: Path, split: str, order: str = "k400_umt") -> dict[str, str]:
    """Path -> class name of a written list."""
    videos = read_list(out / f"{split}.csv", separator=",")
    return {videos.path(i): labels.names_of(order)[videos.labels[i]] for i in range(len(videos))}


def test_class_folders_give_the_published_labels_and_the_share_that_was_found(
    tree: Tree, deepmind: Path, tmp_path: Path
) -> None:
    videos = tree(*(NAMES - {"yoga/a_b-c_d-e_f_000005_000015.mp4"}), "not_of_the_set.mp4")
    said = prepare("k400", videos=[videos], annotations=[deepmind], out=tmp_path / "out")
    assert "train: 2 of 3" in said
    assert "val: 2 of 2" in said
    assert rows_of(tmp_path / "out", "train") == {
        "abseiling/0wR5jVB-WPk_000417_000427.mp4": "abseiling", "zumba/-1234567890_000000_000010.mp4": "zumba",
    }  # fmt: skip
    assert "test: val again, as in published tables; --test official takes the official test list" in said
    missing = (tmp_path / "out" / "missing.txt").read_text()
    assert missing == "train\tyoga/a_b-c_d-e_f_000005_000015.mp4\tno such file\n"
    assert labels.read_names(tmp_path / "out" / "labels.txt") == labels.names_of("k400_umt")


def test_an_official_name_that_the_order_lacks_leads_to_its_row(tree: Tree, tmp_path: Path) -> None:
    kinetics_csv(tmp_path / "lists" / "train.csv", [("balloon blowing", "0wR5jVB-WPk", 417, 427)], "train")
    prepare("k400", videos=[tree("0wR5jVB-WPk.mp4")], annotations=[tmp_path / "lists"], out=tmp_path / "out")
    assert list(rows_of(tmp_path / "out", "train").values()) == ["inflating balloons"]


def test_alphabetical_labels_are_those_of_the_sorted_names(tree: Tree, deepmind: Path, tmp_path: Path) -> None:
    prepare("k400", videos=[tree(*NAMES)], annotations=[deepmind], out=tmp_path / "out", label_order="alphabetical")
    assert rows_of(tmp_path / "out", "train", "k400")["abseiling/0wR5jVB-WPk_000417_000427.mp4"] == "abseiling"
    assert (tmp_path / "out" / "train.csv").read_text().splitlines()[0] == "abseiling/0wR5jVB-WPk_000417_000427.mp4,0"
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["label_order"] == "alphabetical"


@pytest.mark.parametrize(
    "name",
    [
        "0wR5jVB-WPk_000417_000427.mp4", "part_3/0wR5jVB-WPk_000417_000427.webm", "0wR5jVB-WPk.mkv",
        "train/abseiling/0wR5jVB-WPk_417_427.mp4", "abseiling/0wR5jVB-WPk.MP4",
    ],
)  # fmt: skip
def test_a_video_is_found_under_its_usual_names(tree: Tree, deepmind: Path, tmp_path: Path, name: str) -> None:
    said = prepare("k400", videos=[tree(name)], annotations=[deepmind], out=tmp_path / "out")
    assert "train: 1 of 3" in said
    assert rows_of(tmp_path / "out", "train") == {name: "abseiling"}


def test_the_activitynet_form_gives_the_same_lists(tree: Tree, deepmind: Path, tmp_path: Path) -> None:
    other = tmp_path / "Crawler"
    kinetics_csv(other / "kinetics-400_train.csv", TRAIN, "train", activitynet=True)
    kinetics_csv(other / "kinetics-400_val.csv", VAL, "val", activitynet=True)
    (other / "kinetics-400_test.csv").write_text("youtube_id,time_start,time_end,split\ntesttesttes,3,13,test\n")
    for lists, out in ((deepmind, "one"), (other, "two")):
        prepare("k400", videos=[tree(*NAMES)], annotations=[lists], out=tmp_path / out)
    assert (tmp_path / "one" / "train.csv").read_bytes() == (tmp_path / "two" / "train.csv").read_bytes()
    assert (tmp_path / "one" / "val.csv").read_bytes() == (tmp_path / "two" / "val.csv").read_bytes()


def test_json_alone_gives_the_same_lists(tree: Tree, deepmind: Path, tmp_path: Path) -> None:
    prepare("k400", videos=[tree(*NAMES)], annotations=[deepmind], out=tmp_path / "one")
    for file in deepmind.glob("*.csv"):
        file.unlink()
    prepare("k400", videos=[tree(*NAMES)], annotations=[deepmind], out=tmp_path / "two")
    assert (tmp_path / "one" / "train.csv").read_bytes() == (tmp_path / "two" / "train.csv").read_bytes()


def test_the_same_input_gives_the_same_bytes(tree: Tree, deepmind: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        prepare("k400", videos=[tree(*NAMES)], annotations=[deepmind], out=tmp_path / out)
    for file in ("train.csv", "val.csv", "test.csv", "labels.txt", "manifest.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_lists_are_not_overwritten_without_force(tree: Tree, deepmind: Path, tmp_path: Path) -> None:
    prepare("k400", videos=[tree(*NAMES)], annotations=[deepmind], out=tmp_path / "out")
    before = (tmp_path / "out" / "train.csv").read_bytes()
    with pytest.raises(OutputError, match=r"already holds train.csv, val.csv.*Give another folder, or --force"):
        prepare("k400", videos=[tree(*NAMES)], annotations=[deepmind], out=tmp_path / "out", label_order="alphabetical")
    assert (tmp_path / "out" / "train.csv").read_bytes() == before
    prepare(
        "k400", videos=[tree(*NAMES)], annotations=[deepmind], out=tmp_path / "out", label_order="alphabetical",
        force=True,
    )  # fmt: skip
    assert (tmp_path / "out" / "train.csv").read_bytes() != before


def test_the_manifest_counts_and_hashes(tree: Tree, deepmind: Path, tmp_path: Path, clip: Path) -> None:
    prepare("k400", videos=[tree(*NAMES)], annotations=[deepmind], out=tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["splits"]["train"] | {"list_sha256": 0, "paths_and_sizes_sha256": 0} == {
        "official": 3, "found": 3, "missing": 0, "annotated_again": 0, "classes_without_videos": 397,
        "bytes": 3 * clip.stat().st_size, "list_sha256": 0, "paths_and_sizes_sha256": 0,
    }  # fmt: skip
    assert {Path(one["file"]).name for one in manifest["annotations"]} == {"train.csv", "validate.csv", "test.csv"}
    assert (manifest["data_set"], manifest["separator"], manifest["classes"]) == ("Kinetics_sparse", ",", 400)


def test_an_empty_file_is_missing_and_a_replacement_is_preferred(tree: Tree, deepmind: Path, tmp_path: Path) -> None:
    videos = tree("train/0wR5jVB-WPk_000417_000427.mp4", "replacement_for_corrupted_k400/0wR5jVB-WPk_000417_000427.mp4")
    (videos / "a_b-c_d-e_f_000005_000015.mp4").touch()
    prepare("k400", videos=[videos], annotations=[deepmind], out=tmp_path / "out")
    assert list(rows_of(tmp_path / "out", "train")) == ["replacement_for_corrupted_k400/0wR5jVB-WPk_000417_000427.mp4"]
    assert "a_b-c_d-e_f_000005_000015.mp4 is empty (0 bytes)" in (tmp_path / "out" / "missing.txt").read_text()


def test_the_official_test_list_is_taken_when_asked_for(tree: Tree, deepmind: Path, tmp_path: Path) -> None:
    videos = tree(*NAMES, "yoga/testtesttes_000003_000013.mp4")
    prepare("k400", videos=[videos], annotations=[deepmind], out=tmp_path / "one")
    prepare("k400", videos=[videos], annotations=[deepmind], out=tmp_path / "two", test="official")
    assert (tmp_path / "one" / "test.csv").read_bytes() == (tmp_path / "one" / "val.csv").read_bytes()
    assert rows_of(tmp_path / "two", "test") == {"yoga/testtesttes_000003_000013.mp4": "yoga"}


def test_what_validation_misses_is_named_once(tree: Tree, deepmind: Path, tmp_path: Path) -> None:
    said = prepare("k400", videos=[tree(*list(NAMES)[:1])], annotations=[deepmind], out=tmp_path / "out")
    assert len((tmp_path / "out" / "missing.txt").read_text().splitlines()) == 4
    assert f"4 missing, named in {tmp_path / 'out' / 'missing.txt'}" in said
    assert any("most are missing" in line for line in said)


def test_annotations_beside_the_videos_need_no_flag(tree: Tree, tmp_path: Path) -> None:
    kinetics_csv(tmp_path / "annotations" / "train.csv", TRAIN, "train")
    assert "train: 3 of 3" in prepare("k400", videos=[tree(*NAMES)], out=tmp_path / "out")


def test_without_an_annotation_it_says_what_it_looked_for(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match=r"k400: no annotation below .*empty: looked for train.csv and val"):
        prepare("k400", videos=[tree(*NAMES)], annotations=[tmp_path / "empty"], out=tmp_path / "out")


def test_of_another_data_sets_videos_it_shows_expected_and_found_names(
    tree: Tree, deepmind: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        AnnotationError,
        match=r"none of the 2 videos below .*abseiling/0wR5jVB-WPk_000417_000427.mp4; there are 1.webm and",
    ):
        prepare("k400", videos=[tree("1.webm", "2.webm")], annotations=[deepmind], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_videos_is_named(deepmind: Path, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"--videos \(.*nowhere\) is not there"):
        prepare("k400", videos=[tmp_path / "nowhere"], annotations=[deepmind], out=tmp_path / "out")
    with pytest.raises(AnnotationError, match=r"--videos \(.*kinetics400\) holds no video \(\.mp4, "):
        prepare("k400", videos=[deepmind], annotations=[deepmind], out=tmp_path / "out")


def test_a_class_of_another_edition_is_named_with_its_line(tree: Tree, tmp_path: Path) -> None:
    kinetics_csv(tmp_path / "lists" / "train.csv", [*TRAIN, ("silent disco", "abcdefghijk", 0, 10)], "train")
    with pytest.raises(AnnotationError, match=r"train.csv:5: 'silent disco' is not a class of Kinetics-400"):
        prepare("k400", videos=[tree(*NAMES)], annotations=[tmp_path / "lists"], out=tmp_path / "out")


def test_two_lists_of_one_split_are_not_chosen_between(tree: Tree, deepmind: Path, tmp_path: Path) -> None:
    kinetics_csv(deepmind / "old" / "train.csv", TRAIN[:1], "train")
    with pytest.raises(AnnotationError, match=r"k400: both .*train.csv and .*train.csv are lists of train videos"):
        prepare("k400", videos=[tree(*NAMES)], annotations=[deepmind], out=tmp_path / "out")


def test_alphabetical_order_is_for_k400(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--label_order alphabetical is for k400; k600 has only one order"):
        prepare("k600", videos=[tree(*NAMES)], out=tmp_path / "out", label_order="alphabetical")


# ---- Kinetics-710


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Annotations of the three sets, with videos that occur in several."""
    lists = tmp_path / "lists"
    rows = {
        "kinetics400": {
            "train": [("yoga", "in_all_sets", 0, 10), ("abseiling", "only_in_400", 0, 10),
                      ("yoga", "val_in_k600", 0, 10)],
            "val": [("yoga", "val_in_all_", 5, 15)], "test": [("yoga", "test_in_400", 0, 10)],
        },
        "kinetics600": {
            "train": [("yoga", "in_all_sets", 0, 10), ("chopping vegetables", "only_in_600", 0, 10),
                      ("zumba", "test_in_400", 0, 10)],
            "val": [("yoga", "val_in_k600", 0, 10), ("yoga", "val_in_all_", 5, 15)],
            "test": [("yoga", "test_in_600", 0, 10)],
        },
        "kinetics700_2020": {
            "train": [("zumba", "in_all_sets", 30, 40), ("silent disco", "only_in_700", 0, 10),
                      ("yoga", "test_in_600", 0, 10), ("silent disco", "only_in_700", 50, 60)],
            "val": [("archaeological excavation", "val_in_k700", 0, 10)], "test": [("yoga", "test_in_700", 0, 10)],
        },
    }  # fmt: skip
    for name, splits in rows.items():
        for split, clips in splits.items():
            kinetics_csv(lists / name / f"{'validate' if split == 'val' else split}.csv", clips, split)
    return lists


ALL = [
    "k400/in_all_sets_000000_000010.mp4", "k400/only_in_400_000000_000010.mp4", "k400/val_in_k600_000000_000010.mp4",
    "k400/val_in_all__000005_000015.mp4", "k400/test_in_400_000000_000010.mp4", "k600/only_in_600_000000_000010.mp4",
    "k700/in_all_sets_000030_000040.mp4", "k700/only_in_700_000000_000010.mp4", "k700/only_in_700_000050_000060.mp4",
    "k700/test_in_600_000000_000010.mp4", "k700/val_in_k700_000000_000010.mp4",
]  # fmt: skip


def test_k710_has_a_video_of_several_sets_once_and_none_that_is_tested(tree: Tree, three: Path, tmp_path: Path) -> None:
    said = prepare("k710", videos=[tree(*ALL)], annotations=[three], out=tmp_path / "out")
    assert rows_of(tmp_path / "out", "train", "k710") == {
        "k400/in_all_sets_000000_000010.mp4": "yoga", "k400/only_in_400_000000_000010.mp4": "abseiling",
        "k600/only_in_600_000000_000010.mp4": "chopping vegetables",
        "k700/only_in_700_000000_000010.mp4": "silent disco", "k700/only_in_700_000050_000060.mp4": "silent disco",
    }  # fmt: skip
    assert rows_of(tmp_path / "out", "val", "k710") == {
        "k400/val_in_all__000005_000015.mp4": "yoga", "k400/val_in_k600_000000_000010.mp4": "yoga",
        "k700/val_in_k700_000000_000010.mp4": "archaeological excavation",
    }  # fmt: skip
    assert "train: 5 of 5" in said
    assert "training clips left out, validated or tested with in some set: 3" in said
    assert "training videos in several sets: 1" in said
    assert "of which with different labels: 1" in said


def test_k710_takes_a_video_from_the_set_whose_copy_is_there(tree: Tree, three: Path, tmp_path: Path) -> None:
    prepare("k710", videos=[tree(*ALL[1:])], annotations=[three], out=tmp_path / "out")
    assert rows_of(tmp_path / "out", "train", "k710")["k700/in_all_sets_000030_000040.mp4"] == "zumba"


def test_k710_wants_the_test_lists_that_keep_videos_out_of_training(tree: Tree, three: Path, tmp_path: Path) -> None:
    (three / "kinetics600" / "test.csv").unlink()
    with pytest.raises(AnnotationError, match="k710: the validation or test list of k600 is missing"):
        prepare("k710", videos=[tree(*ALL)], annotations=[three], out=tmp_path / "out")


def test_k710_names_the_set_whose_lists_it_does_not_find(tree: Tree, three: Path, tmp_path: Path) -> None:
    (three / "kinetics600").rename(three / "six")
    with pytest.raises(AnnotationError, match=r"k710: no annotation .*looked for files of k600, with 600 in"):
        prepare("k710", videos=[tree(*ALL)], annotations=[three], out=tmp_path / "out")


def test_videos_of_several_folders_get_paths_below_the_one_that_holds_them(
    tree: Tree, three: Path, tmp_path: Path
) -> None:
    one, other = tree("k4/only_in_400.mp4", folder="disk/a"), tree("k7/only_in_700.mp4", folder="disk/b")
    said = prepare("k710", videos=[one, other], annotations=[three], out=tmp_path / "out")
    assert rows_of(tmp_path / "out", "train", "k710") == {
        "a/k4/only_in_400.mp4": "abseiling", "b/k7/only_in_700.mp4": "silent disco"
    }  # fmt: skip
    assert any(f"PREFIX={tmp_path / 'disk'}" in line for line in said)
