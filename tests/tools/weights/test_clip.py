"""`umt weights clip`: files that transformers, open_clip, timm and torch.jit make themselves give their features."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from umt.errors import CheckpointError, ConfigError, OutputError
from umt.models import create_model, create_teacher, load_weights
from umt.tools.weights.clip import main

MODEL = "clip_tiny_patch8_64"  # width 96, 4 blocks of 3 heads, 64 px in patches of 8, output 64
SIZES = {"width": 96, "depth": 4, "heads": 3, "image": 64, "patch": 8, "output": 64}
BASE = {"width": 768, "depth": 12, "heads": 12, "image": 224, "patch": 16, "output": 512}
Sizes = dict[str, int]


def frames(sizes: Sizes) -> Tensor:
    return torch.randn(2, 3, sizes["image"], sizes["image"], generator=torch.Generator().manual_seed(3))


def stirred(model: nn.Module) -> Any:
    """Every weight random, norms and biases too: names that are mixed up do not give the same features."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.02 if parameter.ndim > 1 or "bias" in name else 0.3
            parameter.add_(torch.randn_like(parameter) * scale)
    return model.eval()


def hugging_face(folder: Path, sizes: Sizes, *, whole: bool = False, activation: str = "quick_gelu") -> Tensor:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=sizes["width"], intermediate_size=4 * sizes["width"], num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["heads"], image_size=sizes["image"], patch_size=sizes["patch"],
        projection_dim=sizes["output"], hidden_act=activation,
    )  # fmt: skip
    if not whole:
        model = stirred(CLIPVisionModelWithProjection(vision))
        model.save_pretrained(folder)
        return model(pixel_values=frames(sizes)).image_embeds
    text = CLIPTextConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=60,
        projection_dim=sizes["output"], bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    both = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=sizes["output"])
    clip = stirred(CLIPModel(both))
    clip.save_pretrained(folder)
    torch.save(clip.state_dict(), folder / "pytorch_model.bin")
    out = clip.visual_projection(clip.vision_model(pixel_values=frames(sizes)).pooler_output)
    return out


def open_clip(file: Path, sizes: Sizes, *, quick_gelu: bool = True) -> Tensor:
    from open_clip.model import CLIP

    model = stirred(
        CLIP(
            embed_dim=sizes["output"],
            vision_cfg={
                "image_size": sizes["image"], "layers": sizes["depth"], "width": sizes["width"],
                "head_width": sizes["width"] // sizes["heads"], "patch_size": sizes["patch"],
            },
            text_cfg={"context_length": 8, "vocab_size": 60, "width": 32, "heads": 2, "layers": 1},
            quick_gelu=quick_gelu,
        )
    )  # fmt: skip
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"lr": 0.1}}, file)
    return model.encode_image(frames(sizes))


def timm_model(sizes: Sizes) -> Any:
    import timm

    return stirred(
        timm.create_model(
            "vit_base_patch16_clip_quickgelu_224", img_size=sizes["image"], patch_size=sizes["patch"],
            embed_dim=sizes["width"], depth=sizes["depth"], num_heads=sizes["heads"], num_classes=sizes["output"],
        )
    )  # fmt: skip


def without_head_bias(model: Any) -> Any:
    nn.init.zeros_(model.head.bias)
    return model


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """OpenAI's residual block, by its own names, with torch's own attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Visual(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, side = sizes["width"], sizes["image"] // sizes["patch"]
        self.conv1 = nn.Conv2d(3, width, sizes["patch"], sizes["patch"], bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(side * side + 1, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(Block(width, sizes["heads"]) for _ in range(sizes["depth"])))
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, sizes["output"]) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], dim=1) + self.positional_embedding
        x = self.transformer.resblocks(self.ln_pre(x).permute(1, 0, 2)).permute(1, 0, 2)
        return self.ln_post(x[:, 0]) @ self.proj


class OpenAiClip(nn.Module):
    """The parts of OpenAI's CLIP that its archive names."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.visual = Visual(sizes)
        self.positional_embedding = nn.Parameter(torch.randn(8, 16))
        self.logit_scale = nn.Parameter(torch.ones([]))
        self.register_buffer("input_resolution", torch.tensor(sizes["image"]))
        self.register_buffer("context_length", torch.tensor(8))
        self.register_buffer("vocab_size", torch.tensor(60))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


