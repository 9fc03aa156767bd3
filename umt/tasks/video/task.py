"""What the tasks on clips share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umt.data.loading.clip_batch import ClipBatch
from umt.tasks.base import Task


class ClipTask(Task):
    """A task whose batches are clips."""

    def batch_from(self, state: Mapping[str, Any]) -> ClipBatch:
        """See `Task`."""
        return ClipBatch(**state)
