"""What a run leaves behind can be read by machines and is the same after a kill."""

import json
import logging
import threading
from pathlib import Path

import pytest
import torch

from tests.engine import tiny_run
from umt.engine.logs import RunLog, append_line, cut_lines
from umt.engine.meters import Meters
from umt.engine.record import environment, git_commit, save_record
from umt.engine.trainer import TrainerOptions
from umt.errors import OutputError


def test_the_log_has_the_originals_names(tmp_path: Path) -> None:
    tiny_run.build(TrainerOptions(epochs=2, steps_per_epoch=2, output_dir=tmp_path)).fit()
    lines = [json.loads(line) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert {"train_loss", "train_lr", "train_min_lr", "train_grad_norm", "val_acc1", "n_parameters"} <= lines[0].keys()
    assert lines[0]["n_parameters"] == 96 * 8 + 8 + 8 * 3 + 3


def test_a_console_line_has_eta_data_wait_rate_and_memory(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="umt"):
        run_log = RunLog(None, log_every=2, progress_bar=False)
        tiny_run.build(TrainerOptions(epochs=1, steps_per_epoch=4), run_log=run_log).fit()
    lines = [r.getMessage() for r in caplog.records if "step" in r.getMessage()]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/1 step 2/4", "epoch 1/1 step 4/4"]
    for part in ("loss ", "lr ", "grad_norm ", "samples/s", "data ", "rss ", "eta "):
        assert part in lines[0]


def test_a_terminal_gets_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    run_log = RunLog(None, log_every=1, progress_bar=True)
    tiny_run.build(TrainerOptions(epochs=1, steps_per_epoch=3), run_log=run_log).fit()
    assert "epoch 1/1: 100%" in capsys.readouterr().err


def test_tensorboard_starts_no_thread_after_the_beginning(tmp_path: Path) -> None:
    run_log = RunLog(None, tensorboard_dir=tmp_path, log_every=1, progress_bar=False)
    run_log.rewind(epoch=0, global_step=0)
    before = set(threading.enumerate())
    run_log.start_epoch(0, epochs=1, first_step=0, steps=1)
    run_log.step(0, 0, {"loss": 1.0}, waited=0.0, samples=1)
    after = set(threading.enumerate())
    run_log.close()
    assert after <= before


def test_tensorboard_has_the_originals_heads(tmp_path: Path) -> None:
    run_log = RunLog(None, tensorboard_dir=tmp_path, log_every=1, progress_bar=False)
    tiny_run.build(TrainerOptions(epochs=1, steps_per_epoch=2), run_log=run_log).fit()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for name in (b"loss/loss", b"opt/lr", b"opt/min_lr", b"opt/weight_decay", b"opt/grad_norm", b"perf/val_acc1"):
        assert name in written


def test_later_lines_and_a_torn_last_one_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text('{"epoch": 0}\n{"note": "kept"}\n{"epoch": 1}\n{"note": "later"}\n{"epo')
    cut_lines(path, lambda line: line.get("epoch", -1) >= 1)
    assert path.read_text() == '{"epoch": 0}\n{"note": "kept"}\n'


def test_a_run_that_goes_on_after_its_test_drops_the_result_of_it(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text('{"epoch": 0}\n{"Final top-1": 50}\n')
    log = RunLog(tmp_path)
    log.rewind(epoch=1, global_step=5)
    log.close()
    assert (tmp_path / "log.txt").read_text() == '{"epoch": 0}\n'


def test_a_torn_line_alone_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text('{"epoch": 0}\n{"epoch": 1, "train_')
    cut_lines(path, lambda line: line.get("epoch", -1) >= 5)
    assert path.read_text() == '{"epoch": 0}\n'


def test_a_log_line_is_valid_json_whatever_the_numbers(tmp_path: Path) -> None:
    append_line(tmp_path / "log.txt", {"a": float("nan"), "b": float("inf"), "c": 1.5})
    assert (tmp_path / "log.txt").read_text() == '{"a": null, "b": null, "c": 1.5}\n'


def test_a_log_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"log.txt could not be written: No such file or directory"):
        append_line(tmp_path / "nowhere" / "log.txt", {})


def test_means_are_exact_after_a_restart() -> None:
    whole, first, second = Meters(), Meters(), Meters()
    values = [{"loss": 0.1 * i + 1e-9} for i in range(50)]
    for value in values:
        whole.add(value)
    for value in values[:20]:
        first.add(value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for value in values[20:]:
        second.add(value)
    assert second.means() == whole.means()


def test_an_infinite_norm_does_not_spoil_the_mean() -> None:
    meters = Meters()
    meters.add({"grad_norm": 2.0})
    meters.add({"grad_norm": float("inf")})
    assert meters.means() == {"grad_norm": 2.0}


def test_the_record_says_what_ran_and_where(tmp_path: Path) -> None:
    for _ in range(2):
        save_record(tmp_path, {"lr": 1e-3, "folder": tmp_path}, {"threads": 1})
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 1e-3, "folder": str(tmp_path)}
    starts = [json.loads(line) for line in (tmp_path / "environment.jsonl").read_text().splitlines()]
    assert len(starts) == 2
    assert starts[0]["packages"]["torch"] == torch.__version__
    assert {"command", "host", "git", "gpus", "python", "threads", "time"} <= starts[0].keys()


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    assert environment()["umt"]
