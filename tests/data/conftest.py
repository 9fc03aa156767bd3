"""A small data set of real MP4 files, rendered once per test session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.videos import render


@pytest.fixture(scope="session")
def mp4s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven videos v0.mp4 ... v6.mp4 of 20 to 26 frames, three classes, and their list train.csv."""
    folder = tmp_path_factory.mktemp("mp4s")
    for i in range(7):
        render(folder / f"v{i}.mp4", frames=20 + i, label=i % 3)
    (folder / "train.csv").write_text("".join(f"v{i}.mp4,{i % 3}\n" for i in range(7)))
    return folder
