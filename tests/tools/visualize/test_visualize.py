"""`umt visualize`: its numbers are those of the models, its page stands alone, what a checkpoint lacks is said."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests import browser
from tests.videos import render
from umt.data.transforms.normalize import normalize
from umt.errors import CheckpointError, ConfigError, VideoError
from umt.inference.recognizer import Recognizer, load
from umt.models import create_model
from umt.models.teachers.base import Teacher
from umt.tasks.base import recipe_class
from umt.tools.visualize.classes import ClassMaps
from umt.tools.visualize.command import main
from umt.tools.visualize.look import Attention, Viewer
from umt.tools.visualize.pretraining import Pretraining
from umt.tools.visualize.teacher import Guide

TEACHER = "clip_tiny_patch8_48"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, a pretraining checkpoint with its teacher, and a classifier."""
    folder = tmp_path_factory.mktemp("visualize")
    render(folder / "a.mp4", frames=20, width=60, height=48)
    torch.manual_seed(0)
    torch.save(create_model(TEACHER).state_dict(), folder / "teacher.pth")
    run = {
        "model": "pretrain_umt_tiny_patch8_48", "input_size": 48, "num_frames": 8, "data_path": "x",
        "clip_teacher": TEACHER, "clip_teacher_weights": str(folder / "teacher.pth"), "clip_input_resolution": 48,
        "clip_return_layer": 2,
    }  # fmt: skip
    student = create_model("pretrain_umt_tiny_patch8_48")
    content = {
        "model": student.state_dict(),
        "config": {"task": "pretrain", **recipe_class("pretrain").from_values(run).values()},
    }
    torch.save(content, folder / "student.pth")
    classifier = create_model("vit_tiny_patch8_48", num_classes=3, init_scale=1.0)
    run = {"model": "vit_tiny_patch8_48", "input_size": 48, "num_frames": 8, "nb_classes": 3, "data_path": "x"}
    config = {
        "task": "finetune",
        **recipe_class("finetune").from_values(run).values(),
        "class_names": ["<b>run", "sit", "lie"],
    }
    torch.save({"model": classifier.state_dict(), "config": config}, folder / "classifier.pth")
    return folder


def _student(files: Path) -> tuple[Viewer, Teacher]:
    model = load(files / "student.pth", device="cpu", precision="fp32")
    teacher = create_model(TEACHER, return_layers=2).eval()
    teacher.load_state_dict(torch.load(files / "teacher.pth"))
    guide = Guide(teacher, TEACHER, "attention", 0.8)  # type: ignore[arg-type]
    return Viewer(model, [Pretraining(model, guide), Attention(model)]), teacher  # type: ignore[return-value]


def _classifier(files: Path) -> Viewer:
    model = load(files / "classifier.pth", device="cpu", precision="fp32")
    return Viewer(model, [Attention(model), ClassMaps(model)])


def _inputs(model: Recognizer, video: Path) -> torch.Tensor:
    return normalize(model.transform(video).permute(0, 4, 1, 2, 3).contiguous())


def test_saliency_mask_and_cosines_are_those_of_pretraining(files: Path) -> None:
    viewer, teacher = _student(files)
    look = viewer.look(str(files / "a.mp4"))
    assert [one.key for one in look.maps] == ["saliency", "visible", "cosine", "rollout", "attention"]
    maps = {one.key: one.values for one in look.maps}
    inputs = _inputs(viewer.model, files / "a.mp4")
    with torch.no_grad():
        features, saliency = teacher(inputs)
        np.testing.assert_allclose(
            maps["saliency"].reshape(8, 36), saliency[0] / saliency[0].amax(-1, keepdim=True), rtol=1e-4
        )
        assert maps["visible"].sum((1, 2)).tolist() == [36 - int(36 * 0.8)] * 8
        visible = torch.from_numpy(np.flatnonzero(maps["visible"]))[None]
        expected = F.cosine_similarity(viewer.model.model(inputs, visible), teacher.project(features, visible), dim=-1)
    assert [own for _, own, _ in look.cosines] == pytest.approx(expected.mean((1, 2)).tolist(), abs=1e-5)
    assert [blocks for blocks, _, _ in look.cosines] == ["3 and 3", "4 and 4"]


