"""`umt data show`: one page with what a model will see of a list, and what its files are like.

Reading order: `main`; plan.py (which list, which flags), umt/tasks/base/shown.py (what a kind of work gives), look.py
(reads the videos in separate processes), figures.py (pictures), report.py and page.html (the page).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umt.flags.command_line import COUNT, Parser

DESCRIPTION = """What a model will see of a list of videos, as one page that opens in a browser: clips after
augmentation with frame numbers and masks, labels, the class histogram, lengths, sizes, frame rates, decode times.

  umt data show data/train.csv --prefix videos --out page.html        a list, read as --as pretrain or finetune
  umt data show pretrain --data_path data/train.csv --num_frames 8    the training list of a run, with its flags
  umt data show finetune --data_path data --data_set SSV2 --split ,

All flags of umt pretrain and umt finetune are understood (umt finetune --help), and those without effect on the data
are ignored. With --clip_teacher_weights the masks follow the teacher's attention, as in the run."""


def main(argv: Sequence[str]) -> int:
    """Command line; returns the exit code. Raises UserError for what the caller can mend."""
    parser = Parser("umt data show", DESCRIPTION, usage="umt data show LIST|pretrain|finetune [--flag value ...]")
    add = parser.add_argument
    add("what", metavar="LIST", help="a list or folder of videos, or pretrain or finetune and its flags")
    add("--out", type=Path, default=Path("show.html"), help="the page (default: show.html)")
    add("--as", dest="task", choices=("pretrain", "finetune"), help="how a LIST is read (default: by its labels)")
    add("--clips", type=COUNT, default=8, help="videos whose clips are shown (default: 8)")
    add("--files", type=COUNT, default=100, help="videos that are opened, chosen at random (default: 100)")
    add("--processes", type=COUNT, default=2, help="that read at once (default: 2)")
    words, flags = parser.known_words(argv)
    from umt.tools.data.show import report
    from umt.tools.data.show.look import look
    from umt.tools.data.show.plan import resolve

    shown = resolve(words.what, flags, task=words.task)
    seen = look(shown, clips=words.clips, files=max(words.files, words.clips), processes=words.processes)
    report.write(words.out, report.page(shown, seen, ["umt", "data", "show", *argv]))
    print(report.summary(shown, seen))
    print(f"{words.out}: {words.out.stat().st_size / 1e6:.1f} MB")
    return 0
