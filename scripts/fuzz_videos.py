"""Feeds every reader damaged videos: each must give frames or say in a VideoError why not.

    python scripts/fuzz_videos.py [--files 2500] [--decoders auto decord torchcodec pyav] [--seed 0] [--keep DIR]

From a checkout. Makes whole and damaged files (tests/damaged.py: truncated, flipped bits, runs of zeros, wrong
containers, huge numbers in headers, no frames, rotated, grey, 10 bits, sound, images, ...), and reads 8 frames spread
over each, and its last one, by each decoder, in a child that is limited in memory (--memory GB of address space beyond
what the libraries take) and in time (--seconds a file). A child that crashes or hangs is replaced, and its file is a
finding, as is any other exception than VideoError. Prints a Markdown table; exit code 1 if there is a finding; --keep
leaves the files that gave one in a folder. `--child` is what the children are started with.
"""

from __future__ import annotations

import argparse
import collections
import json
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from tests.damaged import DAMAGES, WHOLE, sources, variant
from umt.data.video.reader import ORDER, available, choose, open_video
from umt.errors import VideoError

DECODED, NAMED = "decoded", "named"
LARGEST = 2048  # MB that reading one small file may take: FFmpeg itself believes tables of up to that size


def read(path: str, decoder: str) -> tuple[str, str]:
    """What comes of a file: `DECODED`, `NAMED` (and the sentence), or the name of another exception (and its text)."""
    try:
        with open_video(path, decoder) as video:
            length = len(video)
            wanted = np.append(np.linspace(0, length - 1, 8).round().astype(np.int64), length - 1)
            frames = video.frames(wanted)
            if frames.dtype != np.uint8 or frames.shape[0] != 9 or frames.shape[3] != 3 or frames.ndim != 4:
                return "wrong frames", f"{frames.dtype} {frames.shape} of {length}"
    except VideoError as error:
        sentence = str(error)
        return (NAMED, sentence) if sentence.startswith(path) and "\n" not in sentence else ("badly named", sentence)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return type(error).__name__, str(error)
    return DECODED, f"{frames.shape}"


def child(memory_gb: float, decoders: Sequence[str]) -> None:
    """Reads lines of JSON [path, decoder], answers each with [outcome, text, MB at its peak]."""
    for decoder in decoders:
        choose(decoder)  # the libraries are not what is to be limited
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(memory_gb * (1 << 30))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        path, decoder = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _peak_mb()
        outcome, text = read(path, decoder)
        print(json.dumps([outcome, text, _peak_mb() - before]), flush=True)


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmHWM in /proc/self/status")


@dataclass(frozen=True)
class Finding:
    """What came of reading one file with one decoder."""

    damage: str
    source: str
    decoder: str
    path: str
    outcome: str
    text: str
    megabytes: float

    @property
    def good(self) -> bool:
        return self.outcome in (DECODED, NAMED) and self.megabytes <= LARGEST


class Reader:
    """A child and its replacements."""

    def __init__(self, seconds: float, memory_gb: float, decoders: Sequence[str]) -> None:
        self.seconds, self.memory_gb, self.decoders = seconds, memory_gb, decoders
        self._child: subprocess.Popen[str] | None = None

    def __call__(self, path: str, decoder: str) -> tuple[str, str, float]:
        if self._child is None:
            words = [sys.executable, __file__, "--child", "--memory", str(self.memory_gb), "--decoders", *self.decoders]
            self._child = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        talk = self._child
        assert talk.stdin is not None
        assert talk.stdout is not None
        talk.stdin.write(json.dumps([path, decoder]) + "\n")
        talk.stdin.flush()
        # The libraries' first import may take long; a hang takes longer.
        if not select.select([talk.stdout], [], [], self.seconds)[0]:
            self.close()
            return "hangs", f"longer than {self.seconds:g} s", 0.0
        line = talk.stdout.readline()
        if not line:
            code = talk.wait()
            self.close()
            return "crashes", f"exit code {code}", 0.0
        outcome, text, megabytes = json.loads(line)
        return outcome, text, megabytes

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def fuzz(
    folder: Path,
    *,
    files: int,
    decoders: Sequence[str],
    seed: int = 0,
    first: int = 0,
    seconds: float = 20.0,
    memory_gb: float = 8.0,
) -> Iterator[Finding]:
    """The outcome of files `first` to `first + files - 1` of `seed` by each decoder. Good files are removed."""
    whole = sources(folder)
    reader = Reader(seconds, memory_gb, decoders)
    reader.seconds = 120.0
    reader(str(folder), "auto")  # waits until the child is there
    reader.seconds = seconds
    try:
        for number in range(first, first + files):
            one = variant(whole, seed, number)
            path = folder / f"{number:05}{one.ending}"
            path.write_bytes(one.data)
            good = True
            for decoder in decoders:
                finding = Finding(one.damage, one.source, decoder, str(path), *reader(str(path), decoder))
                good &= finding.good
                yield finding
            if good:
                path.unlink()
    finally:
        reader.close()


def table(findings: Sequence[Finding]) -> str:
    """Markdown: a row for each kind of damage, and for each decoder how many files were decoded, named, or neither."""
    decoders = list(dict.fromkeys(f.decoder for f in findings))
    count = collections.Counter((f.damage, f.decoder, f.outcome if f.good else "other") for f in findings)
    titles = [f"{d}: decoded" if i == 0 else what for d in decoders for i, what in enumerate(("", "named", "neither"))]
    lines = ["| damage | files | " + " | ".join(titles) + " |", "|---" * (len(titles) + 2) + "|"]
    for damage in (WHOLE, *DAMAGES):
        cells = [count[damage, d, kind] for d in decoders for kind in (DECODED, NAMED, "other")]
        lines.append(f"| {damage} | {sum(cells[:3])} | " + " | ".join(map(str, cells)) + " |")
    sums = [
        sum(count[damage, d, k] for damage in (WHOLE, *DAMAGES)) for d in decoders for k in (DECODED, NAMED, "other")
    ]
    return "\n".join([*lines, f"| all | {sum(sums[:3])} | " + " | ".join(map(str, sums)) + " |"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2500)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--decoders", nargs="+", default=["auto", *ORDER], choices=["auto", *ORDER])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="that one file may take")
    parser.add_argument("--memory", type=float, default=8.0, help="GB of address space for one file")
    parser.add_argument("--keep", type=Path, help="folder for the files that gave a finding")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child:
        child(words.memory, words.decoders)
        return 0
    decoders = [d for d in words.decoders if d == "auto" or available(d)]
    began, findings = time.monotonic(), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = words.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        limits = {"seconds": words.seconds, "memory_gb": words.memory}
        for finding in fuzz(
            folder, files=words.files, decoders=decoders, seed=words.seed, first=words.first, **limits
        ):  # fmt: skip
            findings.append(finding)
            if not finding.good:
                print(
                    f"{finding.decoder}, {finding.damage} ({finding.source}): {finding.outcome}, "
                    f"{finding.text[:160]!r}, {finding.megabytes:.0f} MB: {Path(finding.path).name}",
                    flush=True,
                )  # fmt: skip
    print(table(findings))
    bad, peak = sum(not f.good for f in findings), max(f.megabytes for f in findings)
    print(
        f"\n{words.files} files x {len(decoders)} decoders in {time.monotonic() - began:.0f} s: "
        f"{bad} neither decoded nor named; at most {peak:.0f} MB for one file."
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