def openai(sizes: Sizes) -> Any:
    model = stirred(OpenAiClip(sizes))
    for parameter in model.parameters():  # as OpenAI's files have them, so that both sides know the same numbers
        parameter.data = parameter.data.half().float()
    return model


def archive(file: Path, sizes: Sizes) -> Tensor:
    model = openai(sizes)
    expected = model(frames(sizes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, frames(sizes)[:1], check_trace=False)
        for parameter in traced.parameters():
            parameter.data = parameter.data.half()
        torch.jit.save(traced, str(file))
    return expected


def converted(tmp_path: Path, source: Path | str, sizes: Sizes, *flags: str, model: str = MODEL) -> Tensor:
    """The features of our teacher with what the command wrote."""
    output = tmp_path / "out" / "teacher.safetensors"
    assert main(["--model", model, "--from", str(source), "--output", str(output), *flags]) == 0
    teacher = create_model(model).eval()
    load_weights(teacher, output)
    with torch.no_grad():
        return teacher.encode(frames(sizes)[:, :, None])[:, 0]


def close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 1e-2
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.slow
def test_hugging_face_s_safetensors_give_its_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = hugging_face(tmp_path / "hf", SIZES)
    close(converted(tmp_path, tmp_path / "hf", SIZES), expected)
    said = capsys.readouterr().out
    assert "features    equal to transformers" in said
    assert "activation  quick_gelu (as the configuration next to it says)" in said


@pytest.mark.slow
def test_hugging_face_s_bin_of_both_towers_gives_its_features(tmp_path: Path) -> None:
    expected = hugging_face(tmp_path / "hf", SIZES, whole=True)
    close(converted(tmp_path, tmp_path / "hf" / "pytorch_model.bin", SIZES), expected)


@pytest.mark.slow
def test_a_checkpoint_of_open_clip_gives_its_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = open_clip(tmp_path / "epoch_3.pt", SIZES)
    close(converted(tmp_path, tmp_path / "epoch_3.pt", SIZES, "--activation", "quick_gelu"), expected)
    said = capsys.readouterr().out
    assert "equal to open_clip" in said
    assert "equal to timm" in said


@pytest.mark.slow
def test_an_open_clip_checkpoint_in_a_timm_tower_gives_its_features(tmp_path: Path) -> None:
    model = timm_model(SIZES)
    nn.init.zeros_(model.head.bias)
    state = {f"visual.trunk.{name}": value for name, value in model.state_dict().items() if "head" not in name}
    torch.save({**state, "visual.head.proj.weight": model.head.weight}, tmp_path / "quickgelu.pt")
    close(converted(tmp_path, tmp_path / "quickgelu.pt", SIZES), model(frames(SIZES)))


@pytest.mark.slow
def test_timm_s_state_dict_gives_its_features(tmp_path: Path) -> None:
    model = without_head_bias(timm_model(SIZES))
    torch.save(model.state_dict(), tmp_path / "vit_clip_quickgelu.pth")
    close(converted(tmp_path, tmp_path / "vit_clip_quickgelu.pth", SIZES), model(frames(SIZES)))


@pytest.mark.slow
def test_openai_s_archive_gives_its_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = archive(tmp_path / "ViT.pt", SIZES)
    close(converted(tmp_path, tmp_path / "ViT.pt", SIZES), expected)
    said = capsys.readouterr().out
    assert "float16 in the file" in said
    assert "activation  quick_gelu (the archive has modules of that name)" in said
    assert "equal to open_clip" in said


@pytest.mark.slow
def test_openai_s_state_dict_gives_its_features(tmp_path: Path) -> None:
    model = openai(SIZES)
    torch.save({name: value.half() for name, value in model.state_dict().items()}, tmp_path / "ViT.pt")
    close(converted(tmp_path, tmp_path / "ViT.pt", SIZES), model(frames(SIZES)))


@pytest.mark.slow
def test_openai_s_archive_of_full_size_gives_its_features(tmp_path: Path) -> None:
    expected = archive(tmp_path / "ViT-B-16.pt", BASE)
    close(converted(tmp_path, tmp_path / "ViT-B-16.pt", BASE, model="clip_b16"), expected)


def hub_cache(folder: Path, repository: str, files: dict[str, Path | str]) -> dict[str, str]:
    """What the hub's client leaves behind after a download; the environment that finds it, without a network."""
    place = folder / f"models--{repository.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(revision)
    snapshot = place / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        if isinstance(content, Path):
            content.rename(snapshot / name)
        else:
            (snapshot / name).write_text(content)
    return {**os.environ, "HF_HUB_CACHE": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def command(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "umt", "weights", "clip", *words], capture_output=True, text=True, env=env, check=False
    )


@pytest.mark.slow
def test_from_timm_takes_what_the_hub_has(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = without_head_bias(timm_model(BASE))
    expected = model(frames(BASE))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "vit_base_patch16_clip_224", "pretrained_cfg": {"tag": "openai"}}
    env = hub_cache(
        tmp_path / "hub",
        "timm/vit_base_patch16_clip_224.openai",
        {"model.safetensors": tmp_path / "model.safetensors", "config.json": json.dumps(config)},
    )
    output = tmp_path / "vit_b16.pth"
    done = command(env, "--model", "clip_b16", "--from", "timm", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "equal to timm" in done.stdout
    teacher = create_model("clip_b16").eval()
    load_weights(teacher, output)
    with torch.no_grad():
        close(teacher.encode(frames(BASE)[:, :, None])[:, 0], expected)


@pytest.mark.slow
def test_a_repository_of_the_hub_that_was_fetched_before_needs_no_network(tmp_path: Path) -> None:
    expected = hugging_face(tmp_path / "hf", SIZES, whole=True)
    made = tmp_path / "hf"
    files: dict[str, Path | str] = {name: made / name for name in ("pytorch_model.bin", "config.json")}
    env, output = hub_cache(tmp_path / "hub", "somebody/tiny-clip", files), tmp_path / "teacher.safetensors"
    done = command(env, "--model", MODEL, "--from", "hf://somebody/tiny-clip", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "source      hf://somebody/tiny-clip, Hugging Face's names" in done.stdout
    assert "as the configuration next to it says" in done.stdout
    teacher = create_model(MODEL).eval()
    load_weights(teacher, output)
    with torch.no_grad():
        close(teacher.encode(frames(SIZES)[:, :, None])[:, 0], expected)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["timm", "hf://openai/clip-vit-base-patch16"])
def test_without_a_network_a_sentence_says_so(tmp_path: Path, source: str) -> None:
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = command(env, "--model", "clip_b16", "--from", source)
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE is set. Fetch it where there is a network" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_file_says_where_it_is_from(tmp_path: Path) -> None:
    from safetensors import safe_open

    from umt.models.files.opened import sha256_of

    archive(tmp_path / "ViT.pt", SIZES)
    converted(tmp_path, tmp_path / "ViT.pt", SIZES, "--sha256", sha256_of(tmp_path / "ViT.pt"))
    with safe_open(tmp_path / "out" / "teacher.safetensors", "pt") as file:
        facts = file.metadata()
    assert facts["source_sha256"] == sha256_of(tmp_path / "ViT.pt")
    assert facts["activation"] == "quick_gelu"
    assert facts["compared"].startswith("equal to open_clip")
    others = (tmp_path / "out" / "teacher.safetensors").stat().st_mode & 0o044
    (tmp_path / "plain").write_text("")
    assert others == (tmp_path / "plain").stat().st_mode & 0o044


@pytest.mark.slow
def test_weights_that_another_library_computes_otherwise_are_not_written(tmp_path: Path) -> None:
    hugging_face(tmp_path / "hf", SIZES, activation="gelu")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config["hidden_act"], config["layer_norm_eps"] = "quick_gelu", 0.5
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"gives other features in transformers .* so it is not written"):
        converted(tmp_path, tmp_path / "hf", SIZES)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_the_library_it_says_that_nothing_was_compared(tmp_path: Path) -> None:
    hugging_face(tmp_path / "hf", SIZES)
    broken = tmp_path / "site" / "transformers"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('not here')\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    done = command(env, "--model", MODEL, "--from", str(tmp_path / "hf"), "--output", str(tmp_path / "o.pth"))
    assert done.returncode == 0, done.stderr
    assert "not compared: transformers, whose files these are, cannot be imported here" in done.stdout


@pytest.mark.slow
def test_a_teacher_takes_hugging_face_s_folder_without_the_command(tmp_path: Path) -> None:
    expected = hugging_face(tmp_path / "hf", SIZES)
    teacher: Any = create_teacher(MODEL, image_size=64, return_layers=2, weights=str(tmp_path / "hf"))[0]
    with torch.no_grad():
        close(teacher.eval().encode(frames(SIZES)[:, :, None])[:, 0], expected)


@pytest.mark.slow
def test_the_help_needs_no_torch() -> None:
    code = "import sys, umt.tools.weights.clip as c; c.parser().print_help(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "--activation" in done.stdout
    assert done.stdout.endswith("False\n")


# ---- what cannot work: said before any library is imported


def tiny(file: Path, make: Callable[[], dict[str, Tensor]] | None = None) -> Path:
    torch.save(make() if make else create_model(MODEL).state_dict(), file)
    return file


def refused(tmp_path: Path, file: Path, *flags: str, model: str = MODEL) -> None:
    main(["--model", model, "--from", str(file), "--output", str(tmp_path / "o.pth"), *flags])


def test_a_tower_of_another_model_names_its_own(tmp_path: Path) -> None:
    file = tiny(tmp_path / "clip.pth")
    with pytest.raises(CheckpointError, match=rf"and clip_b16 width 768, .* \(--model\)\. Give --model {MODEL}"):
        refused(tmp_path, file, model="clip_b16")


def test_a_tower_of_no_model_says_so(tmp_path: Path) -> None:
    file = tiny(tmp_path / "clip.pth", lambda: create_model(MODEL, output_dim=32).state_dict())
    with pytest.raises(CheckpointError, match="It is none of clip_b16, clip_l14, clip_l14_336"):
        refused(tmp_path, file)


def test_a_file_that_does_not_say_its_activation_is_asked_about(tmp_path: Path) -> None:
    file = tiny(tmp_path / "clip.pth")
    with pytest.raises(CheckpointError, match=r"does not say whether its MLPs have QuickGELU.*say --activation"):
        refused(tmp_path, file)


def test_a_gelu_tower_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has gelu in its MLPs \(as --activation says\)"):
        refused(tmp_path, tiny(tmp_path / "clip.pth"), "--activation", "gelu")


def test_an_activation_that_the_file_contradicts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}}))
    with pytest.raises(ConfigError, match=r"--activation \(quick_gelu\) contradicts .*: gelu, as the configuration"):
        refused(tmp_path, tiny(tmp_path / "clip.pth"), "--activation", "quick_gelu")


