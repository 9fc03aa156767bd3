"""Compares what `umt export` writes with the model itself: how far its numbers are, and with --measure how fast it is.

    python scripts/bench_export.py [--model vit_base_patch16_224] [--batch 1] [--threads 1] [--measure] [--rounds 5]

Four ways to the same logits on the CPU, in float32: the model, the model under torch.compile, the program of
torch.export, and ONNX Runtime. They take turns; a time is the least CPU time of all rounds, of all threads of the
process, so that other programs on the machine do not count, and is given as a share of the model's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor

from umt.models import create_model
from umt.models.files.hub import described
from umt.tools.export.graphs import example, save_program, trace
from umt.tools.export.graphs import save_onnx as write_onnx

Way = Callable[[Tensor], Tensor]


def ways(name: str, threads: int) -> tuple[dict[str, Way], Callable[[int], Tensor]]:
    """(the four by name, a clip of so many)."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=400, init_scale=1.0).eval()
    description = described(model)

    def clip(batch: int) -> Tensor:
        return example(description, batch, False)

    program = trace(model, clip(2))
    with tempfile.TemporaryDirectory() as folder:
        exported = save_program(program, Path(folder) / "model.pt2")
        write_onnx(program, Path(folder) / "model.onnx", opset=20, output="logits", size=0, facts={})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
    return {
        "model": model,
        "torch.compile": torch.compile(model, fullgraph=True),
        "torch.export": exported,
        "ONNX Runtime": lambda video: torch.from_numpy(session.run(None, {"video": video.numpy()})[0]),
    }, clip


def seconds(way: Way, video: Tensor) -> float:
    start = time.process_time()
    way(video)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    compared, clip = ways(options.model, options.threads)
    video = clip(options.batch)
    with torch.inference_mode():
        expected = compared["model"](video)
        far = {name: (way(video) - expected).abs().max().item() for name, way in compared.items()}
        times: dict[str, float] = dict.fromkeys(compared, float("inf"))
        for _ in range(options.rounds if options.measure else 0):
            for name, way in compared.items():
                times[name] = min(times[name], seconds(way, video))
    print(f"{options.model}, batch {options.batch}, {options.threads} thread(s), torch {torch.__version__}, ", end="")
    print(f"onnxruntime {onnxruntime.__version__}; largest logit {expected.abs().max():.3g}")
    for name in compared:
        share = f"{times[name] / times['model']:>6.2f} of the model's CPU time" if options.measure else ""
        print(f"  {name:<14} differs by {far[name]:.1e} at most {share}")


if __name__ == "__main__":
    main()
