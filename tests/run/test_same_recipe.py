"""What may change between two starts of a run, and what makes it another recipe."""

import pytest

from umt.errors import CheckpointError
from umt.run.same_recipe import changes, require_same
from umt.tasks.base import recipe_class


def flags(task: str, **values: object) -> dict[str, object]:
    return {"task": task, **recipe_class(task).from_values(values).values()}


@pytest.mark.parametrize(
    ("task", "flag", "value"),
    [
        ("pretrain", "model", "pretrain_umt_large_patch16_224"),
        ("pretrain", "mask_ratio", 0.9),
        ("pretrain", "clip_teacher", "clip_l14"),
        ("finetune", "lr", 5e-4),
        ("finetune", "nb_classes", 174),
        ("finetune", "data_set", "SSV2"),
        ("finetune", "mixup", 0.1),
        ("finetune", "layer_decay", 0.9),
        ("finetune", "num_frames", 8),
        ("finetune", "opt_betas", (0.9, 0.98)),
    ],
)
def test_another_recipe_is_refused_unless_its_file_is_named(task: str, flag: str, value: object) -> None:
    then, now = flags(task), flags(task, **{flag: value})
    with pytest.raises(CheckpointError, match=rf"x.pth is of another recipe \(--{flag} .* -> .*--resume x.pth"):
        require_same("x.pth", recipe_class(task), then, now, named=False)
    assert len(require_same("x.pth", recipe_class(task), then, now, named=True)) == 1


@pytest.mark.parametrize(
    ("flag", "value"),
    [("epochs", 300), ("batch_size", 8), ("global_batch_size", 256), ("clip_grad", 1.0), ("warmup_epochs", 1)],
)
def test_what_is_changed_on_purpose_is_said(flag: str, value: object) -> None:
    refused, said = changes(recipe_class("finetune"), flags("finetune"), flags("finetune", **{flag: value}))
    assert refused == []
    assert [change.split()[0] for change in said] == [f"--{flag}"]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("data_path", "elsewhere"), ("num_workers", 3), ("decoder", "pyav"), ("precision", "bf16"), ("seed", 3),
        ("output_dir", "moved"), ("test_num_crop", 1), ("fsdp", True), ("use_checkpoint", True), ("finetune", "x.pth"),
    ],
)  # fmt: skip
def test_paths_machines_and_tests_are_free(flag: str, value: object) -> None:
    assert changes(recipe_class("finetune"), flags("finetune"), flags("finetune", **{flag: value})) == ([], [])


def test_another_task_is_refused_even_if_its_file_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"another recipe \(task pretrain -> finetune\)"):
        require_same("x.pth", recipe_class("finetune"), flags("pretrain"), flags("finetune"), named=True)


def test_a_flag_that_an_older_checkpoint_does_not_know_is_no_change() -> None:
    then = flags("finetune")
    del then["aa"]
    assert changes(recipe_class("finetune"), then, flags("finetune", aa="none")) == ([], [])


def test_a_list_is_the_tuple_that_it_was() -> None:
    then = flags("finetune", opt_betas=(0.9, 0.95)) | {"opt_betas": [0.9, 0.95]}
    assert changes(recipe_class("finetune"), then, flags("finetune", opt_betas=(0.9, 0.95))) == ([], [])
