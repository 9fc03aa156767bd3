"""Any few frames of any H.264 that x264 writes are those of a full decode from start to end, to the bit.

The readers leave frames out on the way (`umt.data.pyav_readers`); these tests hold that nothing leans on them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.videos import cut, played, render
from umt.data.pyav_readers import PyAV
from umt.data.reader import open_video

X264 = st.fixed_dictionaries(
    {
        "keyint": st.integers(1, 60),
        "min-keyint": st.just(1),
        "scenecut": st.sampled_from([0, 40]),
        "bframes": st.integers(0, 6),
        "b-adapt": st.integers(0, 2),
        "b-pyramid": st.sampled_from(["none", "strict", "normal"]),
        "ref": st.integers(1, 5),
        "weightp": st.integers(0, 2),
        "direct": st.sampled_from(["spatial", "temporal"]),
        "cabac": st.integers(0, 1),
        "slices": st.sampled_from([0, 3]),
        "open-gop": st.sampled_from([0, 0, 0, 1]),
        "intra-refresh": st.sampled_from([0, 0, 0, 1]),
        "interlaced": st.sampled_from([0, 0, 0, 1]),
        "repeat-headers": st.integers(0, 1),
        "aud": st.integers(0, 1),
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(x264=X264, start=st.integers(0, 15), data=st.data())
def test_sparse_frames_are_those_of_a_full_decode(x264: dict[str, object], start: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        params = ":".join(f"{name}={value}" for name, value in x264.items())
        path = render(Path(folder) / "a.mp4", frames=36, options={"preset": "fast", "x264-params": params})
        if start:  # a stream copy that begins anywhere
            path = cut(path, Path(folder) / "b.mp4", start)
        truth = played(path)
        wanted = data.draw(st.lists(st.integers(0, len(truth) - 1), min_size=1, max_size=8))
        with open_video(path, "pyav") as video, PyAV(str(path)) as seeking:
            assert len(video) == len(truth)
            np.testing.assert_array_equal(video.frames(wanted), truth[wanted])
            np.testing.assert_array_equal(seeking.frames(wanted), truth[wanted])
            np.testing.assert_array_equal(video.frames(wanted[:1]), truth[wanted[:1]])
