"""A recognizer of five classes with seeded weights and 16 pixels a side, and a checkpoint of the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from umt.inference.recognizer import Recognizer
from umt.models import create_model
from umt.models.files.description import Description

NAMES = ("yoga", "archery", "abseiling", "a class, with a comma", "naïve")
DESCRIPTION = Description(
    model="vit_tiny_patch8_48",
    arguments={"num_frames": 8, "image_size": 16, "num_classes": 5, "init_scale": 1.0},
    short_side_size=20,
    test_clips=2,
)


def tiny(**changes: object) -> Recognizer:
    """`changes`: fields of the description."""
    torch.manual_seed(0)
    made = dataclasses.replace(DESCRIPTION, **changes)  # type: ignore[arg-type]
    model = create_model(made.model, **made.arguments)
    return Recognizer(model, made, device=torch.device("cpu"), precision="fp32", labels=made.labels, batch_size=4)


def checkpoint(folder: Path, **flags: object) -> Path:
    """A training checkpoint of the model that knows the names of its classes."""
    path = folder / "checkpoint-best.pth"
    config = {
        "task": "finetune", "model": "vit_tiny_patch8_48", "num_frames": 8, "input_size": 16, "tubelet_size": 1,
        "nb_classes": 5, "data_set": "Kinetics_sparse", "test_num_segment": 2, "test_num_crop": 3,
        "short_side_size": 20, "class_names": list(NAMES), **flags,
    }  # fmt: skip
    torch.save({"model": tiny().model.state_dict(), "config": config}, path)
    return path
