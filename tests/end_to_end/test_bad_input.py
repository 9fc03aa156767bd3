"""What users get wrong: one sentence with flag or file:line and the remedy, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.data.loading.test_pool import hanging
from tests.end_to_end.conftest import Command, Data, environment, with_flags
from umt.__main__ import main
from umt.models import create_model

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """`refused(*words)`: the one sentence that the command line says before it ends with code 2."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GPUS"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["umt", *words])
        capsys.readouterr()
        assert main() == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("umt: ")]
        assert len(said) == 1
        return said[0]

    return run


@pytest.fixture
def own(data: Data, tmp_path: Path) -> Data:
    """A data set of one's own lists, to spoil."""
    folder = tmp_path / "data"
    folder.mkdir()
    for file in data.folder.iterdir():
        (folder / file.name).symlink_to(file) if file.suffix == ".mp4" else shutil.copy(file, folder)
    return Data(folder)


def spoil(list_file: Path, change: Callable[[list[str]], list[str]]) -> None:
    list_file.write_text("\n".join(change(list_file.read_text().splitlines())) + "\n")


def test_a_misspelt_flag_gets_the_nearest_one(refused: Refused) -> None:
    assert "There is no flag --layer_decya. Did you mean --layer_decay?" in refused("finetune", "--layer_decya", "0.9")


def test_an_unknown_command_gets_the_known_ones(refused: Refused) -> None:
    assert "'fintune' is not a command. Choose one of pretrain, finetune" in refused("fintune")


def test_a_value_out_of_range_is_named(refused: Refused, data: Data, tmp_path: Path) -> None:
    sentence = refused(*with_flags(data.pretrain, mask_ratio=1.5, output_dir=tmp_path))
    assert "--mask_ratio (1.5)" in sentence


def test_a_missing_folder_is_named(refused: Refused, data: Data, tmp_path: Path) -> None:
    sentence = refused(*with_flags(data.finetune, data_path="nowhere/at/all", output_dir=tmp_path))
    assert "--data_path (nowhere/at/all) does not exist" in sentence


def test_a_missing_list_is_named(refused: Refused, own: Data, tmp_path: Path) -> None:
    (own.folder / "val.csv").unlink()
    assert f"{own.folder}/val.csv does not exist" in refused(*with_flags(own.finetune, output_dir=tmp_path / "out"))


def test_a_wrong_separator_names_the_right_one(refused: Refused, data: Data, tmp_path: Path) -> None:
    sentence = refused(*with_flags(data.finetune, split=" ", output_dir=tmp_path))
    assert "train.csv:1: --split" in sentence
    assert "Try --split" in sentence
    assert "','" in sentence


def test_a_label_out_of_range_names_its_line(refused: Refused, own: Data, tmp_path: Path) -> None:
    spoil(own.folder / "train.csv", lambda lines: [*lines[:2], "train_2.mp4,4", *lines[3:]])
    sentence = refused(*with_flags(own.finetune, output_dir=tmp_path / "out"))
    assert "train.csv:3: label 4 is outside 0..3 (--nb_classes 4)" in sentence


def test_a_faulty_test_list_is_found_before_the_training(refused: Refused, own: Data, tmp_path: Path) -> None:
    spoil(own.folder / "test.csv", lambda lines: [*lines[:-1], "test_5.mp4,9"])
    assert "test.csv:6: label 9" in refused(*with_flags(own.finetune, output_dir=tmp_path / "out"))
    assert not (tmp_path / "out" / "checkpoint-latest.pth").exists()


def test_an_empty_list_is_named(refused: Refused, own: Data, tmp_path: Path) -> None:
    (own.folder / "train.csv").write_text("")
    assert "train.csv" in refused(*with_flags(own.pretrain, output_dir=tmp_path / "out"))


