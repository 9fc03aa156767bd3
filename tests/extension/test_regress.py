"""A kind of work from a package of somebody else's: everything that runs have, and no file of the library changes.

The package is `package/umt_regress`, installed the way pip would leave it (`umt_regress-0.1.dist-info` next to it).
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
PACKAGE = Path(__file__).parent / "package"
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{PACKAGE}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def video(path: Path, brightness: int, frames: int) -> None:
    """Grey of one brightness: the number that is to be learnt."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), brightness, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists and videos of different lengths."""
    folder = tmp_path_factory.mktemp("regress")
    for split, count in (("train", 8), ("val", 4), ("test", 5)):
        lines = []
        for i in range(count):
            brightness = 20 + 200 * i // count
            video(folder / f"{split}{i}.mp4", brightness, 6 + 9 * i)
            lines.append(f"{split}{i}.mp4,{brightness}")
        (folder / f"{split}.csv").write_text("\n".join(lines))
    return folder


def flags(folder: Path, output: Path, *more: object) -> list[str]:
    words = ["regress", "--data_path", folder, "--output_dir", output, "--scale", "255", "--num_workers", "0"]
    words += ["--batch_size", "2", "--global_batch_size", "4", "--epochs", "3", "--warmup_epochs", "1"]
    words += ["--lr", "1e-2", "--device", "cpu", "--threads", "1", "--save_every_steps", "1", *more]
    return [str(word) for word in words]


def umt(*words: object, expect: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "umt", *map(str, words)], env={**ENVIRONMENT, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout
    return done.stdout


def umt_twice(*words: object) -> str:
    """The same command as two processes of one run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "umt", *map(str, words)], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={
                **ENVIRONMENT, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    printed = "".join(process.communicate(timeout=240)[0] for process in started)
    assert [process.returncode for process in started] == [0, 0], printed
    return printed


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run of one process."""
    output = tmp_path_factory.mktemp("trained") / "run"
    umt(*flags(folder, output))
    return output


def weights(output: Path) -> dict[str, torch.Tensor]:
    content = torch.load(output / "checkpoint-latest.pth", weights_only=True)
    state: dict[str, torch.Tensor] = content["model"]
    return state


def test_the_command_is_in_the_help_and_its_flags_have_theirs() -> None:
    assert re.search(r"umt regress .*umt-regress", umt("--help"))
    assert "--clip_stride INT" in umt("regress", "--help")


def test_a_misspelt_flag_and_a_bad_value_are_sentences(folder: Path, tmp_path: Path) -> None:
    assert "Did you mean --clip_stride or --clip_grad?" in umt(*flags(folder, tmp_path), "--clip_strid", "3", expect=2)
    assert "--scale (0.0) must be above 0" in umt(*flags(folder, tmp_path), "--scale", "0", expect=2)


def test_a_dry_run_prints_the_resolved_run(folder: Path, tmp_path: Path) -> None:
    printed = umt(*flags(folder, tmp_path), "--dry_run")
    assert "vit_tiny_patch8_64, one number" in printed
    assert "3 epochs x 2 = 6 steps" in printed


def test_training_validation_and_test_leave_their_files(trained: Path) -> None:
    assert json.loads((trained / "test.json").read_text())["videos"] == 5
    lines = [json.loads(line) for line in (trained / "log.txt").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == [0, 1, 2]
    assert all("val_rmse" in line for line in lines if "epoch" in line)
    assert (trained / "checkpoint-best.pth").is_file()


def test_results_are_ragged(trained: Path) -> None:
    numbers = json.loads((trained / "predictions.json").read_text())
    assert [len(numbers[str(row)]) for row in range(5)] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_two_processes_train_and_test_as_one(folder: Path, trained: Path, tmp_path: Path) -> None:
    umt_twice(*flags(folder, tmp_path / "two"))
    for name, value in weights(trained).items():
        # Two processes add gradients in another order.
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, rtol=1e-4, atol=1e-5)
    alone = umt(*flags(folder, tmp_path / "one"), "--eval", "--resume", trained / "checkpoint-latest.pth")
    both = umt_twice(*flags(folder, tmp_path / "both"), "--eval", "--resume", trained / "checkpoint-latest.pth")
    assert "RMSE" in alone + both
    same = [json.loads((tmp_path / name / "test.json").read_text()) for name in ("one", "both")]
    assert same[0] == same[1]


@pytest.mark.slow
def test_a_killed_run_resumes_bit_equal(folder: Path, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "umt", *flags(folder, output)], env=ENVIRONMENT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (output / "checkpoint-latest.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "test.json").exists()
    umt(*flags(folder, output))
    for name, value in weights(trained).items():
        assert torch.equal(weights(output)[name], value), name


@pytest.mark.slow
def test_predict_answers_with_a_number(folder: Path, trained: Path) -> None:
    printed = umt(
        "predict", folder / "test3.mp4", "--checkpoint", trained / "checkpoint-latest.pth", "--digits", "2",
        "--json", "-", "--device", "cpu",
    )  # fmt: skip
    content = json.loads(printed[printed.index("{") :])
    assert re.search(r"\d\.\d", json.dumps(content["videos"][0]))


@pytest.mark.slow
def test_export_check_and_show(folder: Path, trained: Path, tmp_path: Path) -> None:
    umt("export", trained / "checkpoint-latest.pth", "--output", tmp_path / "exported")
    exported = torch.load(tmp_path / "exported" / "model.pth", weights_only=True)["model"]
    assert torch.equal(exported["head.weight"], weights(trained)["head.weight"])
    assert umt("data", "check", "regress", folder) == "No problems found.\n"
    umt("data", "show", "regress", "--data_path", folder, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "train0.mp4" in page
    assert "data:image" in page


def test_a_tool_that_the_kind_does_not_offer_says_who_does(folder: Path, tmp_path: Path) -> None:
    printed = umt("plan", "regress", "--data_path", folder, "--output_dir", tmp_path, expect=2)
    assert "umt plan does not know regression of one number. It takes what umt pretrain, finetune trains." in printed


def test_the_page_shows_the_package_as_it_is() -> None:
    """Every block of docs/extend.md that names a file of the package stands in that file, word for word."""
    page = (ROOT / "docs" / "extend.md").read_text()
    blocks = re.findall(r"^`(umt_regress/\w+\.py)`:?\n\n```py\n(.*?)^```", page, flags=re.M | re.S)
    assert len(blocks) >= 4
    for name, block in blocks:
        for part in block.split("    ...\n"):
            assert part.strip("\n") in (PACKAGE / name).read_text(), name
