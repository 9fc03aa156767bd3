"""Nothing said but the data: what is chosen, when it is not, and that a flag that is given wins."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from umt.errors import AnnotationError, ConfigError
from umt.models import create_model
from umt.run.command_line import parse
from umt.run.plan import render_dry_run
from umt.tasks.classify import own_data as own
from umt.tasks.classify.recipe import ClassifyRecipe


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `mine` of 3 classes with 40 videos each (empty files), in the working directory; and no GPU."""
    for label in ("jump", "run", "swim"):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for i in range(40):
            (tmp_path / "mine" / label / f"{i}.mp4").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("RANK", "WORLD_SIZE", "GPUS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "mine"


def finetune(*words: str) -> ClassifyRecipe:
    config = parse("finetune", ["--data_path", "mine", *words], files=False)
    assert isinstance(config, ClassifyRecipe)
    return config


def chosen(config: ClassifyRecipe) -> dict[str, Any]:
    return {choice.flag: choice.value for choice in config.choices}


def save(path: Path, *, classes: int = 5, **config: Any) -> None:
    model = create_model("vit_tiny_patch8_48", num_classes=classes)
    torch.save({"model": model.state_dict(), "config": config}, path)


def test_a_folder_is_enough(folder: Path) -> None:
    config = finetune()
    assert (config.data.data_set, config.data.nb_classes) == ("image_folder", 3)
    assert config.checkpoint.output_dir == "outputs/mine-vit_tiny_patch8_64"
    assert (config.optim.batch_size, config.optim.epochs) == (8, 100)
    assert config.evaluation.test_best


def test_a_flag_that_is_given_wins_and_others_follow_it(folder: Path) -> None:
    config = finetune("--epochs", "20", "--model", "vit_base_patch16_224", "--batch_size", "2", "--output_dir", "out")
    assert (config.optim.epochs, config.optim.warmup_epochs, config.optim.batch_size) == (20, 2, 2)
    assert (config.model.input_size, config.checkpoint.output_dir) == (224, "out")
    assert {"epochs", "model", "batch_size", "update_freq", "output_dir"}.isdisjoint(chosen(config))


@pytest.mark.parametrize("flag", [["--data_set", "image_folder"], ["--nb_classes", "3"], ["--recipe_gpus", "8"]])
def test_whoever_says_data_set_classes_or_recipe_says_the_rest_too(flag: list[str], folder: Path) -> None:
    assert finetune(*flag).choices == ()


def test_auto_asks_for_it_beside_other_flags(folder: Path) -> None:
    config = finetune("--data_set", "auto", "--nb_classes", "3")
    assert config.data.data_set == "image_folder"
    assert "nb_classes" not in chosen(config)


def test_auto_needs_a_folder_of_this_machine(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--data_set auto looks into one folder of this machine, not 's3://b'"):
        parse("finetune", ["--data_set", "auto", "--data_path", "s3://b"], files=False)
    with pytest.raises(AnnotationError, match=r"--data_path \(gone\) is no folder"):
        parse("finetune", ["--data_set", "auto", "--data_path", "gone"], files=False)


def test_a_folder_that_is_not_there_leaves_the_defaults(folder: Path) -> None:
    assert parse("finetune", ["--data_path", "gone"], files=False) == parse(
        "finetune", ["--data_path", "gone", "--data_set", "Kinetics"], files=False
    )


def test_what_was_chosen_is_printed_with_why(folder: Path) -> None:
    text = render_dry_run(finetune("--dry_run"), {})
    assert "  chosen, since nothing else was said; a flag that is given wins:\n" in text
    assert "--nb_classes 3" in text
    assert "8 videos a step of 108 training videos" in text
    assert "WARNING: the model starts from random weights" in text
    assert "class balance: 3 classes, 108 training videos; largest to smallest 1 : 1" in text


def test_a_dry_run_of_ones_own_data_says_the_command_that_gives_the_same_run(folder: Path) -> None:
    config = finetune()
    words = " ".join(f"--{choice.flag} {choice.shown}" for choice in config.choices)
    again = parse("finetune", ["--data_path", "mine", *shlex.split(words)], files=False)
    assert again.values() == config.values()


def test_a_list_that_counts_from_1_is_told(folder: Path) -> None:
    (folder / "train.csv").write_text("".join(f"run/{i}.mp4,{1 + i % 2}\n" for i in range(8)))
    why = {choice.flag: choice.why for choice in finetune().choices}
    assert why["nb_classes"] == (
        "counted; 1 of them have no training video: the list seems to count from 1, labels start at 0"
    )


def test_a_gpu_gets_the_base_model(folder: Path) -> None:
    assert finetune("--device", "cuda").model.model == "vit_base_patch16_224"


def test_the_checkpoint_says_model_frames_and_tubelet(folder: Path) -> None:
    save(folder.parent / "w.pth", model="vit_tiny_patch8_48", num_frames=16, tubelet_size=2, input_size=48)
    config = finetune("--finetune", "w.pth")
    assert (config.model.model, config.data.num_frames) == ("vit_tiny_patch8_48", 16)
    assert (config.model.tubelet_size, config.model.input_size, config.model.delete_head) == (2, 48, True)
    assert config.checkpoint.output_dir == "outputs/mine-vit_tiny_patch8_48"


def test_a_row_of_the_zoo_says_its_model_by_name(folder: Path) -> None:
    config = finetune("--finetune", "l16_ptk710_ftk710_ftk400_f16_res224")
    assert (config.model.model, config.data.num_frames) == ("vit_large_patch16_224", 16)
    assert config.model.delete_head
    assert "WARNING" not in render_dry_run(config, {})


def test_a_head_of_the_same_classes_is_kept(folder: Path) -> None:
    save(folder.parent / "w.pth", classes=3, class_names=["jump", "run", "swim"])
    assert not finetune("--finetune", "w.pth").model.delete_head
    save(folder.parent / "w.pth", classes=3, class_names=["run", "jump", "swim"])
    assert finetune("--finetune", "w.pth").model.delete_head


def test_weights_that_are_not_here_get_a_new_head(folder: Path) -> None:
    config = finetune("--finetune", "https://host/w.pth")
    assert (config.model.model, config.model.delete_head) == ("vit_base_patch16_224", True)


def test_left_and_right_are_not_mirrored(folder: Path) -> None:
    assert finetune().augment.flip is None
    (folder / "run").rename(folder / "turn left")
    assert finetune().augment.flip is False


def test_several_gpus_share_the_same_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    config = finetune()
    assert config.optim.batch_size * config.optim.update_freq * 4 == 8


# ---- a run that goes on


def made(folder: Path, config: ClassifyRecipe, **changes: Any) -> None:
    """What a run of `config` leaves."""
    output = Path(config.checkpoint.output_dir)
    output.mkdir(parents=True)
    torch.save({"model": {}, "config": {"task": "finetune", **config.values(), **changes}}, output / own.LATEST)


def test_a_run_that_goes_on_keeps_its_recipe_when_videos_come(folder: Path) -> None:
    first = finetune()
    made(folder, first)
    for i in range(300):
        (folder / "run" / f"more{i}.mp4").touch()
    again = finetune()
    assert again.values() == first.values()
    assert next(c.why for c in again.choices if c.flag == "epochs").startswith("as outputs/mine-vit_tiny_patch8_64/")
    assert finetune("--no_auto_resume").optim.epochs != first.optim.epochs


def test_a_class_that_is_added_is_seen_by_a_run_that_goes_on(folder: Path) -> None:
    made(folder, finetune())
    (folder / "walk").mkdir()
    for i in range(3):
        (folder / "walk" / f"{i}.mp4").touch()
    assert finetune().data.nb_classes == 4


def test_a_test_finds_the_only_run_of_the_data(folder: Path) -> None:
    config = finetune("--model", "vit_tiny_patch8_48", "--num_frames", "4")
    made(folder, config)
    tested = finetune("--eval")
    assert (tested.model.model, tested.data.num_frames) == ("vit_tiny_patch8_48", 4)
    assert tested.checkpoint.output_dir == "outputs/mine-vit_tiny_patch8_48"
    made(folder, finetune())
    with pytest.raises(ConfigError, match=r"are runs of this data\. Say which with --output_dir"):
        finetune("--eval")


@pytest.mark.parametrize("testing", [[], ["--eval"]])
def test_a_checkpoint_that_is_named_says_recipe_and_folder(testing: list[str], folder: Path) -> None:
    first = finetune("--epochs", "7", "--model", "vit_tiny_patch8_48", "--output_dir", "elsewhere/run")
    made(folder, first)
    again = finetune("--resume", f"elsewhere/run/{own.LATEST}", *testing)
    assert (again.checkpoint.output_dir, again.optim.epochs) == ("elsewhere/run", 7)
    assert len({choice.flag for choice in again.choices}) == len(again.choices)


# ---- flags of one's own classes held against each other


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--multi_label"],
            "--multi_label needs lists, `path,3|17`: in --data_set image_folder a video is in one folder.",
        ),
        (["--class_weights", "ballanced"], "--class_weights (ballanced) is neither a file of lines `class,weight` nor"),
        (
            ["--freeze_blocks", "5"],
            "--freeze_blocks (5) exceeds the 4 blocks of vit_tiny_patch8_64. Try --freeze_blocks 4",
        ),
        (["--batch_size", "0"], "--batch_size (0) must be at least 1"),
        (["--update_freq", "-1"], "--update_freq (-1) must be at least 1"),
    ],
)
def test_a_contradiction_is_said_with_its_remedy(words: list[str], sentence: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as error:
        finetune(*words)
    assert str(error.value).startswith(sentence)


def test_shots_are_of_one_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--shots \(2\) takes videos of one list. Give one --data_path."):
        parse("finetune", ["--data_path", "a", "b", "--shots", "2"], files=False)


def test_shots_are_counted_in_a_dry_run(folder: Path) -> None:
    assert "9 for training (9 of 108 training videos are taken: 3 of each class" in render_dry_run(
        finetune("--shots", "3"), dict(os.environ)
    )


def test_freezing_random_weights_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    finetune("--freeze_blocks", "2")
    assert "--freeze_blocks (2) keeps random weights without --finetune." in caplog.text


@pytest.mark.parametrize("more", [[], ["--epochs", "1", "--warmup_epochs", "5"], ["--nb_classes", "7"]])
def test_a_file_in_place_of_the_folder_is_said_first(folder: Path, more: list[str]) -> None:
    (folder / "lone.mp4").touch()
    sentence = r"--data_path \(\S*lone.mp4\) is a file; finetuning takes the folder of train.csv, .*class folders\.$"
    with pytest.raises(AnnotationError, match=sentence):
        parse("finetune", ["--data_path", str(folder / "lone.mp4"), *more], files=False)


def test_a_list_in_place_of_its_folder_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.mp4,0\n")
    with pytest.raises(AnnotationError, match=rf"is a file; .* Try --data_path {tmp_path}\."):
        parse("finetune", ["--data_path", str(tmp_path / "train.csv")], files=False)


def test_class_folders_where_a_list_is_looked_for_are_told(folder: Path) -> None:
    with pytest.raises(AnnotationError, match=r"train.csv does not exist: .* give --data_set image_folder\.$"):
        parse("finetune", ["--data_path", str(folder), "--nb_classes", "7"])
