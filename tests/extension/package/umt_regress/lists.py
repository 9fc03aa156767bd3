"""Lists of lines `video,number`; paths are meant from the list's own folder."""

from __future__ import annotations

from pathlib import Path

from umt.errors import AnnotationError


def read(file: Path) -> tuple[list[str], list[float]]:
    """Paths and numbers. Raises AnnotationError naming file:line."""
    if not file.is_file():
        raise AnnotationError(f"{file} does not exist. --data_path must hold train.csv, val.csv and test.csv.")
    paths: list[str] = []
    numbers: list[float] = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        path, _, value = line.rpartition(",")
        try:
            numbers.append(float(value))
        except ValueError:
            raise AnnotationError(f"{file}:{number}: '{value}' is not a number. A line is video,number.") from None
        paths.append(path)
    return paths, numbers
