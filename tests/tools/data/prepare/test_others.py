"""`umt data prepare ssv2|mitv1|ucf101|hmdb51|folder`, and the lists as runs read them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.data.prepare.conftest import Tree, kinetics_csv
from tests.videos import played
from umt.data import labels
from umt.data.lists.reading import read_list
from umt.data.loading.clips import TrainClips, Videos
from umt.data.sampling import training_sampler
from umt.data.storage.presence import missing_files
from umt.data.transforms.pipelines import FinetuneTransform
from umt.errors import AnnotationError, ConfigError
from umt.tasks.classify.flags import FinetuneDataConfig
from umt.tools.data.prepare import DATASETS, main, prepare


def rows_of(file: Path, order: str, separator: str = " ") -> dict[str, str]:
    videos = read_list(file, separator=separator)
    return {videos.path(i): labels.names_of(order)[videos.labels[i]] for i in range(len(videos))}


# ---- Something-Something V2


@pytest.fixture
def ssv2(tmp_path: Path) -> Path:
    """The label files of the second release."""
    folder = tmp_path / "ssv2_labels"
    folder.mkdir()
    train = [
        {"id": "78687", "label": "holding potato next to vicks vaporub bottle",
         "template": "Holding [something] next to [something]", "placeholders": ["potato", "vicks vaporub bottle"]},
        {"id": "42326", "label": "spinning cube that quickly stops spinning",
         "template": "Spinning [something] that quickly stops spinning", "placeholders": ["cube"]},
    ]  # fmt: skip
    val = [{"id": "74225", "template": "Poking a hole into [some substance]", "placeholders": ["sand"]}]
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "validation.json").write_text(json.dumps(val))
    (folder / "labels.json").write_text(json.dumps({"Approaching something with your camera": "0"}))
    (folder / "test.json").write_text(json.dumps([{"id": "1420"}]))
    (folder / "test-answers.csv").write_text("1420;Approaching something with your camera\n")
    return folder


def test_ssv2_templates_without_brackets_are_the_classes(tree: Tree, ssv2: Path, tmp_path: Path) -> None:
    videos = tree("20bn/78687.webm", "20bn/74225.webm", "20bn/1420.webm")
    said = prepare("ssv2", videos=[videos], annotations=[ssv2], out=tmp_path / "out")
    assert {"train: 1 of 2", "val: 1 of 1"} <= set(said)
    assert rows_of(tmp_path / "out/train.csv", "ssv2") == {"20bn/78687.webm": "Holding something next to something"}
    assert rows_of(tmp_path / "out/test.csv", "ssv2") == {"20bn/74225.webm": "Poking a hole into some substance"}


def test_ssv2_test_answers_make_an_official_test_list(tree: Tree, ssv2: Path, tmp_path: Path) -> None:
    prepare("ssv2", videos=[tree("1420.mp4")], annotations=[ssv2], out=tmp_path / "out", test="official")
    assert (tmp_path / "out/test.csv").read_text() == "1420.mp4 0\n"


def test_ssv2_labels_in_another_order_are_refused(tree: Tree, ssv2: Path, tmp_path: Path) -> None:
    (ssv2 / "labels.json").write_text(json.dumps({"Approaching something with your camera": "7"}))
    with pytest.raises(AnnotationError, match=r"labels.json gives 'Approaching .*' the label 7, the published order 0"):
        prepare("ssv2", videos=[tree("78687.webm")], annotations=[ssv2], out=tmp_path / "out")


def test_folders_of_frames_are_listed_with_their_number(tree: Tree, ssv2: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames" / "78687"
    frames.mkdir(parents=True)
    for number in range(1, 4):
        (frames / f"img_{number:05}.jpg").touch()
    prepare("ssv2", videos=[tmp_path / "frames"], annotations=[ssv2], out=tmp_path / "out", frame_folders=True)
    listed = read_list(tmp_path / "out/train.csv", frame_folders=True)
    assert (listed.path(0), listed.num_frames.tolist()) == ("78687", [3])


# ---- Moments in Time


def test_mit_files_of_one_name_are_told_apart_by_their_class(tree: Tree, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "trainingSet.csv").write_text(
        "adult+female+singing/yt-1.mp4,adult+female+singing,3,0\nclapping/yt-1.mp4,clapping,4,1\n"
    )
    (lists / "validationSet.csv").write_text("clapping/yt-2.mp4,clapping,3,0\npraying/yt-3.mp4,praying,3,0\n")
    (lists / "moments_categories.txt").write_text("clapping,0\npraying,1\n")
    videos = tree(
        "training/adult+female+singing/yt-1.mp4", "training/clapping/yt-1.mp4", "validation/clapping/yt-2.mp4",
        "validation/a/yt-3.mp4", "validation/b/yt-3.mp4",
    )  # fmt: skip
    prepare("mitv1", videos=[videos], annotations=[lists], out=tmp_path / "out")
    assert rows_of(tmp_path / "out/train.csv", "mitv1") == {
        "training/adult+female+singing/yt-1.mp4": "adult+female+singing", "training/clapping/yt-1.mp4": "clapping",
    }  # fmt: skip
    assert rows_of(tmp_path / "out/val.csv", "mitv1") == {"validation/clapping/yt-2.mp4": "clapping"}
    assert "2 files have that name, none in a folder praying" in (tmp_path / "out/missing.txt").read_text()


# ---- UCF101 and HMDB51


def test_ucf_split_files_give_the_chosen_split(tree: Tree, tmp_path: Path) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    for number, (train, test) in enumerate([("g08", "g01"), ("g01", "g08")], 1):
        (lists / f"trainlist0{number}.txt").write_text(f"ApplyEyeMakeup/v_ApplyEyeMakeup_{train}_c01.avi 1\r\n")
        (lists / f"testlist0{number}.txt").write_text(f"ApplyEyeMakeup/v_ApplyEyeMakeup_{test}_c01.avi\r\n")
    videos = tree("UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "v_ApplyEyeMakeup_g01_c01.mp4")
    for number in (1, 2):
        prepare("ucf101", videos=[videos], annotations=[lists], out=tmp_path / f"out{number}", split=number)
    assert (tmp_path / "out1/train.csv").read_text() == "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 0\n"
    assert (tmp_path / "out2/train.csv").read_text() == "v_ApplyEyeMakeup_g01_c01.mp4 0\n"
    assert (tmp_path / "out1/test.csv").read_bytes() == (tmp_path / "out2/train.csv").read_bytes()


def test_hmdb_split_files_say_what_trains_and_what_tests(tree: Tree, tmp_path: Path) -> None:
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    (lists / "brush_hair_test_split1.txt").write_text("April #20 (1)_brush_hair.avi 1 \nb.avi 2 \nc.avi 0 \n")
    videos = tree("brush_hair/April #20 (1)_brush_hair.avi", "brush_hair/b.avi", "brush_hair/c.avi")
    said = prepare("hmdb51", videos=[videos], annotations=[lists], out=tmp_path / "out")
    assert rows_of(tmp_path / "out/train.csv", "hmdb51") == {"brush_hair/April #20 (1)_brush_hair.avi": "brush_hair"}
    assert rows_of(tmp_path / "out/val.csv", "hmdb51") == {"brush_hair/b.avi": "brush_hair"}
    assert "classes without a split file: 50" in said


@pytest.mark.parametrize(
    ("dataset", "looked_for"),
    [
        ("ssv2", "train.json and validation.json"), ("mitv1", "trainingSet.csv and validationSet.csv"),
        ("ucf101", "trainlist01.txt and testlist01.txt"), ("hmdb51", "brush_hair_test_split1.txt"),
    ],
)  # fmt: skip
def test_every_data_set_says_what_it_looked_for(tree: Tree, tmp_path: Path, dataset: str, looked_for: str) -> None:
    with pytest.raises(AnnotationError, match=f"{dataset}: no annotation in or next to .*looked for .*{looked_for}"):
        prepare(dataset, videos=[tree("a.mp4")], out=tmp_path / "out")


# ---- a folder per class


def test_a_folder_per_class_becomes_lists_and_class_names(tree: Tree, tmp_path: Path) -> None:
    videos = tree(*(f"{name}/{i}.mp4" for name in ("juggling", "Cooking") for i in range(12)))
    said = prepare("folder", videos=[videos], out=tmp_path / "out")
    assert labels.read_names(tmp_path / "out/labels.txt") == ("Cooking", "juggling")
    train, val = (read_list(tmp_path / f"out/{split}.csv", separator=",") for split in ("train", "val"))
    assert (len(train), len(val)) == (20, 4)
    assert not {train.path(i) for i in range(20)} & {val.path(i) for i in range(4)}
    assert all((train.path(i).split("/")[0] == "juggling") == train.labels[i] for i in range(20))
    assert any("--nb_classes 2" in line for line in said)


def test_train_and_val_folders_stay_what_they_are(tree: Tree, tmp_path: Path) -> None:
    prepare("folder", videos=[tree("train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4")], out=tmp_path / "out")
    assert (tmp_path / "out/train.csv").read_text() == "train/a/1.mp4,0\ntrain/b/2.mp4,1\n"
    assert (tmp_path / "out/val.csv").read_text() == (tmp_path / "out/test.csv").read_text() == "val/a/3.mp4,0\n"


# ---- what comes out


@pytest.mark.parametrize("name", ["a,b;c", 'say "x"', "ünï cödé", "a b", "#1 & (2) [3]"])
def test_odd_names_come_back_from_the_list_as_they_are(tree: Tree, tmp_path: Path, name: str) -> None:
    videos = tree(f"train/{name}/{name}.mp4", f"val/{name}/{name}.mp4")
    prepare("folder", videos=[videos], out=tmp_path / "out")
    listed = read_list(tmp_path / "out/train.csv", separator=",", prefix=str(videos))
    assert listed.path(0) == f"train/{name}/{name}.mp4"
    assert missing_files(listed) == []


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"a\nb.mp4"])
def test_a_name_that_no_list_can_hold_is_missing_with_its_cause(tree: Tree, tmp_path: Path, name: bytes) -> None:
    videos = tree("train/a/1.mp4", "val/a/2.mp4")
    shutil.copy(videos / "val/a/2.mp4", os.fsencode(videos / "train/a") + b"/" + name)
    prepare("folder", videos=[videos], out=tmp_path / "out")
    assert (tmp_path / "out/train.csv").read_text() == "train/a/1.mp4,0\n"
    assert b"its path is not UTF-8, has a line end in it or spaces" in (tmp_path / "out/missing.txt").read_bytes()


def test_a_run_reads_the_frames_of_a_prepared_list(tree: Tree, tmp_path: Path, clip: Path) -> None:
    videos = tree("0wR5jVB-WPk_000417_000427.mp4")
    kinetics_csv(tmp_path / "lists/train.csv", [("yoga", "0wR5jVB-WPk", 417, 427)], "train")
    prepare("k400", videos=[videos], annotations=[tmp_path / "lists"], out=tmp_path / "out")
    listed = read_list(tmp_path / "out/train.csv", separator=",", prefix=str(videos), num_classes=400)
    clips = TrainClips(Videos(listed), training_sampler("sparse", 8), FinetuneTransform(32, ""), seed=0)
    samples, failures = clips.read(0, 0)
    assert not failures
    assert samples[0].video.shape == (len(played(clip)), 32, 32, 3)
    assert labels.names_of("k400_umt")[samples[0].label] == "yoga"


def test_links_are_followed_once(tree: Tree, tmp_path: Path) -> None:
    videos = tree("train/a/1.mp4", "val/a/2.mp4")
    (videos / "train" / "again").symlink_to(videos)
    kinetics_csv(tmp_path / "lists/train.csv", [("yoga", "0wR5jVB-WPk", 417, 427)], "train")
    tree("0wR5jVB-WPk.mp4", folder="elsewhere")
    (videos / "linked").symlink_to(tmp_path / "elsewhere")
    prepare("k400", videos=[videos], annotations=[tmp_path / "lists"], out=tmp_path / "out")
    assert (tmp_path / "out/train.csv").read_text().startswith("linked/0wR5jVB-WPk.mp4,")


def test_the_command_needs_no_torch_and_prints_the_shares(tree: Tree, tmp_path: Path) -> None:
    kinetics_csv(tmp_path / "annotations/val.csv", [("yoga", "0wR5jVB-WPk", 417, 427)], "val")
    code = "import sys; from umt.__main__ import run; run(sys.argv[1:]); assert 'torch' not in sys.modules"
    words = ["data", "prepare", "k400", "--videos", str(tree("0wR5jVB-WPk.mp4")), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\nval: 1 of 1\n" in done.stdout


def test_a_misspelt_data_set_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'ucf-101' is not a data set. Did you mean ucf101\?"):
        main(["ucf-101", "--videos", str(tmp_path), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("dataset", [name for name, target in DATASETS.items() if target.scripts])
def test_the_scripts_read_lists_as_they_are_written(dataset: str) -> None:
    target = DATASETS[dataset]
    scripts = sorted((Path(__file__).parents[4] / target.scripts).glob("*.sh"))
    assert scripts
    for script in scripts:
        words = shlex.split(script.read_text(), comments=True)
        split = words[words.index("--split") + 1] if "--split" in words else FinetuneDataConfig().split
        assert (words[words.index("--data_set") + 1], split) == (target.data_set, target.separator)
