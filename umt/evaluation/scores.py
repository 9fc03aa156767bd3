"""The scores of every view of every test video: collected, checked, saved and read back.

A result is keyed by (row of the annotation list, clip, crop), never by a file name. Each view counts once, and there is
no accuracy while one is missing. Shapes: R videos, S clips, C crops, K classes.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.errors import OutputError, ScoresError
from umt.writing import whole

FORMAT = "umt view scores"
VERSION = 1


class ViewScores:
    """Logits (R, S, C, K) float32 of a test, with a mark for each view that is in.

    `rows`, `labels` and `paths` are those of the annotation list (a label of -1: none). `labels` (R, K) of 0 and 1 are
    those of a multi-label list, saved as such. `provenance` says where the
    scores come from (checkpoint, its digest, precision, reader): short strings and numbers, saved with the scores and
    part of their fingerprint. `class_names`: the label order, if it has names.
    """

    def __init__(
        self,
        *,
        rows: Sequence[int],
        labels: Sequence[int] | NDArray[np.integer],
        paths: Sequence[str],
        clips: int,
        crops: int,
        classes: int,
        provenance: Mapping[str, str | int | float] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.rows = np.asarray(rows, np.int64)
        many = np.ndim(labels) == 2
        self.labels: NDArray[np.int64] = np.asarray(labels, np.int64)
        self.paths = list(paths)
        if not len(self.rows) == len(self.labels) == len(self.paths):
            raise ValueError(f"{len(self.rows)} rows, {len(self.labels)} labels and {len(self.paths)} paths")
        if many and self.labels.shape[1] != classes:
            raise ValueError(f"labels of {self.labels.shape[1]} classes for {classes} classes")
        self.clips, self.crops, self.classes = clips, crops, classes
        self.provenance = dict(provenance or {})
        self.class_names = list(class_names or [])
        if self.class_names and len(self.class_names) != classes:
            raise ValueError(f"{len(self.class_names)} class names for {classes} classes")
        self._place = {int(row): i for i, row in enumerate(self.rows)}
        if len(self._place) != len(self.rows):
            raise ValueError("a row of the list is given twice")
        # The operating system hands out these pages when they are written: a rank that holds a share pays for a share.
        self.logits: NDArray[np.float32] = np.zeros((len(self.rows), clips, crops, classes), np.float32)
        self.seen: NDArray[np.bool_] = np.zeros((len(self.rows), clips, crops), np.bool_)
        self.unreadable: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several labels, or none: `labels` are (R, K) then."""
        return self.labels.ndim == 2

    def place(self, row: int) -> int:
        """Index of annotation row `row` in the arrays. KeyError if the test has no such row."""
        return self._place[int(row)]

    def add(self, row: int, clip: int, crop: int, logits: NDArray[np.floating]) -> bool:
        """Takes the logits (K,) of one view. A view that is in already is left as it is; returns whether it was new.

        Raises ScoresError for logits that are not finite, naming the video.
        """
        at = self.place(row), int(clip), int(crop)
        if not (0 <= at[1] < self.clips and 0 <= at[2] < self.crops):
            raise IndexError(f"view {at[1:]} is outside {self.clips} clips x {self.crops} crops")
        if self.seen[at]:
            return False
        if not np.isfinite(logits).all():
            raise ScoresError(
                f"{self.paths[at[0]]} (row {row}): the scores of clip {clip}, crop {crop} are not finite. "
                f"Check the checkpoint, or test with --precision fp32."
            )
        self.logits[at] = logits
        self.seen[at] = True
        return True

    def add_video(self, row: int, logits: NDArray[np.floating]) -> bool:
        """Takes all views (S, C, K) of a video; returns whether any was new."""
        new = [self.add(row, s, c, logits[s, c]) for s in range(self.clips) for c in range(self.crops)]
        return any(new)

    def count_as_wrong(self, row: int, cause: str) -> None:
        """Notes that a video could not be read: it stays in the denominator, wrong, and is reported."""
        self.unreadable[int(self.rows[self.place(row)])] = cause

    def finished(self) -> list[int]:
        """Rows of which every view is in."""
        return [int(row) for row in self.rows[self.seen.all(axis=(1, 2))]]

    def missing(self) -> list[tuple[int, int, int]]:
        """Views (row, clip, crop) that are not in and not excused by `count_as_wrong`."""
        return [
            (int(self.rows[i]), int(s), int(c))
            for i, s, c in np.argwhere(~self.seen)
            if int(self.rows[i]) not in self.unreadable
        ]

    def require_complete(self) -> None:
        """Raises ScoresError naming what is missing: an accuracy over a part of the test is not an accuracy."""
        gaps = self.missing()
        if gaps:
            row, clip, crop = gaps[0]
            raise ScoresError(
                f"{len(gaps)} of {self.seen.size} views are missing, the first is clip {clip}, crop {crop} of "
                f"{self.paths[self.place(row)]} (row {row}): no accuracy without them. Run the test again, it goes on "
                f"from the videos that are finished."
            )

    def merge(self, other: ViewScores) -> None:
        """Takes over the views of `other`, a part of the same test; a view that both have stays as it is here."""
        if other.fingerprint() != self.fingerprint():
            raise ScoresError(
                "scores of two different tests cannot be merged into one; to combine runs, ensemble them."
            )
        fresh = other.seen & ~self.seen
        self.logits[fresh] = other.logits[fresh]
        self.seen |= fresh
        self.unreadable.update({r: c for r, c in other.unreadable.items() if r not in self.unreadable})

    def fingerprint(self) -> str:
        """Digest of what is tested: list, views, classes and provenance. Other fingerprint, other test."""
        digest = hashlib.sha256()
        digest.update(json.dumps(self._meta(), sort_keys=True).encode())
        digest.update(self.rows.tobytes())
        digest.update(self.labels.tobytes())
        digest.update("\n".join(self.paths).encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _meta(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "clips": self.clips,
            "crops": self.crops,
            "classes": self.classes,
            "provenance": self.provenance,
            "class_names": self.class_names,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one .npz of plain typed arrays, whole or not at all. OutputError if it cannot be written."""
        path = Path(path)
        meta = json.dumps({**self._meta(), "unreadable": {str(r): c for r, c in self.unreadable.items()}})
        try:
            with whole(path) as place, open(place, "wb") as file:
                np.savez(
                    file,
                    meta=np.frombuffer(meta.encode(), np.uint8),
                    row=self.rows,
                    label=self.labels.astype(np.uint8) if self.multi_label else self.labels,
                    # Bytes, not numpy text: a name that is not UTF-8 survives.
                    path=np.frombuffer("\n".join(self.paths).encode(errors="surrogateescape"), np.uint8),
                    logits=self.logits,
                    seen=self.seen,
                )
        except OSError as error:
            raise OutputError(
                f"{path}: the scores cannot be written ({error.strerror}). Free the disk or change --output_dir."
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ViewScores:
        """Reads what `save` wrote. ScoresError if the file is missing, damaged, or something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(file["meta"].tobytes())
                if meta.get("format") != FORMAT or meta.get("version", 0) > VERSION:
                    raise ScoresError(
                        f"{path} holds {meta.get('format')!r} version {meta.get('version')}; this umt reads {FORMAT!r} "
                        f"up to version {VERSION}."
                    )
                text = file["path"].tobytes().decode(errors="surrogateescape")
                rows, labels, logits, seen = (file[key] for key in ("row", "label", "logits", "seen"))
        except FileNotFoundError as error:
            raise ScoresError(f"{path} does not exist; give the scores file of a finished test.") from error
        except ScoresError:
            raise
        except (OSError, zipfile.BadZipFile, KeyError, EOFError, ValueError, AttributeError) as error:
            raise ScoresError(f"{path} is not a whole scores file ({error}). Run that test again.") from error
        scores = cls(
            rows=rows.tolist(),
            labels=labels,
            paths=text.split("\n") if len(rows) else [],
            **{key: meta[key] for key in ("clips", "crops", "classes", "provenance", "class_names")},
        )
        scores.logits, scores.seen = logits, seen
        scores.unreadable = {int(r): c for r, c in meta["unreadable"].items()}
        return scores