def test_fewer_videos_than_a_step_are_refused(refused: Refused, own: Data, tmp_path: Path) -> None:
    spoil(own.folder / "train.csv", lambda lines: lines[:3])
    assert "--batch_size" in refused(*with_flags(own.pretrain, output_dir=tmp_path / "out"))


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda file: file.unlink(), "no such file"),
        (lambda file: (file.unlink(), file.write_bytes(b"")), "0 bytes"),
        (lambda file: (file.unlink(), file.write_text("<html>not found</html>")), "cannot be read as a video"),
    ],
    ids=["missing", "zero bytes", "not a video"],
)
def test_an_unreadable_validation_video_is_named(
    damage: Callable[[Path], object], cause: str, refused: Refused, own: Data, tmp_path: Path
) -> None:
    damage(own.folder / "val_3.mp4")
    sentence = refused(*with_flags(own.finetune, output_dir=tmp_path / "out", epochs=1))
    assert "val_3.mp4" in sentence
    assert cause in sentence


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_missing_video_of_an_evaluation_list_is_said_before_the_training(
    split: str, refused: Refused, own: Data, tmp_path: Path
) -> None:
    (own.folder / f"{split}_3.mp4").unlink()
    sentence = refused(*with_flags(own.finetune, output_dir=tmp_path / "out", epochs=1))
    assert f"{split}.csv: 1 of " in sentence
    assert f"{split}_3.mp4 (row 3, counted from 0)" in sentence
    assert "--count_unreadable_as_wrong" in sentence
    assert not (tmp_path / "out" / "log.txt").exists()
    assert not (tmp_path / "out" / "failures.jsonl").exists()
    assert not list((tmp_path / "out").glob("events*"))


