"""`load_weights`: from any file of weights that this family of models has into a model, and a report of what was done.

Nothing is skipped in silence. A weight of the backbone that is missing or of another shape is an error, and on an error
the model is left as it was. What may be new (a head), unused (the decoders of pretraining) or adapted (position tables,
a head with other classes, CLIP's 2-D convolution) is listed in the report.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from umt.errors import CheckpointError
from umt.models.files.weights import Weights, open_weights
from umt.models.layouts import adapters, huggingface
from umt.models.layouts import clip as clip_layouts
from umt.models.layouts.foreign import no_architecture, refuse_foreign
from umt.models.specs import Grid
from umt.models.teachers.clip import ClipTeacher
from umt.models.vit.classifier import VisionTransformer
from umt.models.vit.student import Student

# Parts of pretraining checkpoints that a classifier has no use for.
_PRETRAINING_ONLY = ("clip_decoder.", "decoder.", "encoder_to_decoder.", "mask_token", "clip_mask_token")


@dataclass
class LoadReport:
    """What became of every weight. `adapted` says how; `new` kept its initial values; `unused` stayed in the file."""

    path: str
    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {len(self.loaded)} loaded, {len(self.adapted)} adapted, {len(self.new)} new, "
            f"{len(self.unused)} unused"
        ]
        lines += [f"  adapted  {name}: {how}" for name, how in self.adapted.items()]
        lines += [f"  new      {names}" for names in _grouped(self.new)]
        lines += [f"  unused   {names}" for names in _grouped(self.unused)]
        return "\n".join(lines)


@dataclass
class _Plan:
    """A file's state dict on its way into a model. `file`: where it lies on this machine, a file or a folder."""

    state: adapters.StateDict
    report: LoadReport
    file: Path
    may_be_new: set[str] = field(default_factory=set)

    def leave(self, names: Iterable[str]) -> None:
        """Takes names of the state dict out and lists them as unused."""
        for name in list(names):
            del self.state[name]
            self.report.unused.append(name)


