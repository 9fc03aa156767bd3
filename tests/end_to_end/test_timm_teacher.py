"""A run against a teacher of timm's, as a user starts it, and what is said where it cannot be had."""

from pathlib import Path

import pytest
import torch

from tests.end_to_end.conftest import Command, Data, environment, with_flags

NAME = "timm:vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of timm's ViT-Ti/16 at 224 px, as somebody has trained and saved it."""
    import timm

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("timm") / "vit_tiny.pth"
    torch.save({"state_dict": timm.create_model("vit_tiny_patch16_224").state_dict()}, file)
    return file


def against_timm(data: Data, **flags: object) -> list[str]:
    """64 px in patches of 8 for the student, 128 px in patches of 16 for the teacher: 8 x 8 tokens for both."""
    return with_flags(data.pretrain, clip_teacher=NAME, clip_input_resolution=128, epochs=1, warmup_epochs=0, **flags)


@pytest.mark.slow
def test_a_student_is_pretrained_against_a_vit_of_timm_s(
    data: Data, umt: Command, weights: Path, tmp_path: Path
) -> None:
    done = umt(*against_timm(data, clip_teacher_weights=weights, output_dir=tmp_path))
    said = done.stdout + done.stderr
    assert f"teacher: {weights}: all weights of timm's vit_tiny_patch16_224" in said
    state = torch.load(tmp_path / "checkpoint-latest.pth", map_location="cpu", weights_only=True)["model"]
    assert state["clip_decoder.0.head.weight"].shape[0] == 192


@pytest.mark.slow
def test_without_a_network_a_run_says_so_in_a_sentence(data: Data, umt: Command, tmp_path: Path) -> None:
    env = {**environment(), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "none")}
    done = umt(*against_timm(data, clip_teacher_weights="", output_dir=tmp_path), code=2, env=env)
    assert f"teacher {NAME}: timm cannot fetch its weights" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_unknown_model_of_timm_s_names_the_nearest(data: Data, umt: Command, tmp_path: Path) -> None:
    flags = with_flags(against_timm(data, output_dir=tmp_path), clip_teacher="timm:vit_tiny_patch16_24")
    done = umt(*flags, code=2)
    assert "teacher timm:vit_tiny_patch16_24 is not a model of timm" in done.stderr
    assert "Did you mean vit_tiny_patch16_224" in done.stderr


@pytest.mark.slow
def test_a_width_that_is_not_the_teacher_s_is_refused(data: Data, umt: Command, weights: Path, tmp_path: Path) -> None:
    done = umt(
        *against_timm(data, clip_teacher_weights=weights, output_dir=tmp_path, clip_output_dim=64), code=2
    )  # fmt: skip
    assert "--clip_output_dim (64) must be the teacher's output width, --clip_output_dim 192" in done.stderr


@pytest.mark.slow
def test_a_plan_counts_the_teacher_without_its_weights(data: Data, umt: Command, tmp_path: Path) -> None:
    env = {**environment(), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "none")}
    flags = against_timm(data, clip_teacher_weights="", output_dir=tmp_path)
    done = umt("plan", *flags, env=env)
    assert "5.5 M of the frozen teacher" in done.stdout
