"""`umt ensemble SCORES SCORES ...`: one answer from several tests of the same videos, and what each adds to it.

SCORES: scores.npz of umt test or the folder that holds it, an earlier ensemble, the folder of the original's result
files, or npz, npy, csv and json of other codebases (docs/ensemble.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umt.data import labels as known_labels
from umt.data.lists.video_list import VideoList
from umt.data.storage.urls import is_url
from umt.errors import ConfigError, ScoresError
from umt.evaluation.ensemble import Aligned, align
from umt.evaluation.ensemble_report import Weigh, fixed, fused, report
from umt.evaluation.fusing import MODES, Mode, Values, fusing, normal
from umt.evaluation.score_files import Listed, read_scores
from umt.evaluation.scores import ViewScores
from umt.evaluation.weight_search import Fitted, fit_temperature, folds, search, stratified
from umt.flags.command_line import COUNT_OR_0, Number, Parser
from umt.inference.sources import read_rows


def _parser() -> Parser:
    parser = Parser("umt ensemble", str(__doc__), "umt ensemble SCORES [SCORES ...] [flags]")
    add = parser.add_argument
    add("scores", nargs="*", metavar="SCORES", help="score files or folders of tests, one per member")
    add("--weights", nargs="+", type=float, metavar="W", help="one per member (default: equal)")
    add("--mode", choices=MODES, default="mean",
        help="mean of probabilities, mean of logits, or geometric mean of probabilities (default: mean)")  # fmt: skip
    add("--temperature", nargs="+", metavar="T", help="divides the logits: one for all, one per member, or auto, which "
        "fits them where the weights are searched (default: 1)")  # fmt: skip
    add("--list", metavar="LIST", help="the list whose rows those of score files without paths are")
    add("--split", metavar="CHAR", help="separator of the lists' columns (default: as the list shows)")
    add("--common", action="store_true", help="take the videos that all members have")
    find = parser.add_argument_group("search for weights, on videos that are not reported").add_argument
    find("--search", metavar="LIST|FRACTION", help="the videos of a list, or a fraction of each class")
    find("--search_scores", nargs="+", metavar="SCORES", help="the members' scores of another split, in their order")
    find("--folds", type=Number(at_least=2, remedy="Try --folds 5."), metavar="N",
        help="cross-fitting: the weights of each of N parts are found on the others")  # fmt: skip
    find("--objective", choices=("top1", "cross_entropy"), default="top1", help="what is best (default: top1; among "
        "equals the lowest cross-entropy)")  # fmt: skip
    find("--step", type=Number(float, above=0, at_most=1, remedy="Try --step 0.05."), metavar="S",
        help="grid of the weights (default: 0.01 for two members, else 0.05)")  # fmt: skip
    find("--seed", type=COUNT_OR_0, default=0, metavar="N", help="of fractions, folds and starting points (default: 0)")
    out = parser.add_argument_group("output").add_argument
    out("--output", metavar="FILE.npz", help="the fused scores of the reported videos")
    out("--json", action="store_true", help="print JSON instead of the table")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs `umt ensemble ARGV`; returns its exit code. Raises UserError for what the caller can mend."""
    words = _parser().words(argv)
    _check(words)
    listed = _listed(words.list, words.split) if words.list else None
    weighing = _weighing(words, _aligned(words, words.scores, listed))
    aligned = weighing.reported
    parts = aligned.values(words.mode, weighing.temperatures)
    if (aligned.labels >= 0).any():
        summary, probability, voted = report(
            aligned, parts, mode=words.mode, weigh=weighing.weigh, shown=weighing.shown, source=weighing.source,
            temperatures=weighing.temperatures,
        )  # fmt: skip
        content, text = summary.to_json(), summary.table()
    else:
        probability, voted = fused(aligned, parts, words.mode, weighing.weigh)
        content = {"videos": len(aligned), "notes": list(aligned.notes)}
        text = f"{len(aligned)} videos, none with a label: no accuracy."
    print(json.dumps({**content, **weighing.facts}, indent=1) if words.json else text)
    if words.output:
        _save(Path(words.output), words.mode, weighing, probability, voted)
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
    searches = _searches(words)
    if len(searches) > 1:
        raise ConfigError(f"{' and '.join(searches)} both say where weights are searched. Leave out one of them.")
    if searches and words.weights:
        raise ConfigError(f"--weights are given, so {searches[0]} has nothing to search for. Leave out one of them.")
    if words.search_scores and len(words.search_scores) != len(words.scores):
        raise ConfigError(
            f"--search_scores has {len(words.search_scores)} files for {len(words.scores)} members. Give one for each, "
            "in their order."
        )
    if words.temperature == ["auto"] and not (words.search or words.search_scores):
        raise ConfigError("--temperature auto needs videos to be fitted on. Add --search or --search_scores.")