def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str],
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
        source: a file or folder, a URL, a name of the hub or of the published zoo (fetch.py).
        sha256: the hash that the file must have.
        new_head: the classifier's head stays new whatever the file has.
        head_rows: class j is the file's row head_rows[j]: a Kinetics-710 head for one of the sets within it, or the
            same classes in another order.
        model_key: keys under which the weights may lie, separated by "|"; the first found counts.
        model_prefix: what stands before every name of the model in the file.
        source_grid: (T', H', W') tokens of the file's position table; None: recognised, or an error.
        strict: weights for which the model has no place are an error; otherwise they are listed as unused.

    A pretraining checkpoint fits a student, and a classifier, whose head and final norm are then new.
    Raises `CheckpointError`.
    """
    weights = open_weights(source, sha256=sha256, model_key=model_key)
    return load_state(
        model,
        weights,
        new_head=new_head,
        head_rows=head_rows,
        model_prefix=model_prefix,
        source_grid=source_grid,
        strict=strict,
    )


def load_state(
    model: nn.Module,
    weights: Weights,
    *,
    new_head: bool = False,
    head_rows: Sequence[int] | None = None,
    model_prefix: str = "",
    source_grid: Grid | None = None,
    strict: bool = True,
) -> LoadReport:
    """`load_weights` of what was opened already."""
    path, state = weights.source, weights.state
    report = LoadReport(path)
    if model_prefix:
        state, others = adapters.take_prefix(state, model_prefix)
        report.unused += others
        if not state:
            raise CheckpointError(f"{path} has no weights that begin with {model_prefix!r} (--model_prefix).")
    if not isinstance(model, ClipTeacher):
        if huggingface.is_huggingface(state):
            state = huggingface.from_huggingface(state, path)
        refuse_foreign(state, path)
        if not any(name in model.state_dict() or name.endswith("patch_embed.proj.weight") for name in state):
            raise no_architecture(state, path)
    plan = _Plan(state, report, weights.path)
    if isinstance(model, VisionTransformer):
        _plan_classifier(plan, model, new_head=new_head, head_rows=head_rows)
        _plan_patches(plan, model, "patch_embed.proj.weight")
        _plan_positions(plan, model, model, "pos_embed", source_grid)
    elif isinstance(model, Student):
        _plan_patches(plan, model, "encoder.patch_embed.proj.weight")
        _plan_positions(plan, model, model.encoder, "encoder.pos_embed", source_grid)
    elif isinstance(model, ClipTeacher):
        _plan_teacher(plan, model)
    else:
        raise CheckpointError(f"load_weights does not know {type(model).__name__}: give it a model of umt.models.")
    _check(plan, model, strict)
    model.load_state_dict(plan.state, strict=False)
    return report


def _plan_classifier(plan: _Plan, model: VisionTransformer, *, new_head: bool, head_rows: Sequence[int] | None) -> None:
    """Takes the encoder out of a pretraining checkpoint, and settles which head and final norm are loaded."""
    own = model.state_dict().keys()
    for prefix in ("backbone.", "encoder."):
        inside, others = adapters.take_prefix(plan.state, prefix)
        if inside:
            plan.state = {**others, **inside}
            plan.leave(name for name in others if name not in own and not name.startswith("head."))
    plan.leave([name for name in plan.state if name.startswith(_PRETRAINING_ONLY)])
    head = {name for name in plan.state if name.startswith("head.")}
    if not head or new_head:
        # A pretrained encoder: its one norm belongs to the decoders; the norm after pooling begins anew with the head.
        norms = {"fc_norm.weight", "fc_norm.bias"} if model.use_mean_pooling else {"norm.weight", "norm.bias"}
        plan.may_be_new = {"head.weight", "head.bias", *norms}
        final = "norm." if model.use_mean_pooling else "fc_norm."
        plan.leave([name for name in plan.state if name in head or name.startswith(final)])
        return
    if model.num_classes == 0:
        plan.leave(head)
        return
    if head != {"head.weight", "head.bias"}:
        raise CheckpointError(f"{plan.report.path} has an incomplete head: {', '.join(sorted(head))}.")
    rows = plan.state["head.weight"].shape[0]
    if rows == model.num_classes and (head_rows is None or list(head_rows) == list(range(rows))):
        return
    if head_rows is None or len(head_rows) != model.num_classes:
        given = "" if head_rows is None else f", and {len(head_rows)} head rows are given"
        raise CheckpointError(
            f"{plan.report.path} has a head of {rows} classes, the model {model.num_classes} (--nb_classes){given}. "
            "Give --delete_head for a new head (in Python: new_head=True, or head_rows=[...] to take some of the rows)."
        )
    plan.state = adapters.take_rows(plan.state, head_rows)
    for name in sorted(head):
        plan.report.adapted[name] = f"{len(head_rows)} of {rows} rows" if len(head_rows) < rows else "rows reordered"


def _plan_patches(plan: _Plan, model: VisionTransformer | Student, name: str) -> None:
    """Brings the patch embedding to the model's tubelet; one of other patches stays, and is refused by its shape."""
    kernel = plan.state.get(name)
    if kernel is None or kernel.ndim != 5 or kernel.shape[2] == model.tubelet_size:
        return
    plan.state[name] = adapters.resample_tubelet(kernel, model.tubelet_size)
    plan.report.adapted[name] = f"{kernel.shape[2]} -> {model.tubelet_size} frames a token, a still clip's tokens stay"


def _plan_positions(
    plan: _Plan, model: VisionTransformer | Student, holder: nn.Module, name: str, source_grid: Grid | None
) -> None:
    """Brings the file's position table to the model's grid: a fixed sinusoid is recomputed, a trained one resampled."""
    own: Tensor = holder.pos_embed  # type: ignore[assignment]
    table = plan.state.pop(name, None)
    saved = name in model.state_dict()
    grid = "x".join(map(str, model.grid))
    if table is None:
        if saved:
            plan.may_be_new.add(name)
            plan.report.adapted[name] = f"not in the file; the sinusoid of {grid} stands"
        return
    if table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != own.shape[2]:
        plan.state[name] = table  # of another width, as all else in such a file: `_check` says so
        return
    tokens = table.shape[1]
    if source_grid is not None and math.prod(source_grid) != tokens:
        raise CheckpointError(f"{plan.report.path}: {name} has {tokens} rows, not {source_grid} (source_grid).")
    candidates = [source_grid] if source_grid else [model.grid, *adapters.square_grids(tokens)]
    candidates = [candidate for candidate in candidates if math.prod(candidate) == tokens]
    fixed = adapters.sinusoid_grid(table, candidates, model.position_grid)
    source = fixed or source_grid or adapters.trained_grid(tokens, model.grid)
    if not saved and fixed is None:
        raise CheckpointError(
            f"{plan.report.path}: {name} is not the fixed sinusoid, and a model with a fixed table would lose it when "
            "saved. Build the model with use_learnable_pos_emb=True (--use_learnable_pos_emb)."
        )
    origin = "x".join(map(str, source))
    if fixed == model.grid and not saved:
        plan.report.unused.append(name)
    elif source == model.grid:
        plan.state[name] = table
    elif fixed:
        plan.may_be_new.add(name)
        plan.report.adapted[name] = f"the fixed sinusoid of {origin}; that of {grid} stands"
    else:
        plan.state[name] = adapters.resample_table(table.float(), source, model.grid)
        plan.report.adapted[name] = f"trained table resampled, {origin} -> {grid}"


def _plan_teacher(plan: _Plan, model: ClipTeacher) -> None:
    """Takes the visual tower out of a CLIP state dict and fits its convolution and positions."""
    clip_layouts.refuse_other_activations(str(plan.file))
    tower = clip_layouts.to_openai(plan.state, plan.report.path)
    plan.state = tower.state
    plan.report.unused += tower.unused
    if tower.layout != clip_layouts.OPENAI:
        plan.report.adapted["names"] = f"{tower.layout} -> {clip_layouts.OPENAI}"
    kernel = plan.state.get("conv1.weight")
    if kernel is not None and kernel.ndim == 4:
        plan.state["conv1.weight"] = adapters.inflate_convolution(kernel, model.tubelet_size)
        plan.report.adapted["conv1.weight"] = f"2-D -> 3-D, {model.tubelet_size} frames"
    table = plan.state.get("positional_embedding")
    if table is not None and table.ndim == 2 and table.shape[0] != model.positional_embedding.shape[0]:
        plan.state["positional_embedding"] = adapters.resample_clip_positions(table, model.patch_grid)
        plan.report.adapted["positional_embedding"] = (
            f"{table.shape[0] - 1} patches -> {'x'.join(map(str, model.patch_grid))}, bicubic"
        )


def _check(plan: _Plan, model: nn.Module, strict: bool) -> None:
    """Compares names and shapes with the model's; raises `CheckpointError`, or completes the report."""
    path, own = plan.report.path, model.state_dict()
    wrong = [name for name in plan.state if name in own and plan.state[name].shape != own[name].shape]
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{path} is of another architecture: {first} is {tuple(plan.state[first].shape)} in the file and "
            f"{tuple(own[first].shape)} in the model ({len(wrong)} such). Choose the model that it was saved from."
        )
    missing = [name for name in own if name not in plan.state and name not in plan.may_be_new]
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of the model's {len(own)} weights: {_some(missing)}. "
            "Choose the model and options that it was saved from."
        )
    unexpected = [name for name in plan.state if name not in own]
    if unexpected and strict:
        raise CheckpointError(
            f"{path} has {len(unexpected)} weights for which the model has no place: {_some(unexpected)}. "
            "Choose the model and options that it was saved from."
        )
    plan.leave(unexpected)
    adapted = plan.report.adapted
    plan.report.loaded = [name for name in plan.state if name not in adapted]
    plan.report.new = [name for name in own if name not in plan.state and name not in adapted]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _grouped(names: Sequence[str]) -> list[str]:
    """Names by their first part, so that hundreds fit in a few lines: `clip_decoder.* (24)`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split(".")[0], []).append(name)
    return [f"{part}.* ({len(group)})" if len(group) > 1 else group[0] for part, group in groups.items()]
