"""A rendered video under as many names as a test wants, and annotation files in the official forms."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.videos import render

Tree = Callable[..., Path]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=8, width=32, height=32)


@pytest.fixture
def tree(clip: Path, tmp_path: Path) -> Tree:
    """`tree("a/x.mp4", ...)` puts the video there, below `videos` (or another folder), and returns that folder."""

    def make(*paths: str, folder: str = "videos") -> Path:
        for path in paths:
            file = tmp_path / folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, file)
        return tmp_path / folder

    return make


def kinetics_csv(
    file: Path, rows: Iterable[tuple[str, str, int, int]], split: str, *, activitynet: bool = False
) -> Path:
    """Rows as DeepMind and CVDF publish them, or with ActivityNet's last column."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = "label,youtube_id,time_start,time_end,split" + ",is_cc" * activitynet
    lines = [f'"{a}",{b},{c},{d},{split}' + ",0" * activitynet for a, b, c, d in rows]
    file.write_text("\n".join([header, *lines]) + "\n")
    return file