def _searches(words: Any) -> list[str]:
    """The flags that ask for a search of weights."""
    return [f"--{name}" for name in ("search", "search_scores", "folds") if getattr(words, name) is not None]


def _listed(path: str, split: str | None) -> Listed:
    videos = _rows("--list", path, split)
    if videos.class_names is not None or videos.multi_label:
        raise ConfigError(
            f"--list ({path}) has names of classes, or several labels for a video. Give a list with numbers, `path,3`."
        )
    return Listed(path, tuple(videos.path(row) for row in range(len(videos))), np.asarray(videos.labels, np.int64))


def _rows(flag: str, path: str, split: str | None) -> VideoList:
    """The rows of a list. Raises ConfigError for one that does not exist, AnnotationError for a faulty one."""
    if not is_url(path) and not Path(path).exists():
        expected = "neither a fraction nor an existing list" if flag == "--search" else "not an existing list"
        raise ConfigError(f"{flag} ({path}) is {expected}. Check the path.")
    return read_rows(path, split=split)


def _aligned(words: Any, names: Sequence[str], listed: Listed | None) -> Aligned:
    members = []
    for name in names:
        if is_url(name):
            raise ScoresError(f"{name} is a URL, but scores are read from this machine only. Download it first.")
        member = read_scores(name, listed)
        members.append(member.merged(words.mode) if words.temperature is None else member)
    return align(members, common=words.common, spell=_spelling)


