"""How a file's weights become those of a video transformer: names, head, patch embedding and position table.

Each function changes a `Plan` (layouts/plan.py), which `load_weights` hands to `fit_weights` of the model.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from umt.errors import CheckpointError
from umt.models.layouts import adapters, huggingface
from umt.models.layouts.foreign import no_architecture, refuse_foreign
from umt.models.layouts.plan import Plan
from umt.models.specs import Grid

# Parts of pretraining checkpoints that a classifier has no use for.
_PRETRAINING_ONLY = ("clip_decoder.", "decoder.", "encoder_to_decoder.", "mask_token", "clip_mask_token")


def fit_names(plan: Plan, model_names: Collection[str]) -> None:
    """Brings names of other libraries to those of the model. Raises `CheckpointError` for another architecture."""
    if huggingface.is_huggingface(plan.state):
        plan.state = huggingface.from_huggingface(plan.state, plan.report.path)
    refuse_foreign(plan.state, plan.report.path)
    if not any(name in model_names or name.endswith("patch_embed.proj.weight") for name in plan.state):
        raise no_architecture(plan.state, plan.report.path)


def fit_encoder(plan: Plan, model_names: Collection[str]) -> None:
    """Takes the encoder of a pretraining checkpoint as the classifier that has `model_names`."""
    for prefix in ("backbone.", "encoder."):
        inside, others = adapters.take_prefix(plan.state, prefix)
        if inside:
            plan.state = {**others, **inside}
            plan.leave(name for name in others if name not in model_names and not name.startswith("head."))
    plan.leave([name for name in plan.state if name.startswith(_PRETRAINING_ONLY)])


def fit_head(plan: Plan, *, num_classes: int, use_mean_pooling: bool) -> None:
    """Settles which head and final norm a classifier of `num_classes` loads."""
    head = {name for name in plan.state if name.startswith("head.")}
    if not head or plan.new_head:
        # A pretrained encoder: its one norm belongs to the decoders; the norm after pooling starts new with the head.
        norms = {"fc_norm.weight", "fc_norm.bias"} if use_mean_pooling else {"norm.weight", "norm.bias"}
        plan.may_be_new = {"head.weight", "head.bias", *norms}
        final = "norm." if use_mean_pooling else "fc_norm."
        plan.leave([name for name in plan.state if name in head or name.startswith(final)])
        return
    if num_classes == 0:
        plan.leave(head)
        return
    if head != {"head.weight", "head.bias"}:
        raise CheckpointError(f"{plan.report.path} has an incomplete head: {', '.join(sorted(head))}.")
    rows, taken = plan.state["head.weight"].shape[0], plan.head_rows
    if rows == num_classes and (taken is None or list(taken) == list(range(rows))):
        return
    if taken is None or len(taken) != num_classes:
        rows_given = "" if taken is None else f", and {len(taken)} head rows are given"
        raise CheckpointError(
            f"{plan.report.path} has a head of {rows} classes, the model {num_classes} (--nb_classes){rows_given}. "
            "Give --delete_head for a new head (in Python: new_head=True, or head_rows=[...] to take some of the rows)."
        )
    plan.state = adapters.take_rows(plan.state, taken)
    for name in sorted(head):
        plan.report.adapted[name] = f"{len(taken)} of {rows} rows" if len(taken) < rows else "rows reordered"


def fit_patches(plan: Plan, name: str, tubelet_size: int) -> None:
    """Brings the patch embedding `name` to the model's tubelet; other patches stay, and are refused by their shape."""
    kernel = plan.state.get(name)
    if kernel is None or kernel.ndim != 5 or kernel.shape[2] == tubelet_size:
        return
    plan.state[name] = adapters.resample_tubelet(kernel, tubelet_size)
    plan.report.adapted[name] = f"{kernel.shape[2]} -> {tubelet_size} frames a token, a still clip's tokens stay"


def fit_positions(plan: Plan, name: str, *, saved: bool, width: int, model_grid: Grid, defined_on: Grid) -> None:
    """Brings the position table `name` to the model's grid: a fixed sinusoid is recomputed, a trained one resampled.

    Args:
        saved: whether the model's state dict has it. `width`: D of the model's table (1, L, D) on `model_grid`.
        defined_on: the grid on which the model's sinusoid is defined.
    """
    table = plan.state.pop(name, None)
    grid = "x".join(map(str, model_grid))
    if table is None:
        if saved:
            plan.may_be_new.add(name)
            plan.report.adapted[name] = f"not in the file; the sinusoid of {grid} stands"
        return
    if table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != width:
        plan.state[name] = table  # of another width, as all else in such a file: the check of shapes says so
        return
    tokens, source_grid = table.shape[1], plan.source_grid
    if source_grid is not None and math.prod(source_grid) != tokens:
        raise CheckpointError(f"{plan.report.path}: {name} has {tokens} rows, not {source_grid} (source_grid).")
    candidates = [source_grid] if source_grid else [model_grid, *adapters.square_grids(tokens)]
    candidates = [candidate for candidate in candidates if math.prod(candidate) == tokens]
    fixed = adapters.sinusoid_grid(table, candidates, defined_on)
    source = fixed or source_grid or adapters.trained_grid(tokens, model_grid)
    if not saved and fixed is None:
        raise CheckpointError(
            f"{plan.report.path}: {name} is not the fixed sinusoid, and a model with a fixed table would lose it when "
            "saved. Build the model with use_learnable_pos_emb=True (--use_learnable_pos_emb)."
        )
    origin = "x".join(map(str, source))
    if fixed == model_grid and not saved:
        plan.report.unused.append(name)
    elif source == model_grid:
        plan.state[name] = table
    elif fixed:
        plan.may_be_new.add(name)
        plan.report.adapted[name] = f"the fixed sinusoid of {origin}; that of {grid} stands"
    else:
        plan.state[name] = adapters.resample_table(table.float(), source, model_grid)
        plan.report.adapted[name] = f"trained table resampled, {origin} -> {grid}"
