"""`load_weights`: from any file of weights that fits a model of this library into it, and a report of what was done.

Nothing is skipped in silence. A weight of the backbone that is missing or of another shape is an error, and on an error
the model is left as it was. What may be new (a head), unused (the decoders of pretraining) or adapted (position tables,
a head with other classes, CLIP's 2-D convolution) is listed in the report. What fits how is the model's own matter: its
`fit_weights`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import nn

from umt.errors import CheckpointError
from umt.models.files.weights import Weights, open_weights
from umt.models.layouts import adapters
from umt.models.layouts.plan import FitsWeights, LoadReport, Plan
from umt.models.specs import Grid


def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str] | Weights,
    *,
    sha256: str = "",
    new_head: bool = False,
    head_rows: Sequence[int] | None = None,
    model_key: str = "model|module",
    model_prefix: str = "",
    source_grid: Grid | None = None,
    strict: bool = True,
) -> LoadReport:
    """Loads `source` into a `VisionTransformer`, `Student` or `ClipTeacher`, in place.

    Args:
        source: a file or folder, a URL, a name of the hub or of the published zoo (fetch.py); or `Weights`.
        sha256: the hash that the file must have.
        new_head: the classifier's head stays new, even if the file has one.
        head_rows: class j is the file's row head_rows[j]: a Kinetics-710 head for one of the sets within it, or the
            same classes in another order.
        model_key: keys under which the weights may lie, separated by "|"; the first found counts.
        model_prefix: what stands before every name of the model in the file.
        source_grid: (T', H', W') tokens of the file's position table; None: recognised, or an error.
        strict: weights for which the model has no place are an error; otherwise they are listed as unused.

    A pretraining checkpoint fits a student, and a classifier, whose head and final norm are then new.
    Raises `CheckpointError`.
    """
    weights = source if isinstance(source, Weights) else open_weights(source, sha256=sha256, model_key=model_key)
    path, state, unused = weights.source, weights.state, list[str]()
    if not isinstance(model, FitsWeights):
        raise CheckpointError(
            f"load_weights does not know {type(model).__name__}, which has no method fit_weights. "
            "Give it a model of umt.models."
        )
    if model_prefix:
        state, others = adapters.take_prefix(state, model_prefix)
        unused = list(others)
        if not state:
            raise CheckpointError(f"{path} has no weights that begin with {model_prefix!r} (--model_prefix).")
    plan = Plan(dict(state), LoadReport(path, unused=unused), weights.path, new_head, head_rows, source_grid)
    model.fit_weights(plan)
    _check(plan, model, strict)
    model.load_state_dict(plan.state, strict=False)
    return plan.report


def _check(plan: Plan, model: nn.Module, strict: bool) -> None:
    """Compares names and shapes with the model's; raises `CheckpointError`, or completes the report."""
    path, expected = plan.report.path, model.state_dict()
    wrong = [name for name in plan.state if name in expected and plan.state[name].shape != expected[name].shape]
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{path} is of another architecture: {first} is {tuple(plan.state[first].shape)} in the file and "
            f"{tuple(expected[first].shape)} in the model ({len(wrong)} such). Choose the model that it was saved from."
        )
    missing = [name for name in expected if name not in plan.state and name not in plan.may_be_new]
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of the model's {len(expected)} weights: {_some(missing)}. "
            "Choose the model and options that it was saved from."
        )
    unexpected = [name for name in plan.state if name not in expected]
    if unexpected and strict:
        raise CheckpointError(
            f"{path} has {len(unexpected)} weights for which the model has no place: {_some(unexpected)}. "
            "Choose the model and options that it was saved from."
        )
    plan.leave(unexpected)
    adapted = plan.report.adapted
    plan.report.loaded = [name for name in plan.state if name not in adapted]
    plan.report.new = [name for name in expected if name not in plan.state and name not in adapted]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