@cache
def _spelling(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as the published order of their data set spells them, else plain."""
    for order in known_labels.ORDERS:
        numbers, published = known_labels.numbers(order), known_labels.names_of(order)
        places = [numbers.get(known_labels.plain(name), -1) for name in names]
        if sorted(places) == list(range(len(published))):
            return tuple(published[place] for place in places)
    return tuple(known_labels.plain(name) for name in names)


# ---- weights


@dataclass
class _Weighing:
    """The videos to report, and the weights and temperatures to fuse them with.

    `shown` (M,): the weights to print; `source`: where they come from; `facts`: of the search, for JSON.
    """

    reported: Aligned
    weigh: Weigh
    shown: Values
    source: str
    temperatures: list[float]
    facts: dict[str, Any] = field(default_factory=dict)


def _weighing(words: Any, everything: Aligned) -> _Weighing:
    members = len(everything.members)
    if searches := _searches(words):
        if everything.fusing is fusing(multi_label=True):
            raise ConfigError(
                f"{searches[0]} searches weights for tests with one class per video, but these are of a multi-label "
                "list. Leave it out for equal weights, or give --weights."
            )
        return _crossfitted(words, everything) if words.folds is not None else _searched(words, everything)
    temperatures = _temperatures(words.temperature, everything, words.mode)
    weights = normal(words.weights, members)
    source = "given" if words.weights else "equal"
    return _Weighing(everything, fixed(weights.tolist(), members, len(everything)), weights, source, temperatures)


def _searched(words: Any, everything: Aligned) -> _Weighing:
    """Weights found on other videos than those that are reported."""
    if words.search_scores is not None:
        ground = _aligned(words, words.search_scores, None)
        _require_apart(everything, ground)
        reported, flag = everything, "--search_scores"
    else:
        chosen = _chosen(words, everything)
        ground, reported = (everything.take(np.flatnonzero(mask)) for mask in (chosen, ~chosen))
        flag = f"--search {words.search}"
    temperatures = _temperatures(words.temperature, ground, words.mode)
    parts = ground.values(words.mode, temperatures)
    every_video = np.arange(len(ground))
    fit = cache(lambda members: _fit(words, ground, parts, members, every_video))
    fitted = fit(tuple(range(len(parts))))
    return _Weighing(
        reported,
        lambda members: [(np.arange(len(reported)), fit(tuple(members)).weights)],
        fitted.weights,
        f"found on {len(ground)} other videos ({flag}), top-1 there {fitted.top1:.2f}; {fitted.method}",
        temperatures,
        {"search": {
            "videos": len(ground), "top1": fitted.top1, "cross_entropy": fitted.cross_entropy, "how": fitted.method,
            "objective": words.objective, "seed": words.seed,
        }},
    )  # fmt: skip


def _fit(
    words: Any, ground: Aligned, parts: Sequence[Values], members: Sequence[int], rows: NDArray[np.int64]
) -> Fitted:
    """The best weights of these members on these videos of `ground`."""
    return search(
        [parts[m][rows] for m in members], ground.labels[rows], ground.read[list(members)][:, rows], mode=words.mode,
        objective=words.objective, step=words.step or 0.0, seed=words.seed,
    )  # fmt: skip


def _chosen(words: Any, everything: Aligned) -> NDArray[np.bool_]:
    """(R,): the videos on which weights are searched."""
    try:
        share = float(words.search)
    except ValueError:
        videos = _rows("--search", words.search, words.split)
        paths = {videos.path(row) for row in range(len(videos))}
        chosen = np.array([path in paths for path in everything.members[0].paths])
        if not chosen.any() or chosen.all():
            raise ConfigError(
                f"--search ({words.search}) names {'all' if chosen.any() else 'none'} of the {len(everything)} videos; "
                "it must name some, and leave some to report."
            ) from None
        return chosen
    if not 0 < share < 1:
        raise ConfigError(f"--search ({words.search}) must be a list, or a fraction between 0 and 1. Try --search 0.5.")
    everything.require_labels("which a search for weights needs")
    chosen = stratified(everything.labels, share, seed=words.seed)
    if not chosen.any() or chosen.all():
        raise ConfigError(f"--search ({words.search}) of {len(everything)} videos leaves nothing. Try --search 0.5.")
    return chosen


def _crossfitted(words: Any, everything: Aligned) -> _Weighing:
    """Each fold is fused with weights found on the others."""
    everything.require_labels("which a search for weights needs")
    fold_of = folds(everything.labels, words.folds, seed=words.seed)
    temperatures = _temperatures(words.temperature, everything, words.mode)
    parts = everything.values(words.mode, temperatures)
    everyone, every_fold = tuple(range(len(parts))), np.unique(fold_of).tolist()
    if len(every_fold) < 2:
        raise ConfigError(
            f"--folds ({words.folds}): {len(everything)} videos do not make two folds. Leave it out for equal weights."
        )
    # Without fold f; -1: on all videos.
    fit = cache(lambda members, f: _fit(words, everything, parts, members, np.flatnonzero(fold_of != f)))
    fitted = fit(everyone, -1)
    sizes = {f: int((fold_of == f).sum()) for f in every_fold}
    return _Weighing(
        everything,
        lambda members: [(np.flatnonzero(fold_of == f), fit(tuple(members), f).weights) for f in every_fold],
        fitted.weights,
        f"those of all videos; the numbers fuse each of {len(sizes)} folds with weights of the others; {fitted.method}",
        temperatures,
        {"folds": [{"videos": n, "weights": fit(everyone, f).weights.tolist()} for f, n in sizes.items()]},
    )


def _temperatures(flag: list[str] | None, ground: Aligned, mode: Mode) -> list[float]:
    """One per member. `ground`: where auto fits them."""
    members = len(ground.members)
    if flag is None:
        return [1.0] * members
    if flag == ["auto"]:
        ground.require_labels("which fitting temperatures needs")
        return [fit_temperature(m.logits[~m.unread], ground.labels[~m.unread], mode) for m in ground.members]
    try:
        numbers = [float(word) for word in flag]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, members) or not all(0 < n < float("inf") for n in numbers):
        raise ConfigError(
            f"--temperature ({' '.join(flag)}) must be auto, one number above 0, or {members}, one per member."
        )
    return numbers * members if len(numbers) == 1 else numbers


def _require_apart(reported: Aligned, ground: Aligned) -> None:
    """Numbers on the videos of the search would be too good."""
    both = sorted(set(reported.members[0].paths) & set(ground.members[0].paths))
    if both:
        raise ConfigError(
            f"--search_scores hold {len(both)} of the videos that are reported, first {both[0]}. Give scores of "
            "another split, or let --search 0.5 divide these."
        )


# ---- output


def _save(path: Path, mode: Mode, weighing: _Weighing, probability: Values, voted: NDArray[np.bool_]) -> None:
    """One view per video, whose probability is the fused one, so that it can be read as any scores file can."""
    aligned, first = weighing.reported, weighing.reported.members[0]
    weights = ", ".join(f"{m.name} {w:.4g}" for m, w in zip(aligned.members, weighing.shown, strict=True))
    scores = ViewScores(
        rows=range(len(aligned)) if first.rows is None else first.rows.tolist(),
        labels=aligned.labels,
        paths=first.paths,
        clips=1,
        crops=1,
        classes=first.classes,
        class_names=first.class_names or None,
        provenance={"ensemble": mode, "members": weights, "weights": weighing.source},
    )
    scores.logits[:, 0, 0] = aligned.fusing.logits(probability)
    scores.seen[:] = True
    for place in np.flatnonzero(~voted):
        scores.count_as_wrong(int(scores.rows[place]), "no member could read it")
    scores.save(path)
