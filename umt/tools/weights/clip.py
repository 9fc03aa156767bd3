"""`umt weights clip`: CLIP's visual tower, from the file of any library that has it, as a file for our teacher.

In order: find the file and its hash, take the tower out of it, check its sizes and activation against the model,
compare its features with those of the library that the file belongs to, write.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from umt import __version__
from umt.errors import CheckpointError, ConfigError, OutputError, install
from umt.flags.command_line import Parser
from umt.models.specs import SPECS
from umt.writing import whole

if TYPE_CHECKING:
    from umt.models.layouts.clip import VisualTower
    from umt.models.teachers.clip import ClipTeacher
    from umt.tools.weights.clip_compare import Comparison
    from umt.tools.weights.clip_source import Source

DESCRIPTION = """The visual tower of a CLIP as the file that --clip_teacher_weights takes.

  umt weights clip --model clip_b16 --from openai
  umt weights clip --model clip_b16 --from hf://openai/clip-vit-base-patch16
  umt weights clip --model clip_l14 --from ViT-L-14.pt --output data/clip/vit_l14.pth

--from takes a file or folder (OpenAI's archive or state dict, Hugging Face's safetensors or .bin, open_clip's, timm's),
hf://OWNER/REPO[/FILE], https://..., `timm` or `openai`: the published weights of --model, downloaded. TorchScript
archives are read without running them. Features are compared with those of the library that the file is of, where it
is installed. docs/teachers.md"""
TOLERANCE = 1e-3  # of the largest feature; another order of the same sums in float32 changes a hundredth of it


def parser() -> Parser:
    """The flags of `umt weights clip`."""
    words = Parser("umt weights clip", DESCRIPTION)
    models = _teachers()
    words.add_argument("--model", required=True, choices=models, metavar="NAME", help=", ".join(models[:3]))
    words.add_argument("--from", required=True, dest="source", metavar="SOURCE", help="where the weights come from")
    words.add_argument("--output", default="", metavar="FILE", help=".safetensors or .pth; default: NAME.safetensors")
    words.add_argument("--sha256", default="", metavar="HEX", help="hash that the source's file must have")
    words.add_argument(
        "--activation", default="", choices=("quick_gelu", "gelu"),
        help="what the tower was trained with, where the file does not say it",
    )  # fmt: skip
    return words


def main(argv: Sequence[str]) -> int:
    """Runs `umt weights clip ARGV`. Raises UserError for what the caller can correct."""
    settings = parser().words(argv)
    output = Path(settings.output or f"{settings.model}.safetensors")
    if output.suffix not in (".safetensors", ".pth", ".pt"):
        raise ConfigError(f"--output ({output}) must end in .safetensors or .pth.")
    if output.is_dir() or (output.parent.exists() and not output.parent.is_dir()):
        raise OutputError(f"--output ({output}) is no place for a file. Give another.")
    for line in convert(settings, output):
        print(line)
    return 0


class Conversion(NamedTuple):
    """A tower on its way from its source into a file. `activation`: its name, and what says so."""

    model: str
    source: Source
    tower: VisualTower
    teacher: ClipTeacher
    activation: tuple[str, str]
    comparison: list[Comparison] | str


def convert(settings: argparse.Namespace, output: Path) -> list[str]:
    """Does what `settings` ask for and gives the lines to print."""
    from umt.models import create_model, load_weights
    from umt.models.files.weights import Weights
    from umt.models.layouts.clip import to_openai
    from umt.tools.weights.clip_compare import compare
    from umt.tools.weights.clip_source import activation_of, find, read

    source = find(settings.source, settings.model, settings.sha256)
    state, classes = read(source)
    tower = to_openai(state, str(source.path))
    check_sizes(tower, settings.model, str(source.path))
    activation = activation_of(source, state, classes, settings.activation)
    teacher: ClipTeacher = create_model(settings.model)
    load_weights(teacher, Weights(str(source.path), source.path, state))
    teacher.eval()
    comparison = compare(source, state, tower, teacher)
    for other in comparison if isinstance(comparison, list) else ():
        if not other.difference <= TOLERANCE * other.largest:
            raise CheckpointError(
                f"{source.path} gives other features in {other.library}, up to {other.difference:.2g} of "
                f"{other.largest:.2g}, so it is not written. Is it the CLIP that --model ({settings.model}) says?"
            )
    conversion = Conversion(settings.model, source, tower, teacher, activation, comparison)
    write(output, conversion)
    return report(output, conversion)


def check_sizes(tower: VisualTower, model: str, path: str) -> None:
    """Raises CheckpointError where the tower is not of `model`'s sizes, and names the model that has them."""
    state = tower.state
    try:
        kernel, table, proj = state["conv1.weight"], state["positional_embedding"], state["proj"]
    except KeyError as error:
        raise CheckpointError(f"{path} is incomplete: it lacks {error.args[0]} of CLIP's visual tower.") from None
    depth = 1 + max((int(n.split(".")[2]) for n in state if n.startswith("transformer.resblocks.")), default=-1)
    sizes = (kernel.shape[0], kernel.shape[-1], depth, table.shape[0], proj.shape[-1])
    fitting = [name for name in _teachers() if _sizes(name) == sizes]
    if model in fitting:
        return
    text = "width {}, patch {}, {} blocks, {} positions, output {}"
    hint = f"Give --model {' or '.join(fitting)}." if fitting else f"It is none of {', '.join(_published())}."
    raise CheckpointError(
        f"{path} has {text.format(*sizes)}, and {model} {text.format(*_sizes(model))} (--model). {hint}"
    )


