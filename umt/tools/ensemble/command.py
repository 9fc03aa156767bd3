"""`umt ensemble SCORES SCORES ...`: one answer from several tests of the same videos, and what each adds to it.

SCORES: scores.npz of umt test or the folder that holds it, an earlier ensemble, the folder of the original's result
files, or npz, npy, csv and json of other codebases (docs/ensemble.md).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.command_line import Parser
from umt.data import labels as known_labels
from umt.data.lists.video_list import VideoList
from umt.data.storage.urls import is_url
from umt.errors import ConfigError, ScoresError
from umt.evaluation.ensemble import MODES, TINY, Aligned, Mode, Values, align, normal
from umt.evaluation.ensemble_report import Weigh, fused, given, report
from umt.evaluation.score_files import Listed, read_scores
from umt.evaluation.scores import ViewScores
from umt.evaluation.weight_search import Found, fit_temperature, folds, search, stratified
from umt.inference.sources import read_rows

log = logging.getLogger("umt")


def _parser() -> Parser:
    parser = Parser("umt ensemble", str(__doc__), "umt ensemble SCORES [SCORES ...] [flags]")
    add = parser.add_argument
    add("scores", nargs="*", metavar="SCORES", help="score files or folders of tests, one a member")
    add("--weights", nargs="+", type=float, metavar="W", help="one a member (default: equal)")
    add("--mode", choices=MODES, default="mean",
        help="mean of probabilities, mean of logits, or geometric mean of probabilities (default: mean)")  # fmt: skip
    add("--temperature", nargs="+", metavar="T", help="divides the logits: one for all, one a member, or auto, which "
        "finds them where the weights are searched (default: 1)")  # fmt: skip
    add("--list", metavar="LIST", help="the list whose rows are those of score files that name no videos")
    add("--split", metavar="CHAR", help="separator of the lists' columns (default: found out)")
    add("--common", action="store_true", help="take the videos that all members have")
    find = parser.add_argument_group("search for weights, on videos that are not reported").add_argument
    find("--search", metavar="LIST|FRACTION", help="the videos of a list, or a fraction of each class")
    find("--search_scores", nargs="+", metavar="SCORES", help="the members' scores of another split, in their order")
    find(
        "--folds", type=int, metavar="N", help="cross-fitted: each of N parts is fused with weights found on the others"
    )
    find("--objective", choices=("top1", "cross_entropy"), default="top1", help="what is best (default: top1; among "
        "equals the lowest cross-entropy)")  # fmt: skip
    find("--step", type=float, metavar="S", help="grid of the weights (default: 0.01 for two members, "
        "else 0.05)")  # fmt: skip
    find("--seed", type=int, default=0, metavar="N", help="of fractions, folds and starting points (default: 0)")
    out = parser.add_argument_group("output").add_argument
    out("--output", metavar="FILE.npz", help="the fused scores of the reported videos")
    out("--json", action="store_true", help="print JSON instead of the table")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs `umt ensemble ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    words = _parser().words(argv)
    _check(words)
    listed = _listed(words.list, words.split) if words.list else None
    everything = _aligned(words, words.scores, listed)
    ways = _ways(words, everything)
    aligned, temperatures = ways.reported, ways.temperatures
    parts = aligned.values(words.mode, temperatures)
    if (aligned.labels >= 0).any():
        made, probability, voted = report(
            aligned, parts, mode=words.mode, weigh=ways.weigh, shown=ways.shown, said=ways.said,
            temperatures=temperatures,
        )  # fmt: skip
        print(json.dumps({**made.to_json(), **ways.extra}, indent=1) if words.json else made.table())
    else:
        probability, voted = fused(parts, aligned.read, words.mode, ways.weigh, list(range(len(parts))))
        said = {"videos": len(aligned), "notes": list(aligned.notes), **ways.extra}
        print(json.dumps(said, indent=1) if words.json else f"{len(aligned)} videos, none with a label: no accuracy.")
    if words.output:
        _save(Path(words.output), words.mode, ways, probability, voted)
        if not words.json:
            print(f"fused scores: {words.output}")
    return 0


def _check(words: Any) -> None:
    if not words.scores:
        raise ConfigError(
            "umt ensemble takes score files, e.g. umt ensemble outputs/a/scores.npz outputs/b/scores.npz."
        )
    if words.output and Path(words.output).suffix != ".npz":
        raise ConfigError(f"--output ({words.output}) must end in .npz. Try --output {words.output}.npz.")
    ways = [f"--{name}" for name in ("search", "search_scores", "folds") if getattr(words, name) is not None]
    if len(ways) > 1:
        raise ConfigError(f"{' and '.join(ways)} both say where weights are found. Leave out one of them.")
    if ways and words.weights:
        raise ConfigError(f"--weights are given, so {ways[0]} has nothing to find. Leave out one of them.")
    if words.folds is not None and words.folds < 2:
        raise ConfigError(f"--folds ({words.folds}) must be at least 2. Try --folds 5.")
    if words.seed < 0:
        raise ConfigError(f"--seed ({words.seed}) must not be below 0.")
    if words.step is not None and not 0 < words.step <= 1:
        raise ConfigError(f"--step ({words.step:g}) must be above 0 and at most 1. Try --step 0.05.")
    if words.search_scores and len(words.search_scores) != len(words.scores):
        raise ConfigError(
            f"--search_scores has {len(words.search_scores)} files for {len(words.scores)} members. Give one for each, "
            "in their order."
        )
    if words.temperature == ["auto"] and not (words.search or words.search_scores):
        raise ConfigError("--temperature auto needs videos to find it on. Add --search or --search_scores.")


def _listed(path: str, split: str | None) -> Listed:
    videos = _rows("--list", path, split)
    if videos.class_names is not None or videos.sets is not None:
        raise ConfigError(
            f"--list ({path}) names its classes, or has several a video. Give a list with numbers, `path,3`."
        )
    return Listed(path, tuple(videos.path(row) for row in range(len(videos))), np.asarray(videos.labels, np.int64))


def _rows(flag: str, path: str, split: str | None) -> VideoList:
    """The rows of a list. Raises ConfigError for one that is not there, AnnotationError for a faulty one."""
    if not is_url(path) and not Path(path).exists():
        what = "neither a fraction nor a list that is there" if flag == "--search" else "no list that is there"
        raise ConfigError(f"{flag} ({path}) is {what}. Check the path.")
    return read_rows(path, split=split)


def _aligned(words: Any, names: Sequence[str], listed: Listed | None) -> Aligned:
    members = []
    for name in names:
        if is_url(name):
            raise ScoresError(f"{name} is a URL; scores are read from this machine. Fetch it first.")
        member = read_scores(name, listed)
        members.append(member.merged(words.mode) if words.temperature is None else member)
    return align(members, common=words.common, spell=_spelling)


@cache
def _spelling(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as the published order of their data set spells them, else plain."""
    for order in known_labels.ORDERS:
        numbers, own = known_labels.numbers(order), known_labels.names_of(order)
        places = [numbers.get(known_labels.plain(name), -1) for name in names]
        if sorted(places) == list(range(len(own))):
            return tuple(own[place] for place in places)
    return tuple(known_labels.plain(name) for name in names)


