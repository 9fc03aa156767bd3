"""What `timm:NAME` says by itself: no torch and no timm, whose import takes seconds."""

from __future__ import annotations

import re

TIMM = "timm:"
_PATCH = re.compile(r"patch(\d+)")


def is_timm(teacher: str) -> bool:
    """Whether `--clip_teacher` names a model of timm's."""
    return teacher.startswith(TIMM)


def patch_size(teacher: str) -> int | None:
    """Pixels of a patch by the custom of timm's names: 14 of `timm:vit_small_patch14_dinov2`; None without one."""
    match = _PATCH.search(teacher)
    return int(match[1]) if match and int(match[1]) else None
