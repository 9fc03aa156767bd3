"""What decides the features of a run, to the bit; it is written next to them."""

from __future__ import annotations

import hashlib
import os
import sys
from argparse import Namespace
from typing import Any

import numpy as np
import torch

from umt import __version__
from umt.data.lists.video_list import VideoList
from umt.data.video.reader import choose
from umt.engine.evaluate import weights_digest
from umt.inference.extraction import Extractor
from umt.inference.features import FORMAT

RULES = {
    "sparse": "of each of num_frames equal segments the frame (c + 1) / (clips + 1) of the way through it",
    "dense": "every sampling_rate-th frame; clips begin evenly from the first place to the last",
    "ssv2": "frame int(L / num_frames * (x + c / clips)) of L, for x in 0..num_frames - 1",
    "sliding": "a clip begins every clip_stride frames and takes every sampling_rate-th; those that would run out of "
    "the video are left out, but for the first, which repeats the last frame",
}


def recipe_of(
    words: Namespace, extractor: Extractor, videos: VideoList, *, clips: int, crops: int, threads: int
) -> dict[str, Any]:
    """The recipe of a run with the flags `words`."""
    model, views = extractor.recognizer, extractor.recognizer.views
    sliding = words.clip_stride is not None
    rule = "sliding" if sliding else views.sampling
    import av

    return {
        **FORMAT.stamp(),
        "layers": list(extractor.layers),
        "pool": extractor.pool,
        "dtype": words.dtype,
        "format": words.format,
        "shard_size": words.shard_size,
        "frames": {
            "rule": rule,
            "meaning": RULES[rule],
            "num_frames": views.num_frames,
            "clips": None if sliding else clips,
            "crops": crops,
            "sampling_rate": views.sampling_rate,
            "clip_stride": words.clip_stride,
            "short_side_size": views.short_side_size,
            "input_size": views.input_size,
            "decoder": choose(words.decoder),
        },
        "grid": list(extractor.grid),
        "checkpoint": str(words.checkpoint),
        "weights_digest": weights_digest(model.model),
        "provenance": model.description.provenance,
        "description": {**model.description.to_json(), "labels": None, "provenance": None},
        "rows": {"count": len(videos), "sha256": _digest(videos)},
        "list": {"source": os.path.abspath(videos.source) if os.path.exists(videos.source) else videos.source,
                 "prefix": videos.prefix, "classes": videos.class_names, "multi_label": videos.multi_label},
        "computed": {"device": model.device.type, "precision": model.precision, "batch_size": model.batch_size,
                     "threads": threads},
        "versions": {"umt": __version__, "torch": torch.__version__, "numpy": np.__version__, "av": av.__version__,
                     "python": sys.version.split()[0]},
        "command": ["umt", "extract", *words.argv],
    }  # fmt: skip


def _digest(videos: VideoList) -> str:
    digest = hashlib.sha256()
    for row in range(len(videos)):
        digest.update(videos.path(row).encode("utf-8", "surrogateescape") + b"\0")
    digest.update(videos.labels.tobytes())
    return digest.hexdigest()
