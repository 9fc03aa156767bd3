"""`umt predict` against `umt test`, on an hour of video, and on videos of a web server and of S3."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.conftest import Command, Data, environment
from tests.inference.tiny import checkpoint
from tests.videos import render
from umt.evaluation.multiview import merge
from umt.evaluation.scores import ViewScores

pytestmark = pytest.mark.slow


def test_predictions_are_the_merged_scores_of_umt_test(umt: Command, data: Data, tmp_path: Path) -> None:
    trained = tmp_path / "run"
    umt(*data.finetune, "--output_dir", str(trained), "--epochs", "1", "--warmup_epochs", "0", "--precision", "fp32")
    scores = ViewScores.load(trained / "scores.npz")
    umt(
        "predict", str(data.folder / "test.csv"), "--checkpoint", str(trained / "checkpoint-best.pth"),
        "--device", "cpu", "--precision", "fp32", "--batch_size", "4", "--topk", "4",
        "--json", str(tmp_path / "x.json"), "--num_workers", "2",
    )  # fmt: skip
    told = json.loads((tmp_path / "x.json").read_text())["videos"]
    merged = merge(scores.logits)
    assert [Path(video["path"]).name for video in told] == scores.paths
    for video, row in zip(told, merged, strict=True):
        predicted = {one["class"]: one["probability"] for one in video["predictions"]}
        assert [predicted[k] for k in range(4)] == pytest.approx(row.round(6).tolist(), abs=1e-9)
    assert np.ptp(merged) > 0.01


def test_an_hour_of_video_is_gone_through_in_the_memory_of_a_minute(tmp_path: Path) -> None:
    weights = checkpoint(tmp_path)
    peaks, windows = [], []
    for name, seconds in (("minute", 60), ("hour", 3600)):
        video = render(tmp_path / f"{name}.mp4", frames=seconds * 5, fps=5, width=64, height=48, gop=50)
        code = (
            "import resource, sys; from umt.tools.predict.command import main; "
            f"main([{str(video)!r}, '--checkpoint', {str(weights)!r}, '--device', 'cpu', '--precision', 'fp32', "
            f"'--window', '4', '--json', {str(tmp_path / name)!r}]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
        windows.append(json.loads((tmp_path / name).read_text())["videos"][0]["windows"])
    assert [len(found) for found in windows] == [15, 900]
    assert windows[1][-1]["end"] == 3600
    assert windows[1][:15] == windows[0]
    assert peaks[1] < peaks[0] + 40  # MiB; the hour has 158 MiB of frames


@contextlib.contextmanager
def web(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_videos_by_url_are_those_of_the_disk(umt: Command, tmp_path: Path, s3: str) -> None:
    from umt.data.storage import remote

    weights = checkpoint(tmp_path)
    video = render(tmp_path / "a.mp4", frames=30, fps=10)
    store = remote.client("s3://predict")
    store.mkdir("predict")
    store.put_file(str(video), "predict/a.mp4")
    with web(tmp_path) as address:
        places = [str(video), f"{address}/a.mp4", "s3://predict/a.mp4", f"{address}/gone.mp4"]
        for window in ([], ["--window", "1"]):
            done = umt(
                "predict", *places, "--checkpoint", str(weights), "--device", "cpu", "--precision", "fp32",
                "--json", "-", *window, code=2,
            )  # fmt: skip
            told = json.loads(done.stdout)
            assert [one["path"] for one in told["videos"]] == places[:3]
            here, web_, store_ = ({k: v for k, v in one.items() if k != "path"} for one in told["videos"])
            assert here == web_ == store_
            assert "gone.mp4: cannot be read as a video (no such object" in told["failures"][0]["cause"]
