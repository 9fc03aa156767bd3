"""`umt data show`: the page holds what a run would see, opens in a real browser, and survives hostile lists."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import browser
from tests.data.loading.test_pool import hanging
from tests.videos import played, render
from umt.data import sampling
from umt.drawing import masked
from umt.errors import AnnotationError, ConfigError
from umt.models import create_model
from umt.randomness import generator
from umt.tasks.base.shown import Shown
from umt.tools.data import command
from umt.tools.data.show.look import Seen, choose, look
from umt.tools.data.show.plan import resolve

HOSTILE = "<script>document.title='run'</script><img src=x onerror=alert(1)>"
NAMES = ("juggling", HOSTILE, "猫 & $x^2$", "never seen")
FINETUNE = ["--input_size", "32", "--num_frames", "4", "--data_set", "Kinetics_sparse"]
PRETRAIN = ["--model", "pretrain_umt_tiny_patch8_64", "--input_size", "64", "--clip_input_resolution", "64",
            "--clip_teacher", "clip_tiny_patch8_64", "--clip_return_layer", "2", "--num_frames", "8",
            "--mask_ratio", "0.75", "--flip"]  # fmt: skip


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 7 videos of 3 of 4 classes; one has a hostile name, one is empty, one's name is no UTF-8."""
    folder = tmp_path_factory.mktemp("list")
    names = [HOSTILE.replace("/", "_") + ".mp4", 'it\'s a "name".mp4', *(f"v{i}.mp4" for i in range(3)), "empty.mp4"]
    for i, name in enumerate(names):
        render(folder / name, frames=20 + i, width=64 + 16 * (i % 2), fps=24 + 6 * (i % 2), label=i % 3)
    (folder / "empty.mp4").write_bytes(b"")
    strange = os.fsencode(folder) + b"/caf\xe9.mp4"
    (folder / "v0.mp4").with_suffix(".copy").write_bytes((folder / "v0.mp4").read_bytes())
    os.rename(folder / "v0.copy", strange)
    with open(folder / "train.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([name, i % 3] for i, name in enumerate(names))
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return folder


def shown(listed: Path, *flags: str, task: str | None = None) -> Shown:
    return resolve(str(listed / "train.csv"), flags, task=task)


def seen(what: Shown, clips: int = 6) -> Seen:
    return look(what, clips=clips, files=100, processes=1)


@pytest.mark.skipif(browser.PROGRAM is None, reason=browser.WITHOUT)
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("task", "flags"), [("finetune", FINETUNE), pytest.param("pretrain", PRETRAIN, marks=pytest.mark.slow)]
)
def test_the_page_opens_in_a_browser_with_all_its_pictures_and_nothing_else(
    listed: Path, task: str, flags: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    words = ["show", str(listed / "train.csv"), "--as", task, "--out", str(page), "--processes", "1"]
    assert command.main([*words, *flags]) == 0
    assert "6 videos, 4 classes; 6 opened, 1 of them unreadable; a clip takes" in capsys.readouterr().out
    visit = browser.visit(page, tmp_path / "profile")
    assert (visit.complaints, visit.requests) == ([], [])
    assert len(visit.pictures) == 3 + 5 * (3 if task == "finetune" else 1)  # classes, lengths, sizes; 5 videos
    assert all(width > 0 for _, width in visit.pictures)
    for text in (HOSTILE, HOSTILE.replace("/", "_"), "猫 & $x^2$", "it's a \"name\".mp4", "1 without any: never seen.",
                 "empty.mp4: cannot be read as a video (0 bytes)"):  # fmt: skip
        assert text in visit.text


@pytest.mark.skipif(browser.PROGRAM is None, reason=browser.WITHOUT)
@pytest.mark.slow
def test_the_browser_tells_of_a_page_that_is_not_whole(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<script>throw 3</script><img src="gone.png" alt="a"><img src="data:image/png;base64,AA" alt="b">')
    visit = browser.visit(page, tmp_path / "profile")
    assert visit.pictures == [("a", 0), ("b", 0)]
    assert "Uncaught" in visit.complaints
    assert visit.requests == [(tmp_path / "gone.png").as_uri()]


def test_the_clips_are_those_of_a_run_and_their_numbers_tell_which_frames(listed: Path) -> None:
    what = shown(listed, *FINETUNE, "--aa", "none", "--reprob", "0", "--crop_scale", "1", "1")
    found = seen(what)
    assert sorted(clip.row for clip in found.clips) == [0, 1, 2, 3, 4]
    for clip in found.clips:
        one, two, validation = clip.strips
        samples, _ = what.train.read(0, clip.row)
        for strip, sample in zip((one, two), samples, strict=True):
            np.testing.assert_array_equal(strip.frames, sample.video)
        length = 20 + clip.row
        assert one.numbers == sampling.sparse_train(length, 4, generator(0, 0, clip.row, "frames")).tolist()
        assert validation.numbers == sampling.sparse_val(length, 4).tolist()
        whole = played(Path(what.videos.file(clip.row)))[validation.numbers]
        assert abs(validation.frames.mean((1, 2)) - whole[:, :, 8:-8].mean((1, 2))).max() < 20


def test_erased_rectangles_are_shown_as_the_model_gets_them(listed: Path) -> None:
    plain, erased = (
        seen(shown(listed, *FINETUNE, "--aa", "none", "--reprob", probability, "--remode", "const"), clips=1)
        for probability in ("0", "1")
    )
    (before, *_), (after, *_) = plain.clips[0].strips, erased.clips[0].strips
    changed = (before.frames != after.frames).any((0, 3))
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    inside = after.frames[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert (inside == np.array([124, 116, 104])).all()  # ImageNet's mean colour
    assert 0.01 < changed.mean() < 0.5


def test_the_mask_follows_the_teacher_where_there_is_one(listed: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(create_model("clip_tiny_patch8_64").state_dict(), tmp_path / "teacher.pth")
    blind = seen(shown(listed, *PRETRAIN, task="pretrain"), clips=2)
    guided = seen(shown(listed, *PRETRAIN, "--clip_teacher_weights", str(tmp_path / "teacher.pth"), task="pretrain"), 2)
    assert "Without --clip_teacher_weights there is no attention to follow" in blind.notes[0]
    assert guided.notes == ["The masks follow the attention of the teacher, as in the run."]
    for one, other in zip(blind.clips, guided.clips, strict=True):
        for strip in (one.strips[0], other.strips[0]):
            assert strip.visible is not None
            assert strip.visible.sum((1, 2)).tolist() == [16] * 8  # a quarter of 8 x 8 tokens in each frame
        assert (one.strips[0].visible != other.strips[0].visible).any()


@pytest.mark.slow
def test_the_mask_follows_a_teacher_of_timm_s(listed: Path, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.pth")
    named = ["--clip_teacher", "timm:vit_tiny_patch16_224", "--clip_input_resolution", "128"]
    file = ["--clip_teacher_weights", str(tmp_path / "vit.pth")]
    guided = seen(shown(listed, *PRETRAIN, *named, *file, task="pretrain"), clips=1)
    assert guided.notes == ["The masks follow the attention of the teacher, as in the run."]


def test_a_masked_picture_keeps_visible_patches_and_greys_the_others() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    visible = np.zeros((2, 2, 2), bool)
    visible[0, 1, 0] = True
    picture = masked(frames, visible)
    np.testing.assert_array_equal(picture[0, 4:, :4], frames[0, 4:, :4])
    assert (picture[0, :4] == picture[0, :4, :, :1]).all()


def test_separator_prefix_and_classes_need_no_flags(listed: Path) -> None:
    what = shown(listed, *FINETUNE)
    assert what.title == "finetuning"
    assert (what.config.data.split, what.videos.prefix, what.classes) == (",", str(listed), 4)
    assert what.names == NAMES


def test_a_list_without_labels_is_read_as_for_pretraining(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text(f"{listed}/v1.mp4\n{listed}/v2.mp4\n")
    what = resolve(str(tmp_path / "all.txt"), ["--num_frames", "8"])
    assert (what.title, what.classes, len(what.videos)) == ("pretraining", 0, 2)


def test_a_folder_per_class_is_shown(listed: Path, tmp_path: Path) -> None:
    for name in ("cooking", "juggling"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.mp4").symlink_to(listed / "v1.mp4")
    what = resolve(str(tmp_path), FINETUNE[:4])
    assert what.names == ("cooking", "juggling")
    assert len(what.videos) == 4  # one of each class is held out


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_videos_that_cannot_be_read_are_listed_and_do_not_stop_it(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "v1.mp4").symlink_to(listed / "v1.mp4")
    hanging(tmp_path / "endless.mp4")
    (tmp_path / "train.csv").write_text("v1.mp4,0\nendless.mp4,1\ngone.mp4,1\n")
    found = seen(shown(tmp_path, *FINETUNE, "--decode_timeout", "1"))
    causes = {file.row: file.cause for file in found.files}
    assert causes[0] == ""
    assert "--decode_timeout 1 seconds" in causes[1]
    assert "no such file" in causes[2]
    assert [clip.row for clip in found.clips] == [0]


def test_a_class_has_its_second_turn_after_all_others_had_their_first() -> None:
    labels = np.array([5, 5, 5, 7, 7, 9])
    assert choose([0, 1, 2, 3, 4, 5], labels, 4) == [0, 3, 5, 1]
    assert choose([2, 1], np.array([-1, -1, -1]), 5) == [2, 1]


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        (["nowhere.csv"], AnnotationError, "nowhere.csv does not exist"),
        (["pretrain", "--num_frames", "8"], AnnotationError, "--data_path is missing"),
        (["pretrain", "--as", "finetune"], ConfigError, "is for a LIST"),
        (["x.csv", "--clips", "0"], ConfigError, r"--clips \(0\) must be at least 1"),
        (["LIST", "--num_framse", "8"], ConfigError, "There is no flag --num_framse. Did you mean --num_frames"),
    ],
)
def test_mistakes_are_said_in_a_sentence(words: list[str], error: type[Exception], sentence: str, listed: Path) -> None:
    words = [str(listed / "train.csv") if word == "LIST" else word for word in words]
    with pytest.raises(error, match=sentence):
        command.main(["show", *words])