def test_another_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has the sha256 [0-9a-f]{64}, not 0{64}"):
        refused(tmp_path, tiny(tmp_path / "clip.pth"), "--sha256", "0" * 64)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = tiny(tmp_path / "clip.pth")
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match="is truncated"):
        refused(tmp_path, file)


@pytest.mark.parametrize("start", ["version https://git-lfs.github.com/spec/v1\n", "<!DOCTYPE html><html>404</html>"])
def test_what_is_no_weights_is_refused(tmp_path: Path, start: str) -> None:
    (tmp_path / "ViT-B-16.pt").write_text(start)
    with pytest.raises(CheckpointError, match=r"is a git-lfs pointer|is a web page"):
        refused(tmp_path, tmp_path / "ViT-B-16.pt")


def test_a_published_source_that_a_model_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--from openai has no {MODEL}. It has clip_b16, clip_l14, clip_l14_336"):
        refused(tmp_path, Path("openai"))


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"--output \(.*file/teacher\.pth\) is no place for a file"):
        main(["--model", MODEL, "--from", "x", "--output", str(tmp_path / "file" / "teacher.pth")])


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--output \(teacher\.onnx\) must end in \.safetensors or \.pth"):
        main(["--model", MODEL, "--from", "x", "--output", "teacher.onnx"])