def test_a_classifier_shows_its_answers_and_a_map_for_each_of_the_likeliest(files: Path) -> None:
    viewer = _classifier(files)
    look = viewer.look(str(files / "a.mp4"))
    assert [one.key for one in look.maps] == ["rollout", "attention", "class0", "class1"]
    odds = viewer.model.predict(viewer.model.transform(files / "a.mp4"))
    best = int(odds.argmax())
    assert look.answers[0] == (viewer.model.labels[best], pytest.approx(float(odds[best]), abs=1e-5))
    assert all(one.values.shape == (8, 6, 6) for one in look.maps)
    assert all(one.values.min() >= 0 and one.values.max() <= 1 for one in look.maps)


def test_the_folder_has_a_picture_a_moving_one_numbers_and_a_page_that_stands_alone(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(files / "a.mp4"), "--checkpoint", str(files / "student.pth"), "--output", str(tmp_path)]
    assert main([*words, "--device", "cpu", "--frames", "3"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.gif", "looks.json", "index.html"}
    with Image.open(tmp_path / "a.gif") as moving:
        assert moving.n_frames == 8  # type: ignore[attr-defined]
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.mode == "RGBA"
    (numbers,) = json.loads((tmp_path / "looks.json").read_text())
    assert len(numbers["frames"]) == 8
    assert set(numbers["cosines"][0]) == {"blocks", "others_hidden", "none_hidden"}
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    sources = re.findall(r'\bsrc="([^"]*)"', page)
    assert len(sources) == 8  # the moving picture, the cosines, six strips
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"<link|<script|@import|url\(", page)
    assert "No maps of classes: the checkpoint has no head." in page
    assert "of the last block" in capsys.readouterr().out


def test_a_finetuned_checkpoint_says_that_it_has_no_teacher(files: Path, tmp_path: Path) -> None:
    words = [str(files / "a.mp4"), "--checkpoint", str(files / "classifier.pth"), "--output", str(tmp_path)]
    assert main([*words, "--device", "cpu", "--frames", "1", "--topk", "1"]) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "this checkpoint names no teacher" in page
    assert "visible tokens" not in page
    assert "&lt;b&gt;run" in page, "names are escaped"


@pytest.mark.slow
def test_teacher_weights_that_have_gone_are_named(files: Path, tmp_path: Path) -> None:
    content = torch.load(files / "student.pth")
    content["config"]["clip_teacher_weights"] = "gone/teacher.pth"
    torch.save(content, tmp_path / "moved.pth")
    words = [str(files / "a.mp4"), "--checkpoint", str(tmp_path / "moved.pth"), "--output", str(tmp_path / "out")]
    assert main([*words, "--device", "cpu", "--frames", "1"]) == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "gone/teacher.pth, are not there. Give --teacher_weights FILE." in page
    assert "it is a tube mask" in page


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--teacher", "vit_tiny_patch8_48", "--teacher_weights", "x"], "is not a teacher. A CLIP is"),
        (
            ["--teacher", TEACHER, "--teacher_weights", "T", "--teacher_resolution", "64"],
            r"sees 8 x 8 patches.*--teacher_resolution 48",
        ),
        (["--residual", "2"], r"--residual \(2\) is a share"),
        (["--teacher", "none", "--mask_type", "attention"], "--mask_type attention follows a teacher"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(files: Path, tmp_path: Path, more: list[str], sentence: str) -> None:
    more = [str(files / "teacher.pth") if word == "T" else word for word in more]
    words = [str(files / "a.mp4"), "--checkpoint", str(files / "classifier.pth"), "--output", str(tmp_path)]
    with pytest.raises(ConfigError, match=sentence):
        main([*words, "--device", "cpu", *more])


def test_a_video_that_cannot_be_read_is_named(files: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    words = [str(tmp_path / "bad.mp4"), "--checkpoint", str(files / "classifier.pth"), "--output", str(tmp_path)]
    with pytest.raises(VideoError, match=r"none of 1 videos could be read.*bad\.mp4"):
        main([*words, "--device", "cpu"])


def test_the_sheet_is_a_picture_of_the_frames_as_they_are(files: Path) -> None:
    from umt.tools.visualize import figures

    look = _classifier(files).look(str(files / "a.mp4"))
    sheet = np.asarray(Image.open(io.BytesIO(figures.sheet(look, 2))))
    side = figures.SIDE
    shown = sheet[20 : 20 + side, :side, :3]
    place = figures.chosen(8, 2)[0]
    np.testing.assert_array_equal(shown, figures.enlarged(look.frames)[place])


@pytest.mark.slow
def test_a_teacher_of_timm_guides_too(files: Path, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("vit_tiny_patch16_224", img_size=96).state_dict(), tmp_path / "timm.pth")
    words = [str(files / "a.mp4"), "--checkpoint", str(files / "classifier.pth"), "--output", str(tmp_path / "out")]
    more = ["--teacher", "timm:vit_tiny_patch16_224", "--teacher_weights", str(tmp_path / "timm.pth")]
    assert main([*words, *more, "--teacher_resolution", "96", "--frames", "1", "--device", "cpu"]) == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "visible tokens" in page
    assert "The class token&#39;s attention in the last block" in page


@pytest.mark.slow
@pytest.mark.skipif(browser.PROGRAM is None, reason=browser.WITHOUT)
def test_the_page_opens_in_a_browser_with_all_its_pictures_and_nothing_else(files: Path, tmp_path: Path) -> None:
    render(tmp_path / "<img src=x>.mp4", frames=20, width=60, height=48)
    words = [str(tmp_path / "<img src=x>.mp4"), "--checkpoint", str(files / "student.pth")]
    assert main([*words, "--output", str(tmp_path / "out"), "--frames", "2", "--device", "cpu"]) == 0
    (tmp_path / "profile").mkdir()
    visit = browser.visit(tmp_path / "out" / "index.html", tmp_path / "profile")
    assert len(visit.pictures) == 8
    assert all(width > 0 for _, width in visit.pictures)
    assert visit.complaints == []
    assert visit.requests == []
    assert "<img src=x>.mp4" in visit.text


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("classifier.pth", "nan.pth gives scores that are not finite. Check it, or take --precision fp32."),
        ("student.pth", "nan.pth gives features that are not finite"),
        ("teacher.pth", "the teacher clip_tiny_patch8_48 gives a saliency that is not finite. Check its weights"),
    ],
)
def test_weights_that_give_no_numbers_are_a_sentence_and_no_page(
    files: Path, tmp_path: Path, name: str, sentence: str
) -> None:
    content = torch.load(files / name, weights_only=True)
    weights = content.get("model", content)
    for value in weights.values():
        value.fill_(float("nan"))
    torch.save(content, tmp_path / "nan.pth")
    words = ["--checkpoint", str(tmp_path / "nan.pth")]
    if name == "teacher.pth":
        words = ["--checkpoint", str(files / "classifier.pth"), "--teacher", TEACHER, "--teacher_weights"]
        words += [str(tmp_path / "nan.pth"), "--teacher_resolution", "48"]
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        main([str(files / "a.mp4"), *words, "--output", str(tmp_path / "out"), "--device", "cpu"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--teacher_weights x.pth", "--teacher_weights (x.pth): the checkpoint names no teacher. Give --teacher NAME"),
        ("--teacher none --teacher_weights x.pth", "--teacher_weights (x.pth): --teacher none takes none"),
        ("--teacher_resolution 48", "--teacher_resolution (48): the checkpoint names no teacher"),
    ],
)
def test_flags_of_a_teacher_that_nobody_names_are_refused(files: Path, flags: str, sentence: str) -> None:
    words = [str(files / "a.mp4"), "--checkpoint", str(files / "classifier.pth"), "--device", "cpu", *flags.split()]
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        main(words)
