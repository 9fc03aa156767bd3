"""Whether the videos of a list are where it says, asked before a run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from umt.data.lists.video_list import VideoList
from umt.data.storage.source import PLAIN_FILES, Storage
from umt.errors import AnnotationError

_LOOKS = 20  # videos, spread over the list, that tell whether the prefix is right


def missing_files(videos: VideoList, storage: Storage = PLAIN_FILES) -> list[int]:
    """Rows whose file or folder is not there. Looked up in parallel: network disks answer slowly, but many at once."""
    with ThreadPoolExecutor(16) as pool:
        there = pool.map(lambda row: storage.there(videos, row), range(len(videos)))
        return [row for row, is_there in enumerate(there) if not is_there]


def require_files(videos: VideoList, storage: Storage = PLAIN_FILES) -> None:
    """Raises AnnotationError that counts the videos which are not there, and names the first."""
    missing, prefix = missing_files(videos, storage), videos.prefix or "none"
    if missing:
        raise AnnotationError(
            f"{videos.source}: {len(missing)} of {len(videos)} videos cannot be read: no such file, first "
            f"{storage.name(videos, missing[0])} (row {missing[0]}, counted from 0). Check --prefix ({prefix}), "
            "take them off the list, or give --count_unreadable_as_wrong."
        )


def require_some_files(videos: VideoList, storage: Storage = PLAIN_FILES) -> None:
    """Raises AnnotationError where none of a few videos, spread over the list, is there: then the prefix is wrong."""
    rows = range(0, len(videos), -(-len(videos) // _LOOKS))
    if not any(storage.there(videos, row) for row in rows):
        raise AnnotationError(
            f"{videos.source}: none of {len(rows)} videos looked up is there, first {storage.name(videos, 0)}. "
            f"Check --prefix ({videos.prefix or 'none'}) and the list."
        )
