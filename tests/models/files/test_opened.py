"""A file of weights is opened once in a process, and handed from what looks at it to what loads it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from umt.models import create_model, load_weights
from umt.models.files.checkpoint_file import read_content, read_header, read_state_dict
from umt.models.files.opened import close_all, open_file, sha256_of
from umt.models.files.peek import peek
from umt.models.files.pickles import flags_in
from umt.models.files.weights import open_weights

CLASSES = [f"class {number}" for number in range(5)]
CONFIG = {"task": "finetune", "model": "vit_tiny_patch8_48", "num_frames": 8, "input_size": 48, "class_names": CLASSES}
# Python tells a hook of every file that it opens.
COUNTED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
path = sys.argv[1]
{body}
print(sum(str(name) == path for name in opened))
"""


def new_form(path: Path) -> Path:
    state = create_model("vit_tiny_patch8_48", num_classes=5).state_dict()
    torch.save({"model": state, "config": CONFIG}, path / "w.pth")
    return path / "w.pth"


def old_form(path: Path) -> Path:
    state = create_model("vit_tiny_patch8_48", num_classes=5).state_dict()
    torch.save({"model": state, "config": CONFIG}, path / "w.pth", _use_new_zipfile_serialization=False)
    return path / "w.pth"


def safetensors_form(path: Path) -> Path:
    save_file(create_model("vit_tiny_patch8_48", num_classes=5).state_dict(), path / "w.safetensors")
    return path / "w.safetensors"


FORMS: list[Callable[[Path], Path]] = [new_form, old_form, safetensors_form]
forms = pytest.mark.parametrize("form", FORMS, ids=[form.__name__ for form in FORMS])


def times_opened(path: Path, body: str) -> int:
    words = [sys.executable, "-c", COUNTED.format(body=body), str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@forms
def test_what_a_run_asks_of_its_weights_opens_them_once(form: Callable[[Path], Path], tmp_path: Path) -> None:
    """In the order of a run on one's own videos: what they are, whether they are whole, their head, their tensors."""
    body = """
from pathlib import Path
from umt.models.files.peek import peek
assert peek(path).head == 5
from umt.models.files.opened import sha256_of
digits = sha256_of(Path(path))
from umt.models import create_model, load_weights
from umt.models.files.weights import read_head
assert read_head(path).rows == 5
load_weights(create_model("vit_tiny_patch8_48", num_classes=5), path, sha256=digits)
"""
    assert times_opened(form(tmp_path), body) == 1


@pytest.mark.parametrize("form", [new_form, old_form])
def test_umt_load_opens_a_checkpoint_once(form: Callable[[Path], Path], tmp_path: Path) -> None:
    body = "import umt; assert umt.load(path, device='cpu').description.provenance['sha256']"
    assert times_opened(form(tmp_path), body) == 1


@pytest.mark.parametrize("flags", [[], ["--ema"]])
def test_umt_export_opens_a_checkpoint_once(flags: list[str], tmp_path: Path) -> None:
    state = create_model("pretrain_umt_tiny_patch8_48").state_dict()  # exported as its encoder, `original` as a whole
    torch.save({"model": state, "model_ema": state}, tmp_path / "w.pth")
    words = ["--output", str(tmp_path / "out"), "--format", "safetensors", "original", *flags]
    body = f"""
sys.argv = ["umt", "export", path, *{words}]
from umt.__main__ import main
assert main() == 0
"""
    assert times_opened(tmp_path / "w.pth", body) == 1


@forms
def test_a_header_has_all_but_the_values_of_the_tensors(form: Callable[[Path], Path], tmp_path: Path) -> None:
    path = form(tmp_path)
    whole, header = open_weights(path), open_weights(path, header=True)
    assert {name: tuple(value.shape) for name, value in whole.state.items()} == {
        name: value.shape for name, value in header.state.items()
    }
    assert (whole.settings, whole.labels(), whole.head()) == (header.settings, header.labels(), header.head())


def test_a_header_has_the_flags_that_the_original_pickles(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=0.5, model="x")}, tmp_path / "w.pth")
    assert flags_in(read_header(tmp_path / "w.pth")["args"]) == {"lr": 0.5, "model": "x"}
    assert flags_in(read_content(tmp_path / "w.pth")["args"]) == {"lr": 0.5, "model": "x"}


def test_a_file_of_torch_s_old_form_is_known_by_its_shapes(tmp_path: Path) -> None:
    start = peek(str(old_form(tmp_path)))
    assert (start.model, start.tubelet_size, start.head) == ("vit_tiny_patch8_48", 1, 5)


def test_a_file_is_closed_when_its_tensors_are_read(tmp_path: Path) -> None:
    path = new_form(tmp_path)
    assert peek(str(path)).head == 5
    assert open_file(path).is_open
    load_weights(create_model("vit_tiny_patch8_48", num_classes=5), path)
    assert not open_file(path).is_open


def test_a_hash_alone_leaves_no_file_open(tmp_path: Path) -> None:
    path = new_form(tmp_path)
    sha256_of(path)
    assert not open_file(path).is_open


def test_close_all_closes_what_was_looked_at(tmp_path: Path) -> None:
    path = new_form(tmp_path)
    peek(str(path))
    close_all()
    assert not open_file(path).is_open


def test_at_most_four_files_are_open(tmp_path: Path) -> None:
    files = []
    for number in range(6):
        torch.save({"w": torch.ones(number + 1)}, tmp_path / f"{number}.pth")
        files.append(open_file(tmp_path / f"{number}.pth"))
        assert files[-1].header is not None
    assert [file.is_open for file in files] == [False, False, True, True, True, True]


def test_a_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for value in (1.0, 2.0):
        torch.save({"w": torch.full((3,), value)}, tmp_path / "new.pth")
        (tmp_path / "new.pth").replace(path)
        assert read_header(path)["w"].shape == (3,)  # and open it is left
        assert torch.equal(read_state_dict(path)["w"], torch.full((3,), value))


def test_threads_that_load_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({f"w{i}": torch.full((1000,), float(i)) for i in range(50)}, path)
    right: list[bool] = []

    def load() -> None:
        state = read_state_dict(path)
        right.append(all(bool((state[f"w{i}"] == i).all()) for i in range(50)))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4
