"""`umt export CHECKPOINT --output DIR`: flags, and what can be checked of them without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from umt.errors import ConfigError
from umt.flags.command_line import Parser
from umt.tools.export.request import DTYPES, FORMATS, LICENCES, Request, check

_DESCRIPTION = """Weights as a folder that others can use: config.json, a model card, and the weights as

  safetensors   model.safetensors: umt.load, from_pretrained, the Hugging Face hub
  onnx          model.onnx: ONNX Runtime and what reads it; any batch size; compared with the model
  torch_export  model.pt2: torch.export.load, without this library; any batch size; compared with the model
  original      model.pth: {"model": state_dict} in the names of the original's code

A pretraining checkpoint gives its encoder as a model of features; `original` keeps all of it. docs/export.md"""


def main(argv: Sequence[str]) -> int:
    """Runs `umt export ARGV`; returns its exit code. Raises UserError for what the caller can correct."""
    request = parse(argv)
    from umt.tools.export.exporting import export  # torch takes seconds

    for line in export(request):
        print(line)
    return 0


def parse(argv: Sequence[str]) -> Request:
    """The flags as a request. Raises ConfigError for what cannot work."""
    words = vars(_parser().words(argv))
    words["output"] = Path(words["output"]).expanduser()
    words["formats"] = tuple(dict.fromkeys(words.pop("format")))
    words["licence"] = _licence(words["licence"])
    request = Request(**words)
    check(request)
    return request


def _parser() -> Parser:
    parser = Parser("umt export", _DESCRIPTION)
    add = parser.add_argument
    add("checkpoint", help="file, folder, URL, hf://OWNER/REPO, or a name of the model zoo")
    add("--output", required=True, metavar="DIR", help="folder to make; it appears whole or not at all")
    add("--format", nargs="+", choices=FORMATS, default=["safetensors"], metavar="FORMAT", help=", ".join(FORMATS))
    add("--dtype", choices=DTYPES, default="float32", help="of safetensors and original (float32); loads as float32")
    add("--ema", action="store_true", help="the moving average of the weights that a training checkpoint holds")
    add("--features", action="store_true", help="without the head: the model gives features (B, D)")
    add("--with_preprocessing", action="store_true",
        help="onnx, torch_export: takes uint8 frames (B, T, H, W, 3) and normalises them itself")  # fmt: skip
    add("--opset", type=int, default=20, help="of onnx (20)")
    add("--model", help="the architecture, where the file does not say it")
    add("--num_frames", type=int, help="for clips of so many frames: positions are resampled")
    add("--input_size", type=int, metavar="PIXELS", help="for frames of this size: positions are resampled")
    add("--labels", metavar="ORDER|FILE", help="class names where the weights do not say them")
    add("--licence", nargs="+", default=[], metavar="[OF=]NAME",
        help="of the weights, or weights=..., teacher=..., data=..., code=...; for the card")  # fmt: skip
    add("--push_to_hub", default="", metavar="OWNER/NAME", help="then uploads the folder to the Hugging Face hub")
    add("--private", action="store_true", help="with --push_to_hub: only you may see it")
    add("--overwrite", action="store_true", help="--output may be an earlier export, which is replaced")
    return parser


def _licence(words: Sequence[str]) -> dict[str, str]:
    licences: dict[str, str] = {}
    for word in words:
        of, equals, name = word.partition("=")
        of, name = (of, name) if equals else ("weights", word)
        if of not in LICENCES or not name:
            raise ConfigError(f"--licence ({word}) must read NAME, or OF=NAME with OF one of {', '.join(LICENCES)}.")
        licences[of] = name
    return licences