# ---- weights


class _Ways:
    """The videos to report, and the weights and temperatures to fuse them with."""

    def __init__(self, reported: Aligned, weigh: Weigh, shown: Values, said: str, temperatures: list[float]) -> None:
        self.reported, self.weigh, self.shown, self.said = reported, weigh, shown, said
        self.temperatures = temperatures
        self.extra: dict[str, Any] = {}


def _ways(words: Any, everything: Aligned) -> _Ways:
    members = len(everything.members)
    if words.search is None and words.search_scores is None and words.folds is None:
        temperatures = _temperatures(words.temperature, everything, words.mode)
        weights = normal(words.weights, members)
        said = "given" if words.weights else "equal"
        return _Ways(everything, given(weights.tolist(), members, len(everything)), weights, said, temperatures)
    if words.folds is not None:
        return _crossfitted(words, everything)
    if words.search_scores is not None:
        ground = _aligned(words, words.search_scores, None)
        _require_apart(everything, ground)
        reported, where = everything, "--search_scores"
    else:
        chosen = _chosen(words, everything)
        ground, reported = (everything.take(np.flatnonzero(mask)) for mask in (chosen, ~chosen))
        where = f"--search {words.search}"
    temperatures = _temperatures(words.temperature, ground, words.mode)
    parts = ground.values(words.mode, temperatures)

    @cache
    def find(members: tuple[int, ...]) -> Found:
        return search(
            [parts[m] for m in members], ground.labels, ground.read[list(members)], mode=words.mode,
            objective=words.objective, step=words.step or 0.0, seed=words.seed,
        )  # fmt: skip

    found = find(tuple(range(members)))
    ways = _Ways(
        reported,
        lambda chosen: [(np.arange(len(reported)), find(tuple(chosen)).weights)],
        found.weights,
        f"found on {len(ground)} other videos ({where}), top-1 there {found.top1:.2f}; {found.how}",
        temperatures,
    )
    ways.extra["search"] = {
        "videos": len(ground), "top1": found.top1, "cross_entropy": found.cross_entropy, "how": found.how,
        "objective": words.objective, "seed": words.seed,
    }  # fmt: skip
    return ways