def _sizes(name: str) -> tuple[int, int, int, int, int]:
    spec = SPECS[name]
    return spec.width, spec.patch_size, spec.depth, 1 + (spec.image_size // spec.patch_size) ** 2, spec.output_dim or 0


def _teachers() -> list[str]:
    return [name for name, spec in SPECS.items() if spec.kind == "teacher"]


def _published() -> list[str]:
    return [name for name in _teachers() if "tiny" not in name]


def write(output: Path, conversion: Conversion) -> None:
    """Writes the tower in float32 under OpenAI's names, its convolution 2-D as CLIP's, whole or not at all."""
    import torch

    source, comparison = conversion.source, conversion.comparison
    state = {name: value.detach().float().contiguous() for name, value in conversion.teacher.state_dict().items()}
    state["conv1.weight"] = state["conv1.weight"].squeeze(2).contiguous()
    facts = {
        "format": "pt",
        "model": conversion.model,
        "source": source.name,
        "source_sha256": source.sha256,
        "source_layout": conversion.tower.layout,
        "activation": conversion.activation[0],
        "compared": comparison if isinstance(comparison, str) else "; ".join(map(str, comparison)),
        "written_by": f"umt {__version__}",
    }
    try:
        with whole(output) as place:
            if output.suffix == ".safetensors":
                try:
                    from safetensors.torch import save
                except ImportError:
                    raise OutputError(
                        f"--output ({output}) needs safetensors. Run: {install('hub')}, or name a .pth."
                    ) from None
                place.write_bytes(save(state, metadata=facts))  # its save_file makes it readable for its owner only
            else:
                torch.save({"model": state, "metadata": facts}, place)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError for a full disk
        raise OutputError(
            f"--output ({output}) cannot be written: {getattr(error, 'strerror', None) or error}. Give another file."
        ) from error


def report(output: Path, conversion: Conversion) -> list[str]:
    """What was done, one fact per line."""
    from umt.models.files.opened import sha256_of

    model, source, tower, teacher, activation, comparison = conversion
    spec = SPECS[model]
    grid = spec.image_size // spec.patch_size
    count = sum(value.numel() for value in teacher.state_dict().values())
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in tower.state.values()})
    lines = [
        f"source      {source.name}, {tower.layout} names",
        f"sha256      {source.sha256} ({source.checked})",
        f"tower       {model}: width {spec.width}, {spec.depth} blocks, {grid} x {grid} patches of {spec.patch_size}, "
        f"output {spec.output_dim}; {count / 1e6:.1f} M weights, {' and '.join(kinds)} in the file",
        f"activation  {activation[0]} ({activation[1]})",
    ]
    compared = [f"not compared: {comparison}"] if isinstance(comparison, str) else list(map(str, comparison))
    lines += [f"{'features' if i == 0 else '':<11} {text}" for i, text in enumerate(compared)]
    return [
        *lines,
        f"written     {output}, sha256 {sha256_of(output)}",
        f"use         --clip_teacher {model} --clip_teacher_weights {output}",
    ]
