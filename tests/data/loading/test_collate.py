"""What becomes of the samples of a batch."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umt.data.loading.clip_batch import collate
from umt.data.loading.clips import Sample


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2), st.integers(0, 999)
)
def test_channels_are_parted_whatever_the_layout_of_the_frames(
    clips: int, frames: int, height: int, width: int, cut: int, seed: int
) -> None:
    """Crops are views of larger frames, and a mirrored clip may be a view that runs backwards."""
    rng = np.random.default_rng(seed)
    large = rng.integers(0, 256, (clips, frames, height + cut, width + 2 * cut, 3), dtype=np.uint8)
    views = [clip[:, cut:, cut : cut + width][:, :, :: -1 if seed % 2 else 1] for clip in large]
    batch = collate([Sample(view, label=n, row=n, path="", seed=n) for n, view in enumerate(views)], [])
    assert batch.video.is_contiguous()
    assert torch.equal(batch.video, torch.from_numpy(np.stack(views).transpose(0, 4, 1, 2, 3).copy()))
