"""The number that a stored file carries for its layout, and the sentence for a file that a later version wrote.

A number is raised when readers of the old layout would misread the new one; a change that they can ignore keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umt.errors import CheckpointError, UserError


@dataclass(frozen=True)
class Format:
    """The layout of one kind of file.

    Args:
        what: the content, as it is called in a sentence: "a training checkpoint".
        error: what its readers raise.
        key: the name under which the number is stored.
        number: of the layout that is written, and the highest that is read.
    """

    what: str
    error: type[UserError]
    key: str = "format"
    number: int = 1

    def stamp(self) -> dict[str, int]:
        """What the writer puts into the file."""
        return {self.key: self.number}

    def check(self, content: Mapping[str, Any], where: object) -> None:
        """Raises `error` if `content`, read from `where`, has a later number. Without a number it has the first."""
        number = content.get(self.key, 1)
        if not isinstance(number, int) or number > self.number:
            raise self.error(
                f"{where} holds format {number} of {self.what}; this umt reads up to {self.number}. Update umt-video."
            )


# Here because the engine writes checkpoints and the models, which do not know the engine, read their weights.
CHECKPOINT = Format("a training checkpoint", CheckpointError)
