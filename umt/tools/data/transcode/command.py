"""`umt data transcode --videos DIR | LIST ... --out DIR`: smaller copies of the videos that are quick to decode.

The originals stay as they are. Folders keep their structure, and new lists are written for the copies. Stopped and
started again, it continues where it was. Videos that cannot be transcoded are listed in failed.jsonl.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence, Sized
from pathlib import Path

from tqdm import tqdm

from umt.data.labels import LABELS_FILE
from umt.errors import ConfigError, OutputError
from umt.flags.command_line import COUNT, COUNT_OR_0, Number, Parser
from umt.tools.data.transcode.crew import Job, transcode_all
from umt.tools.data.transcode.encode import Settings, Written
from umt.tools.data.transcode.gain import measure
from umt.tools.data.transcode.manifest import FAILED, Manifest
from umt.tools.data.transcode.plan import Plan, make_plan, write_list

_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_TUNES = ("none", "film", "animation", "grain", "stillimage", "fastdecode")


def main(argv: Sequence[str]) -> int:
    """Runs `umt data transcode ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    parser = _parser()
    words = parser.words(argv)
    if not words.videos or not words.out:
        raise ConfigError(
            "umt data transcode takes --videos and --out, e.g. umt data transcode --videos train.csv val.csv "
            "--prefix /data/k400 --out /data/k400_256."
        )
    if words.short_side % 2:
        raise ConfigError(f"--short_side ({words.short_side}) must be even. Try {words.short_side + 1}.")
    settings = Settings(**{name: getattr(words, name) for name in Settings.__dataclass_fields__})
    out = Path(words.out)
    plan = make_plan(words.videos, out, prefix=words.prefix, separator=words.split)
    try:
        _transcode(plan, out, settings, words.workers, words.time_limit, words.sample, words.split)
    except OSError as error:
        raise OutputError(f"--out ({out}) cannot be written: {error.strerror or error}.") from error
    return 0


def _parser() -> Parser:
    parser = Parser(
        "umt data transcode", str(__doc__).split(": ", 1)[1], "umt data transcode --videos ... --out DIR [flags]"
    )
    parser.add_argument("--videos", nargs="+", metavar="DIR|LIST", help="a folder of videos, or lists of them")
    parser.add_argument("--out", metavar="DIR", help="folder of the copies and the new lists")
    parser.add_argument("--prefix", default="", metavar="DIR", help="folder joined before the paths of the lists")
    parser.add_argument(
        "--split", default=" ", metavar="CHAR", help="separator of the lists' columns (default: a space)"
    )
    usual = Settings()
    parser.add_argument(
        "--short_side", type=Number(at_least=16), default=usual.short_side,
        help=f"pixels of the shorter side, e.g. 256 or 320; no video is enlarged (default: {usual.short_side})",
    )  # fmt: skip
    quality = Number(float, at_least=0, at_most=51, rule="must lie in 0..51: 18 looks like the original, 23 is usual")
    parser.add_argument(
        "--crf", type=quality, default=usual.crf, help=f"quality: less is better and bigger (default: {usual.crf})"
    )
    parser.add_argument(
        "--gop", type=COUNT, default=usual.gop, help=f"at least one key frame in so many frames (default: {usual.gop})"
    )
    parser.add_argument(
        "--bframes", type=Number(at_least=0, at_most=16, remedy="16 is x264's limit."), default=usual.bframes,
        help=f"consecutive frames that no other needs, so that readers can skip them (default: {usual.bframes})",
    )  # fmt: skip
    parser.add_argument(
        "--entropy", choices=("cavlc", "cabac"), default=usual.entropy,
        help=f"entropy coding: cavlc is faster to read, cabac smaller (default: {usual.entropy})",
    )  # fmt: skip
    parser.add_argument("--preset", choices=_PRESETS, default=usual.preset, help=f"x264's (default: {usual.preset})")
    parser.add_argument("--tune", choices=_TUNES, default=usual.tune, help=f"x264's (default: {usual.tune})")
    parser.add_argument("--workers", type=COUNT, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument(
        "--time_limit", type=Number(float, above=0), default=1800.0,
        help="seconds after which a video has failed (default: 1800)",
    )  # fmt: skip
    parser.add_argument(
        "--sample", type=COUNT_OR_0, default=16, help="videos that the gain is measured on (default: 16; 0: none)"
    )
    return parser


def _transcode(
    plan: Plan, out: Path, settings: Settings, workers: int, limit: float, sample: int, separator: str
) -> None:
    manifest = Manifest(out, settings)
    if manifest.new:
        foreign = next((job.target for job in plan.jobs if os.path.lexists(job.target)), None)
        if foreign is not None:
            raise ConfigError(f"--out ({out}) holds {foreign}, which this command did not write. Give another folder.")
    manifest.begin()
    left = [job for job in plan.jobs if not manifest.done(job)]
    if len(left) < len(plan.jobs):
        print(f"{len(plan.jobs) - len(left)} of {len(plan.jobs)} videos are there already.")
    failed: dict[str, str] = {}
    outcomes = transcode_all(left, settings, workers=workers, limit=limit)
    for job, outcome in tqdm(outcomes, "transcoding", len(left), unit="video", disable=None):
        if isinstance(outcome, Written):
            manifest.add(job, outcome)
        else:
            failed[job.source] = outcome
    _write_failed(out / FAILED, failed)
    done = [job for job in plan.jobs if job.source not in failed]
    names = {job.name for job in done}
    for name, videos, jobs in plan.lists:
        kept = write_list(out / name, videos, jobs, names, separator)
        print(f"{out / name}: {kept} of {len(jobs)} rows")
    names_files = {Path(videos.source).parent / LABELS_FILE for _, videos, _ in plan.lists}
    if len(names_files) == 1 and (file := names_files.pop()).is_file():
        shutil.copyfile(file, out / LABELS_FILE)  # the new lists number classes as the old ones do
    _report(manifest, done, failed, out, sample)


def _write_failed(path: Path, failed: dict[str, str]) -> None:
    if not failed:
        path.unlink(missing_ok=True)
        return
    lines = (
        json.dumps({"path": name, "cause": cause}, ensure_ascii=True) + "\n" for name, cause in sorted(failed.items())
    )
    path.write_text("".join(lines), "utf-8")


def _report(manifest: Manifest, done: list[Job], failed: dict[str, str], out: Path, sample: int) -> None:
    if failed:
        first = next(iter(failed.values()))
        print(f"{_count(failed)} failed, listed in {out / FAILED}; the first: {first}")
    if not done:
        raise ConfigError(f"No video could be transcoded; {out / FAILED} has the causes.")
    old, new = manifest.sizes(done)
    print(f"{_count(done)}, {_size(old)} -> {_size(new)}, {new / max(old, 1):.2f} of the size")
    before, after, measured = measure(done, sample)
    if measured:
        print(
            f"8 sparse frames: {before:.1f} ms -> {after:.1f} ms of CPU time, {before / after:.1f} times as fast "
            f"(mean of {measured} videos, read alternately)"
        )
    print(f"To use them: --prefix {out}")


def _count(videos: Sized) -> str:
    return f"{len(videos)} video{'' if len(videos) == 1 else 's'}"


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.4g} TB"
