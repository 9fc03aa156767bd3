"""What a check can find: the kinds, each with its weight and remedy, and a finding of a kind at a place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Kind:
    """`drops`: --fix leaves the row out."""

    weight: str
    what: str
    remedy: str
    drops: bool = False


_ENDS = "Copy or download it again, or leave it out (--fix)."

# In the order of the report.
KINDS: dict[str, Kind] = {
    "list": Kind(ERROR, "the list cannot be read", "Convert or mend it."),
    "separator": Kind(ERROR, "--split does not separate the columns", "Give the run the separator that is named."),
    "malformed": Kind(ERROR, "a line that is not a row", "Mend the line, or leave it out (--fix).", drops=True),
    "no_label": Kind(ERROR, "no label", "Give every row a label; only pretraining needs none.", drops=True),
    "label": Kind(ERROR, "label outside the classes", "Check --nb_classes; labels count from 0.", drops=True),
    "label_order": Kind(ERROR, "labels in another order than stated", "Write the lists again with umt data prepare."),
    "two_labels": Kind(ERROR, "a file with several labels", "Keep the right one; --fix keeps none.", drops=True),
    "leaked": Kind(ERROR, "a training video of validation or test", "Take it off train (--fix).", drops=True),
    "missing": Kind(ERROR, "no such file", "Check --prefix, copy it, or leave it out (--fix).", drops=True),
    "empty": Kind(ERROR, "an empty file or folder", _ENDS, drops=True),
    "wrong_type": Kind(ERROR, "a folder, not a file, or the reverse", "Check --use_decord.", drops=True),
    "unreadable": Kind(ERROR, "the disk refuses to read it", "Check its permissions and the disk.", drops=True),
    "truncated": Kind(ERROR, "truncated: the end is missing", _ENDS, drops=True),
    "undecodable": Kind(ERROR, "cannot be decoded", _ENDS, drops=True),
    "hangs": Kind(ERROR, "decoding exceeds --decode_timeout", "Allow more time, or leave it out (--fix).", drops=True),
    "crashes": Kind(ERROR, "decoding it kills the process", "Leave it out (--fix).", drops=True),
    "frames_missing": Kind(ERROR, "fewer frames in the folder than listed", _ENDS, drops=True),
    "damaged": Kind(WARNING, "decoded, but with errors in the picture", "Look at it; copy it again if it matters."),
    "frame_count": Kind(WARNING, "not as many frames as announced", "Frames may be missing; look at it."),
    "short": Kind(WARNING, "shorter than a clip", "Its frames repeat; leave it out if there are many."),
    "odd_size": Kind(WARNING, "odd width or height", "Only PyAV reads it; umt data transcode makes it even."),
    "duplicate": Kind(WARNING, "a file more than once", "It counts that often; --fix keeps the first.", drops=True),
    "copy": Kind(WARNING, "the same content as another file", "It counts twice; --fix keeps the first.", drops=True),
    "no_samples": Kind(WARNING, "classes without a sample", "Check --nb_classes and what is missing."),
    "quotes": Kind(WARNING, "quotes", "Understood here; other readers take them for part of the path. --fix."),
    "spaces": Kind(WARNING, "spaces in or around fields", "Understood here; scripts and other readers may fail."),
    "non_ascii": Kind(WARNING, "letters outside ASCII", "Other systems may encode them differently (NFC, NFD)."),
    "bom": Kind(WARNING, "a byte-order mark", "Understood here; other readers take it for part of the path. --fix."),
    "line_ends": Kind(WARNING, "Windows line ends", "Understood here; other readers may fail. --fix."),
    "remote": Kind(WARNING, "folders of frames at a URL are not checked", "Check them where they are."),
}  # fmt: skip

# What makes a run fail to read a file; --max_failures allows for it in training.
OF_FILES = frozenset(
    ("missing", "empty", "wrong_type", "unreadable", "truncated", "undecodable", "hangs", "crashes", "frames_missing")
)


@dataclass(frozen=True)
class Finding:
    """One finding. `line` counts from 1 (0: it is about the whole list); it stands for `count` lines or classes."""

    kind: str
    source: str
    line: int = 0
    path: str = ""
    detail: str = ""
    count: int = 1
    weight: str = ""

    def __post_init__(self) -> None:
        if not self.weight:
            object.__setattr__(self, "weight", KINDS[self.kind].weight)

    @property
    def place(self) -> str:
        """file:line, as editors jump to it."""
        return f"{self.source}:{self.line}" if self.line else self.source

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "what": KINDS[self.kind].what}
