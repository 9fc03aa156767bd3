"""Files that look like ours but are of another architecture, recognised by names so that a sentence can say which."""

from __future__ import annotations

from collections.abc import Iterable

from umt.errors import CheckpointError

# The first of these that a file has names of says what it is. (marks in names, what the file is, why it does not load)
_FOREIGN: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("clip_projector.", ".ls1.gamma", ".attn.q_norm."),
        "an InternVideo2 (of any size, distilled ones too)",
        "it has a class token, RMS norms, normalised queries and keys, and attention pooling; the models here do not",
    ),
    ((".attn.scale",), "a VideoMAE V2 with cosine attention", "the models here have scaled dot products"),
    (
        ("vision_encoder.", "text_encoder."),
        "a video-and-text model",
        "only its video tower could fit: try --model_prefix vision_encoder. (in Python: model_prefix=)",
    ),
    ((".temporal_attn.", ".temporal_norm1."), "a TimeSformer", "it attends in time and space by turns"),
    (
        ("class_embedding",),
        "a CLIP, an image model",
        "its visual tower is a teacher's (docs/teachers.md) and no start for a video model; umt extract takes its "
        "features where --model names the teacher, e.g. --model clip_b16",
    ),
    (
        ("predictor.", ".attn.qkv.bias", "cls_token"),
        "a vision transformer of another family",
        "it has one bias for queries, keys and values, or a class token, where the models here have q_bias and v_bias",
    ),
)


def refuse_foreign(names: Iterable[str], where: str) -> None:
    """Raises `CheckpointError` for a state dict of an architecture that is known not to be ours."""
    names = list(names)
    for marks, what, why in _FOREIGN:
        if any(mark in name for name in names for mark in marks):
            raise CheckpointError(f"{where} is {what}: {why}. docs/checkpoints.md lists what loads.")


def no_architecture(names: Iterable[str], where: str) -> CheckpointError:
    """Of names that nothing here knows."""
    some = ", ".join(list(names)[:3])
    return CheckpointError(
        f"{where} is of no architecture that this library has: it has no patch_embed.proj.weight, but {some}, ... "
        "See docs/checkpoints.md for what loads."
    )