def _chosen(words: Any, everything: Aligned) -> NDArray[np.bool_]:
    """(R,): the videos on which weights are searched."""
    try:
        share = float(words.search)
    except ValueError:
        named = _rows("--search", words.search, words.split)
        wanted = {named.path(row) for row in range(len(named))}
        chosen = np.array([path in wanted for path in everything.members[0].paths])
        if not chosen.any() or chosen.all():
            raise ConfigError(
                f"--search ({words.search}) names {'all' if chosen.any() else 'none'} of the {len(everything)} videos; "
                "it must name some, and leave some to report."
            ) from None
        return chosen
    if not 0 < share < 1:
        raise ConfigError(f"--search ({words.search}) must be a list, or a fraction between 0 and 1. Try --search 0.5.")
    _require_labels(everything)
    chosen = stratified(everything.labels, share, seed=words.seed)
    if not chosen.any() or chosen.all():
        raise ConfigError(f"--search ({words.search}) of {len(everything)} videos leaves nothing. Try --search 0.5.")
    return chosen


def _crossfitted(words: Any, everything: Aligned) -> _Ways:
    _require_labels(everything)
    number, everyone = folds(everything.labels, words.folds, seed=words.seed), tuple(range(len(everything.members)))
    temperatures = _temperatures(words.temperature, everything, words.mode)
    parts = everything.values(words.mode, temperatures)

    @cache
    def find(members: tuple[int, ...], fold: int) -> Found:
        rows = np.flatnonzero(number != fold)  # fold -1: all videos
        return search(
            [parts[m][rows] for m in members], everything.labels[rows], everything.read[list(members)][:, rows],
            mode=words.mode, objective=words.objective, step=words.step or 0.0, seed=words.seed,
        )  # fmt: skip

    present = np.unique(number).tolist()
    if len(present) < 2:
        raise ConfigError(
            f"--folds ({words.folds}): {len(everything)} videos do not make two folds. Give equal weights."
        )
    found = find(everyone, -1)
    ways = _Ways(
        everything,
        lambda chosen: [(np.flatnonzero(number == fold), find(tuple(chosen), fold).weights) for fold in present],
        found.weights,
        f"these of all videos; in the numbers each of {len(present)} folds has those of the others; {found.how}",
        temperatures,
    )
    ways.extra["folds"] = [
        {"videos": int((number == f).sum()), "weights": find(everyone, f).weights.tolist()} for f in present
    ]
    return ways


def _temperatures(given_: list[str] | None, ground: Aligned, mode: Mode) -> list[float]:
    members = len(ground.members)
    if given_ is None:
        return [1.0] * members
    if given_ == ["auto"]:
        _require_labels(ground)
        return [fit_temperature(m.logits[~m.unread], ground.labels[~m.unread], mode) for m in ground.members]
    try:
        numbers = [float(word) for word in given_]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, members) or not all(0 < n < float("inf") for n in numbers):
        raise ConfigError(
            f"--temperature ({' '.join(given_)}) must be auto, one number above 0, or {members}, one a member."
        )
    return numbers * members if len(numbers) == 1 else numbers


def _require_labels(aligned: Aligned) -> None:
    bare = np.flatnonzero(aligned.labels < 0)
    if bare.size:
        raise ScoresError(
            f"{aligned.members[0].paths[bare[0]]} has no label ({bare.size} such videos); weights are found by labels."
        )


def _require_apart(reported: Aligned, ground: Aligned) -> None:
    """Weights found on what is reported would report how well they were found."""
    both = sorted(set(reported.members[0].paths) & set(ground.members[0].paths))
    if both:
        raise ConfigError(
            f"--search_scores hold {len(both)} of the videos that are reported, first {both[0]}. Give scores of "
            "another split, or let --search 0.5 divide these."
        )


# ---- output


def _save(path: Path, mode: Mode, ways: _Ways, probability: Values, voted: NDArray[np.bool_]) -> None:
    """One view a video, whose softmax is the fused probability, so that it reads as any scores file does."""
    aligned, first = ways.reported, ways.reported.members[0]
    weights = ", ".join(f"{m.name} {w:.4g}" for m, w in zip(aligned.members, ways.shown, strict=True))
    scores = ViewScores(
        rows=range(len(aligned)) if first.rows is None else first.rows.tolist(),
        labels=aligned.labels.tolist(),
        paths=first.paths,
        clips=1,
        crops=1,
        classes=first.classes,
        class_names=first.class_names or None,
        provenance={"ensemble": mode, "members": weights, "weights": ways.said},
    )
    scores.logits[:, 0, 0] = np.log(np.maximum(probability, TINY))
    scores.seen[:] = True
    for place in np.flatnonzero(~voted):
        scores.count_as_wrong(int(scores.rows[place]), "no member could read it")
    scores.save(path)
