"""The crop of pretraining: one of a few scales and places, then an antialiased bilinear filter.

Source: the multi-scale corner crop of TSN (https://arxiv.org/abs/1608.00859) with further places along the edges, as
VideoMAE and UMT use it. Sizes and places are written (width, height) and (left, top) there, and here. The original
resizes with PIL; torch's filter for uint8 is the same with coarser weights and takes a sixth of the time.
"""

import numpy as np

from umt.data.transforms.resize import Frames

SCALES = (1.0, 0.875, 0.75, 0.66)
SNAP = 2  # a side within 2 pixels of the input size becomes the input size, and need not be resampled


def crop_sizes(width: int, height: int, input_size: int) -> list[tuple[int, int]]:
    """The 10 equally likely (width, height): sides of neighbouring scales of the short side, so ratios stay near 1."""
    short = min(width, height)
    sides = [int(short * scale) for scale in SCALES]
    sides = [input_size if abs(side - input_size) <= SNAP else side for side in sides]
    # A side that snapped to an input size beyond the frame (a video 223 pixels high) is cut back to the frame.
    pairs = [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    return [(min(w, width), min(h, height)) for w, h in pairs]


def crop_places(width: int, height: int, crop_width: int, crop_height: int) -> list[tuple[int, int]]:
    """The 13 equally likely (left, top): corners and centre, middles of the edges, middles of the quarters."""
    x, y = (width - crop_width) // 4, (height - crop_height) // 4
    corners = [(0, 0), (4 * x, 0), (0, 4 * y), (4 * x, 4 * y), (2 * x, 2 * y)]
    edges = [(0, 2 * y), (4 * x, 2 * y), (2 * x, 4 * y), (2 * x, 0)]
    quarters = [(x, y), (3 * x, y), (x, 3 * y), (3 * x, 3 * y)]
    return corners + edges + quarters


def crop_and_resize(frames: Frames, left: int, top: int, width: int, height: int, input_size: int) -> Frames:
    """Cuts the box out of every frame, then resizes it: (T, input_size, input_size, 3).

    In this order, because a filter that sees pixels outside the box would mix them into its borders. Compared with PIL
    a few pixels in a hundred fall to the other side of a tie: one grey level, up as often as down (tested).
    """
    crop = np.array(frames[:, top : top + height, left : left + width])
    if (height, width) == (input_size, input_size):
        return crop
    import torch  # here: transforms that do not resize need none

    channels_last = torch.from_numpy(crop).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        channels_last, (input_size, input_size), mode="bilinear", antialias=True, align_corners=False
    )
    out: Frames = resized.permute(0, 2, 3, 1).numpy()
    return out


def multi_scale_crop(frames: Frames, input_size: int, rng: np.random.Generator) -> Frames:
    """One random crop for all frames: (T, H, W, 3) -> (T, input_size, input_size, 3)."""
    height, width = frames.shape[1:3]
    sizes = crop_sizes(width, height, input_size)
    size = sizes[rng.integers(len(sizes))]
    places = crop_places(width, height, *size)
    return crop_and_resize(frames, *places[rng.integers(len(places))], *size, input_size)
