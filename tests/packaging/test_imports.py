"""What importing a part of the library costs: each claim is checked in a process of its own."""

import json
import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "timm",
    "torchvision",
    "torchcodec",
    "av",
    "cv2",
    "decord",
    "matplotlib",
    "tensorboardX",
    "scipy",
    "einops",
]
WITHOUT_TORCH = [
    "umt.__main__",
    "umt.tools.extract.command",
    "umt.tools.predict.command",
    "umt.run.command_line",
    "umt.run.plan",
    "umt.tasks.base",
    "umt.tasks.classify.recipe",
    "umt.tasks.distill.recipe",
    "umt.data.catalog",
    "umt.tools.data.command",
    "umt.tools.data.prepare",
    "umt.errors",
    "umt.models.specs",
    "umt.optim.schedule",
    "umt.tools.ensemble.command",
    "umt.tools.verify.command",
    "umt.tools.export.command",
]


def modules_after(statement: str) -> set[str]:
    """Names of the top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_umt_loads_nothing_else() -> None:
    assert not modules_after("import umt") & {*HEAVY, "numpy"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_a_recipe_resolves_without_torch(module: str) -> None:
    assert not modules_after(f"import {module}") & set(HEAVY)


def test_models_need_torch_alone() -> None:
    loaded = modules_after("from umt.models import create_model, list_models, load_weights")
    assert "torch" in loaded
    assert not loaded & (set(HEAVY) - {"torch"})


def test_importing_models_leaves_torch_as_it_was() -> None:
    code = """
import torch
def state():
    return (
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.initial_seed(),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark, torch.random.get_rng_state().tolist(),
    )
before = state()
import umt.models
umt.models.list_models()
assert state() == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
