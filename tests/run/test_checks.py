"""Flags held against each other, and against lists, weights and folders, before torch is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from umt.errors import AnnotationError, CheckpointError, ConfigError, OutputError, UserError
from umt.run.command_line import parse
from umt.run.plan import render_dry_run


@pytest.mark.parametrize(
    ("task", "words", "sentence"),
    [
        (
            "finetune",
            "--model vit_bse_patch16_224",
            "--model (vit_bse_patch16_224) is not a model of this library. Try",
        ),
        ("finetune", "--model clip_b16", "--model (clip_b16) is a teacher, not a classifier. Try --model vit_"),
        (
            "pretrain",
            "--clip_teacher clip_b32",
            "--clip_teacher (clip_b32) is not a model of this library. Try --clip_t",
        ),
        (
            "finetune",
            "--input_size 225",
            "--input_size (225) must be a multiple of 16, the patch of vit_base_patch16_22",
        ),
        (
            "finetune",
            "--num_frames 9",
            "--num_frames (9) must be a multiple of --tubelet_size (2). Try --num_frames 8.",
        ),
        (
            "finetune",
            "--checkpoint_num 13 --use_checkpoint",
            "--checkpoint_num (13) exceeds the 12 blocks of vit_base_patch16_224. Try --checkpoint_num 12.",
        ),
        (
            "finetune",
            "--batch_size 3 --num_sample 1",
            "--batch_size (3) x --num_sample (1) must be even for mixup and cutmix. Try --batch_size 4, or --mixup",
        ),
        (
            "finetune",
            "--crop_scale 0.8 0.2",
            "--crop_scale (0.8 0.2) must be ascending. Try --crop_scale 0.2 0.8",
        ),
        (
            "finetune",
            "--cutmix_minmax 0.8 0.2",
            "--cutmix_minmax (0.8 0.2) must be ascending. Try --cutmix_minmax 0.2 0.8",
        ),
        ("finetune", "--data_set SSV2", "--nb_classes (400) must be 174 for --data_set SSV2. Try --nb_classes 174."),
        (
            "finetune",
            "--data_set Kinetics-400",
            "--data_set (Kinetics-400) is not known. Choose one of Kinetics_sparse, ",
        ),
        (
            "finetune",
            "--short_side_size 256",
            "--short_side_size (256) must equal --input_size (224), the side that the ",
        ),
        ("finetune", "--test_best --disable_eval_during_finetuning", "--test_best needs the validation that --disable"),
        (
            "finetune",
            "--warmup_epochs 40",
            "--warmup_epochs (40) must not exceed --epochs (30). Shorten the warm-up, e.g.",
        ),
        ("finetune", "--min_lr 1", "--min_lr (1) must not exceed --lr (0.001). Try --min_lr 1e-05."),
        ("finetune", "--split=", "--split () must be the character between the columns of the lists. Try --split ','."),
        (
            "pretrain",
            "--clip_teacher clip_l14",
            "--clip_input_resolution (224) gives clip_l14 16 x 16 tokens a frame, but --input_size (224) gives the "
            "student 14 x 14. Try --clip_input_resolution 196.",
        ),
        (
            "pretrain",
            "--clip_teacher timm:vit_small_patch14_dinov2.lvd142m",
            "--clip_input_resolution (224) gives timm:vit_small_patch14_dinov2.lvd142m 16 x 16 tokens a frame, but",
        ),
        ("pretrain", "--tubelet_size 2", "--tubelet_size (2) must be 1: the image teacher has tokens for every frame."),
        (
            "pretrain",
            "--clip_decoder_embed_dim 512",
            "--clip_decoder_embed_dim (512) must be 768, the width of pretrain_umt_base_patch16_224. Leave it out",
        ),
        (
            "pretrain",
            "--clip_output_dim 768",
            "--clip_output_dim (768) must be 512, the output of clip_b16. Leave it out",
        ),
        (
            "pretrain",
            "--clip_return_layer 7 --clip_return_interval 2",
            "--clip_return_layer (7) with --clip_return_interval (2) reaches 13 blocks back, but there are 12. "
            "Try --clip_return_layer 6.",
        ),
        (
            "pretrain",
            "--num_segments 4",
            "--num_segments (4) must be 1 (a dense clip) or equal --num_frames (8), one frame from each segment.",
        ),
        ("pretrain", "--mask_ratio 1", "--mask_ratio (1.0) must be below 1. Try --mask_ratio 0.75."),
    ],
)
def test_a_contradiction_is_said_with_its_remedy(task: str, words: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(task, words.split(), files=False)
    assert str(error.value).startswith(sentence)


def test_an_odd_batch_is_fine_without_mixing() -> None:
    parse("finetune", ["--batch_size", "3", "--num_sample", "1", "--mixup", "0", "--cutmix", "0"], files=False)


def test_checkpoint_num_alone_warns_that_it_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    parse("finetune", ["--checkpoint_num", "3"], files=False)
    assert [r.getMessage() for r in caplog.records] == ["--checkpoint_num (3) has no effect without --use_checkpoint."]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("a.mp4 0\n")
    return folder


def complaint(*words: str | Path, task: str = "finetune") -> tuple[type[UserError], str]:
    named = ["--data_set", "Kinetics"] if task == "finetune" else []
    with pytest.raises(UserError) as error:
        parse(task, [*named, *(str(word) for word in words)])
    return type(error.value), str(error.value)


def test_a_run_whose_files_are_there_is_accepted(lists: Path, tmp_path: Path) -> None:
    parse("finetune", ["--data_set", "Kinetics", "--data_path", str(lists), "--output_dir", f"{tmp_path}/new/out"])
    assert os.listdir(tmp_path / "new" / "out") == []


def test_a_dry_run_looks_at_no_files(tmp_path: Path) -> None:
    parse("finetune", ["--data_path", "nowhere", "--output_dir", str(tmp_path / "out"), "--dry_run"])
    assert not (tmp_path / "out").exists()


def test_a_missing_list_is_named(lists: Path) -> None:
    (lists / "val.csv").unlink()
    kind, text = complaint("--data_path", lists)
    assert kind is AnnotationError
    assert text == f"{lists}/val.csv does not exist: --data_path ({lists}) must hold the val list."


def test_lists_that_a_run_does_not_read_may_be_missing(lists: Path, tmp_path: Path) -> None:
    (lists / "val.csv").unlink()
    (lists / "train.csv").unlink()
    parse("finetune", ["--data_set", "Kinetics", "--data_path", str(lists), "--output_dir", str(tmp_path), "--eval"])


def test_a_folder_where_a_list_belongs_is_said(lists: Path) -> None:
    kind, text = complaint("--data_path", lists, task="pretrain")
    assert kind is AnnotationError
    assert text.endswith(f"is a folder; pretraining takes the list itself. Try --data_path {lists}/train.csv.")


def test_a_list_where_a_folder_belongs_is_said(lists: Path) -> None:
    kind, text = complaint("--data_path", lists / "train.csv")
    assert kind is AnnotationError
    assert text.endswith(
        f"the folder of train.csv, val.csv and test.csv, or one of class folders. Try --data_path {lists}."
    )


def test_no_data_path_is_said() -> None:
    assert complaint() == (
        AnnotationError,
        "--data_path is missing. Give the folder of train.csv, val.csv and test.csv.",
    )


def test_a_prefix_that_is_no_folder_is_said(lists: Path) -> None:
    kind, text = complaint("--data_path", lists, "--prefix", "vidoes")
    assert kind is AnnotationError
    assert text.startswith("--prefix (vidoes) is not a folder.")


def test_missing_weights_are_said(lists: Path) -> None:
    kind, text = complaint("--data_path", lists, "--finetune", "b16.pth")
    assert kind is CheckpointError
    assert text == "--finetune (b16.pth) does not exist. Check the path; the scripts of exp/ take it from MODEL_PATH."


def test_a_teacher_without_weights_is_refused(lists: Path) -> None:
    kind, text = complaint("--data_path", lists / "train.csv", task="pretrain")
    assert kind is CheckpointError
    assert text.startswith("--clip_teacher_weights is missing: clip_b16 would teach from random weights.")


def test_a_teacher_of_timm_s_needs_no_file(lists: Path, tmp_path: Path) -> None:
    flags = ["--clip_teacher", "timm:vit_tiny_patch16_224", "--data_path", str(lists / "train.csv")]
    config = parse("pretrain", [*flags, "--output_dir", str(tmp_path), "--clip_output_dim", "192", "--batch_size", "1"])
    assert "timm:vit_tiny_patch16_224 at 224 px, last 1 layers, l2 loss, weights timm's own, downloaded" in (
        render_dry_run(config, {})
    )


def test_a_run_without_an_output_folder_is_refused(lists: Path) -> None:
    kind, text = complaint("--data_path", lists)
    assert kind is OutputError
    assert text.startswith("--output_dir is missing:")


def test_an_output_folder_that_cannot_be_written_is_refused(lists: Path) -> None:
    kind, text = complaint("--data_path", lists, "--output_dir", lists / "train.csv")
    assert kind is OutputError
    assert text.startswith(f"--output_dir ({lists}/train.csv) cannot be written: File exists.")
