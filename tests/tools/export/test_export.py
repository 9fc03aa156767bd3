"""`umt export`: folders that give the same numbers again, whichever form they hold, and no half of one."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.original import facts, filled
from umt.errors import CheckpointError, ConfigError, OutputError
from umt.models import Student, VisionTransformer, create_model
from umt.models.files.opened import sha256_of
from umt.models.files.pretrained import load_pretrained
from umt.tools.export.command import main, parse

NAMES = ["pulling", "pushing", "covering", "dropping", "holding"]
FLAGS = {"task": "finetune", "model": "vit_tiny_patch8_48", "num_frames": 8, "input_size": 48, "data_set": "SSV2"}


def classifier() -> VisionTransformer:
    return filled(create_model("vit_tiny_patch8_48", num_classes=5))


def checkpoint(folder: Path, model: nn.Module, **more: Any) -> str:
    """A file as training writes it."""
    torch.save({"model": model.state_dict(), **more}, folder / "checkpoint-best.pth")
    return str(folder / "checkpoint-best.pth")


@pytest.fixture
def source(tmp_path: Path) -> str:
    return checkpoint(tmp_path, classifier(), config={**FLAGS, "class_names": NAMES}, progress={"epoch": 3})


@pytest.fixture
def video() -> Tensor:
    return torch.randn(2, 3, 8, 48, 48, generator=torch.Generator().manual_seed(0))


def export(source: str, output: Path, *flags: str) -> Path:
    assert main([source, "--output", str(output), *flags]) == 0
    return output


def test_a_folder_gives_the_same_logits_labels_and_origin(source: str, tmp_path: Path, video: Tensor) -> None:
    folder = export(source, tmp_path / "out", "--licence", "cc-by-nc-4.0", "teacher=MIT")
    loaded = load_pretrained(folder)
    assert torch.equal(loaded.model(video), classifier()(video))
    assert loaded.description.labels == tuple(NAMES)
    assert loaded.description.sampling == "ssv2"
    assert loaded.description.licence == {"weights": "cc-by-nc-4.0", "teacher": "MIT"}
    assert loaded.description.provenance["epoch"] == 3
    assert not loaded.report.new
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md", "export.json"}


def test_an_export_of_an_export_comes_from_the_first_checkpoint(source: str, tmp_path: Path) -> None:
    first = export(source, tmp_path / "first")
    again = load_pretrained(export(str(first), tmp_path / "again")).description.provenance
    assert again == load_pretrained(first).description.provenance
    assert (again["source"], again["sha256"]) == ("checkpoint-best.pth", sha256_of(Path(source)))


def test_what_a_folder_says_names_no_place_of_this_machine(source: str, tmp_path: Path) -> None:
    folder = export(source, tmp_path / "out")
    for name in ("config.json", "README.md", "export.json"):
        assert str(tmp_path) not in (folder / name).read_text()


def test_a_folder_is_as_readable_as_any_file(source: str, tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    folder = export(source, tmp_path / "out")
    assert {path.stat().st_mode for path in folder.iterdir()} == {(tmp_path / "any").stat().st_mode}


def test_from_pretrained_takes_a_folder_and_saves_one(source: str, tmp_path: Path, video: Tensor) -> None:
    model = VisionTransformer.from_pretrained(export(source, tmp_path / "out"))
    model.save_pretrained(tmp_path / "again")
    again = VisionTransformer.from_pretrained(str(tmp_path / "again"))
    assert torch.equal(again(video), classifier()(video))
    assert again.description.labels == tuple(NAMES)
    again.reset_classifier(3)
    again.save_pretrained(tmp_path / "again")
    assert load_pretrained(tmp_path / "again").description.labels is None
    with pytest.raises(CheckpointError, match=r"holds a VisionTransformer: use VisionTransformer.from_pretrained"):
        Student.from_pretrained(tmp_path / "again")


def test_a_model_of_any_sizes_is_saved_without_a_description(tmp_path: Path) -> None:
    sizes = {"image_size": (32, 16), "patch_size": 8, "width": 24, "depth": 2, "heads": 2, "num_frames": 2}
    for model in (VisionTransformer(**sizes, num_classes=0), Student(**sizes, return_layers=1, teacher_width=8)):
        model.save_pretrained(tmp_path / "own")
        again = type(model).from_pretrained(tmp_path / "own")
        assert again.arguments == model.arguments
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_hub_s_own_mixin_reads_a_folder(source: str, tmp_path: Path, video: Tensor) -> None:
    from huggingface_hub import PyTorchModelHubMixin

    class Plain(PyTorchModelHubMixin, VisionTransformer):
        pass

    folder = export(source, tmp_path / "out")
    assert torch.equal(Plain.from_pretrained(str(folder), strict=True)(video), classifier()(video))


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "vit_base_patch16_384", "pretrain_umt_base_patch16_224"])
def test_the_original_s_form_has_the_original_s_names(name: str, tmp_path: Path) -> None:
    golden = facts(f"state_dict_keys/{name}" + ("" if name.startswith("pretrain") else "_f8_meanpool"))["keys"]
    narrow = create_model(name, width=12, heads=2)  # names and axes, not numbers
    narrow.save_pretrained(tmp_path / "narrow")
    folder = export(str(tmp_path / "narrow"), tmp_path / "out", "--format", "original")
    state = torch.load(folder / "model.pth", weights_only=True)["model"]
    assert {key: value.ndim for key, value in state.items()} == {key: len(shape) for key, shape in golden.items()}
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_the_original_s_form_keeps_every_bit_of_a_student(tmp_path: Path) -> None:
    student = filled(create_model("pretrain_umt_tiny_patch8_48"))
    folder = export(checkpoint(tmp_path, student), tmp_path / "out", "--format", "original")
    content = torch.load(folder / "model.pth", weights_only=True)
    assert list(content) == ["model"]
    assert list(content["model"]) == list(student.state_dict())
    assert all(torch.equal(value, content["model"][name]) for name, value in student.state_dict().items())
    again = create_model("pretrain_umt_tiny_patch8_48")
    again.load_state_dict(content["model"], strict=True)


def test_a_student_s_encoder_becomes_a_model_of_features(tmp_path: Path, video: Tensor) -> None:
    student = filled(create_model("pretrain_umt_tiny_patch8_48"))
    backbone = load_pretrained(export(checkpoint(tmp_path, student), tmp_path / "out")).model
    assert backbone(video).shape == (2, 64)
    ours = backbone.forward_intermediates(video, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(ours, student.forward_intermediates(video), strict=True))
    assert "fc_norm.weight, fc_norm.bias" in (tmp_path / "out/README.md").read_text()


def test_averaged_weights_are_exported_where_there_are_any(tmp_path: Path, source: str, video: Tensor) -> None:
    average = {name: value * 0.5 for name, value in classifier().state_dict().items()}
    with_ema = checkpoint(tmp_path, classifier(), model_ema=average, config=FLAGS)
    loaded = load_pretrained(export(with_ema, tmp_path / "out", "--ema"))
    assert torch.equal(loaded.model.head.weight, average["head.weight"])
    with pytest.raises(CheckpointError, match=r"holds no moving average of the weights. Leave out --ema"):
        export(checkpoint(tmp_path, classifier(), config=FLAGS), tmp_path / "none", "--ema")


def test_half_precision_is_half_the_file(source: str, tmp_path: Path) -> None:
    whole, half = export(source, tmp_path / "a"), export(source, tmp_path / "b", "--dtype", "bfloat16")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.52 * sizes[0]
    weight = load_pretrained(half).model.head.weight
    assert torch.equal(weight, classifier().head.weight.bfloat16().float())


def test_features_have_no_head(source: str, tmp_path: Path, video: Tensor) -> None:
    model = load_pretrained(export(source, tmp_path / "out", "--features")).model
    expected = classifier()
    assert torch.equal(model(video), expected.forward_head(expected.forward_features(video), pre_logits=True))


def test_an_export_is_not_overwritten_unasked(source: str, tmp_path: Path) -> None:
    folder = export(source, tmp_path / "out")
    with pytest.raises(OutputError, match=r"has an export already. Name a new folder, or give --overwrite"):
        export(source, folder)
    (folder / "old.onnx").touch()
    export(source, folder, "--overwrite")
    assert not (folder / "old.onnx").exists()


def test_nothing_but_an_export_is_ever_replaced(source: str, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.tex").touch()
    with pytest.raises(OutputError, match="holds something else than an export"):
        export(source, tmp_path / "precious", "--overwrite")
    with pytest.raises(OutputError, match=r"is a file. Name a folder"):
        export(source, tmp_path / "checkpoint-best.pth", "--overwrite")
    assert (tmp_path / "precious/thesis.tex").exists()


@pytest.mark.parametrize("form", ["safetensors", "original"])
def test_a_disk_that_is_full_leaves_what_was_there(form: str, source: str, tmp_path: Path) -> None:
    folder = export(source, tmp_path / "out")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"out\) could not be written: File too large"):
            export(source, folder, "--overwrite", "--format", form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-best.pth", "out"]


def test_weights_that_are_no_numbers_are_not_exported(tmp_path: Path) -> None:
    model = classifier()
    model.blocks[1].mlp.fc1.bias.data[0] = float("nan")
    with pytest.raises(CheckpointError, match=r"blocks\.1\.mlp\.fc1\.bias holds values that are no numbers \(1 such"):
        export(checkpoint(tmp_path, model), tmp_path / "out")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--format", "onnx", "--dtype", "float16"], r"--dtype \(float16\) is for safetensors and original"),
        (["--with_preprocessing"], "--with_preprocessing is for --format onnx or torch_export"),
        (["--opset", "11"], r"--opset \(11\) must lie in 18..23"),
        (["--push_to_hub", "mine"], r"--push_to_hub \(mine\) must read OWNER/NAME"),
        (["--licence", "videos=mit"], r"--licence \(videos=mit\) must read NAME, or OF=NAME"),
        (["--features", "--labels", "k400"], "--features leaves the head out"),
        (["--private"], "--private says how --push_to_hub uploads"),
        (["--formt", "onnx"], r"there is no flag --formt. Did you mean --format"),
        (["--format", "tensorrt"], "invalid choice: 'tensorrt'"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse(["a.pth", "--output", "out", *flags])


def test_the_card_is_what_the_hub_reads(source: str, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(export(source, tmp_path / "out", "--licence", "Our own terms") / "README.md")
    assert card.data.library_name == "umt"
    assert card.data.pipeline_tag == "video-classification"
    assert (card.data.license, card.data.license_name) == ("other", "Our own terms")
    assert "pulling, pushing" in card.text


def test_without_a_hub_from_pretrained_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"nobody/nothing.*(cannot be reached|cannot be fetched)"):
        VisionTransformer.from_pretrained("nobody/nothing", cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match="is neither a folder nor a name of the hub"):
        VisionTransformer.from_pretrained("./nowhere")
    with pytest.raises(CheckpointError, match=r"nobody/nothing: the hub cannot be reached"):
        classifier().push_to_hub("nobody/nothing", token="hf_none")


def test_a_folder_needs_no_hub_s_client(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as where it is not installed
    model = VisionTransformer.from_pretrained(export(source, tmp_path / "out"))
    with pytest.raises(CheckpointError, match=r"owner/name needs huggingface_hub\. Run: pip install"):
        model.push_to_hub("owner/name")


def test_the_report_holds_what_was_written(source: str, tmp_path: Path) -> None:
    folder = export(source, tmp_path / "out", "--format", "safetensors", "original")
    report = json.loads((folder / "export.json").read_text())["files"]
    assert all(entry["sha256"] == sha256_of(folder / name) for name, entry in report.items())
    assert {name: entry["bytes"] for name, entry in report.items()} == {
        name: (folder / name).stat().st_size for name in ("model.safetensors", "model.pth")
    }