@pytest.mark.slow
def test_a_truncated_test_video_is_named(refused: Refused, own: Data, tmp_path: Path) -> None:
    video = own.folder / "test_1.mp4"
    content = video.read_bytes()
    video.unlink()
    video.write_bytes(content[: len(content) // 3])
    sentence = refused(*with_flags(own.finetune, output_dir=tmp_path / "out", epochs=1))
    assert "test_1.mp4" in sentence


@pytest.mark.slow
def test_an_unreadable_training_video_is_replaced_counted_and_written_down(
    own: Data, umt: Command, tmp_path: Path
) -> None:
    (own.folder / "train_7.mp4").unlink()
    umt(*with_flags(own.pretrain, output_dir=tmp_path / "out", epochs=1))
    (failure,) = map(json.loads, (tmp_path / "out" / "failures.jsonl").read_text().splitlines())
    assert (failure["row"], failure["path"], failure["epoch"]) == (7, "train_7.mp4", 0)
    assert "no such file" in failure["cause"]
    assert json.loads((tmp_path / "out" / "log.txt").read_text())["train_unreadable_videos"] == 1


@pytest.mark.slow
def test_more_unreadable_videos_than_max_failures_stop_the_run_with_their_list(
    refused: Refused, own: Data, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for row in (3, 7):
        (own.folder / f"train_{row}.mp4").unlink()
    sentence = refused(*with_flags(own.pretrain, output_dir=tmp_path / "out", max_failures=0.05, batch_size=24))
    assert "2 training videos could not be read, more than the 1 allowed (--max_failures)" in sentence
    assert str(tmp_path / "out" / "failures.jsonl") in sentence
    assert len((tmp_path / "out" / "failures.jsonl").read_text().splitlines()) >= 2


@pytest.mark.slow
def test_a_video_that_never_ends_costs_a_run_nothing_but_the_time_out(own: Data, umt: Command, tmp_path: Path) -> None:
    for name in ("train_7", "val_3"):
        (own.folder / f"{name}.mp4").unlink()
        hanging(own.folder / f"{name}.mp4")
    (own.folder / "test_2.mp4").unlink()
    flags = with_flags(own.finetune, output_dir=tmp_path / "out", epochs=2, decode_timeout=1, num_workers=2)
    done = umt(*with_flags(flags, count_unreadable_as_wrong=None))
    failures = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert {failure["row"] for failure in failures} == {7}
    assert all("--decode_timeout 1 seconds" in failure["cause"] for failure in failures)
    first, *_, last = map(json.loads, (tmp_path / "out" / "log.txt").read_text().splitlines())
    assert (first["val_unreadable"], first["train_unreadable_videos"]) == (1, 1)
    assert "row 3 counts as wrong" in done.stderr
    assert "Final top-1" in last
    assert "no such file" in json.dumps(json.loads((tmp_path / "out" / "test.json").read_text()))


def test_replay_has_a_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["umt", "replay", "--help"])
    assert main() == 0
    assert "umt replay" in capsys.readouterr().out


def test_a_wrong_prefix_stops_at_once(refused: Refused, data: Data, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    sentence = refused(*with_flags(data.pretrain, prefix=tmp_path / "elsewhere", output_dir=tmp_path / "out"))
    assert f"none of 12 videos looked up is there, first {tmp_path}/elsewhere/train_0.mp4. Check --prefix" in sentence


def test_a_checkpoint_of_another_architecture_is_refused(refused: Refused, data: Data, tmp_path: Path) -> None:
    torch.save({"model": {"blocks.0.norm1.weight": torch.ones(768)}}, tmp_path / "other.pth")
    sentence = refused(*with_flags(data.finetune, finetune=tmp_path / "other.pth", output_dir=tmp_path / "out"))
    assert str(tmp_path / "other.pth") in sentence


@pytest.fixture
def seven_classes(tmp_path: Path) -> Path:
    torch.save({"model": create_model("vit_tiny_patch8_64", num_classes=7).state_dict()}, tmp_path / "seven.pth")
    return tmp_path / "seven.pth"


def test_a_head_of_another_class_count_is_refused(
    refused: Refused, data: Data, seven_classes: Path, tmp_path: Path
) -> None:
    assert "--delete_head" in refused(*with_flags(data.finetune, finetune=seven_classes, output_dir=tmp_path / "out"))


@pytest.mark.slow
def test_a_head_of_another_class_count_is_left_out_when_a_new_one_is_asked_for(
    umt: Command, data: Data, seven_classes: Path, tmp_path: Path
) -> None:
    flags = with_flags(data.finetune, finetune=seven_classes, output_dir=tmp_path / "out", epochs=1)
    umt(*with_flags(flags, delete_head=None))
    assert torch.load(tmp_path / "out" / "checkpoint-latest.pth", weights_only=True)["model"]["head.bias"].shape == (4,)


def test_missing_weights_are_named_before_anything_else(refused: Refused, data: Data, tmp_path: Path) -> None:
    sentence = refused(*with_flags(data.finetune, finetune="nowhere.pth", output_dir=tmp_path / "out"))
    assert "--finetune (nowhere.pth)" in sentence


def test_frames_that_the_tubelet_does_not_divide_are_refused(refused: Refused, data: Data, tmp_path: Path) -> None:
    sentence = refused(*with_flags(data.finetune, num_frames=7, tubelet_size=2, output_dir=tmp_path))
    assert "--num_frames (7)" in sentence


def test_a_size_that_the_patch_does_not_divide_is_refused(refused: Refused, data: Data, tmp_path: Path) -> None:
    assert "--input_size (60)" in refused(*with_flags(data.finetune, input_size=60, output_dir=tmp_path))


def test_an_unwritable_output_folder_is_refused(refused: Refused, data: Data, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    sentence = refused(*with_flags(data.finetune, output_dir=tmp_path / "file" / "out"))
    assert "--output_dir" in sentence
    assert "cannot be written" in sentence


def test_no_output_folder_is_refused(refused: Refused, data: Data) -> None:
    assert "--output_dir is missing" in refused(*data.finetune)


def test_a_gpu_that_is_not_there_is_refused(refused: Refused, data: Data, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert "--device" in refused(*with_flags(data.finetune, device="cuda", output_dir=tmp_path))


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_last_whole_checkpoint_resumes(data: Data, umt: Command, tmp_path: Path) -> None:
    """A file-size limit of the process stands in for a disk quota: the kernel refuses the write in the same place."""
    out = tmp_path / "out"
    umt(*with_flags(data.pretrain, output_dir=out, epochs=1))
    limit = (out / "checkpoint-latest.pth").stat().st_size // 2 // 1024
    words = with_flags(data.pretrain, output_dir=out)
    done = subprocess.run(
        ["bash", "-c", f'ulimit -f {limit}; trap "" XFSZ; exec "$@"', "-", sys.executable, "-m", "umt", *words],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert torch.load(out / "checkpoint-latest.pth", weights_only=True)["progress"]["epoch"] == 1
    umt(*words)
    assert torch.load(out / "checkpoint-latest.pth", weights_only=True)["progress"]["epoch"] == 2
