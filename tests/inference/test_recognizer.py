"""`umt.load` and its recognizer: views and probabilities are those of a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.tiny import DESCRIPTION, NAMES, checkpoint, tiny
from tests.videos import played, render
from umt.data.lists.video_list import VideoList
from umt.data.loading.clip_batch import ClipBatch
from umt.data.loading.clips import Videos, ViewClips
from umt.data.loading.loaders import TestLoader
from umt.data.sampling import views_sampler
from umt.data.transforms.pipelines import TestTransform
from umt.errors import CheckpointError, ConfigError, VideoError
from umt.evaluation.multiview import merge
from umt.inference.class_names import class_names, how
from umt.inference.recognizer import Recognizer, load
from umt.tasks.classify.task import Classify


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("videos") / "a.mp4", frames=40, width=96, height=72)


def views_in_a_test(model: Recognizer, video: Path, clips: int, crops: int) -> ClipBatch:
    """What `umt test` makes of the video, by its own loader."""
    made = model.description
    rows = ViewClips(
        Videos(VideoList("list", [str(video)], [0])),
        views_sampler(made.sampling, made.num_frames, clips, made.sampling_rate),
        TestTransform(made.short_side_size, crops, 16),
    )
    (batch,) = TestLoader(rows)
    return batch


@pytest.mark.parametrize(("sampling", "clips", "crops"), [("sparse", 3, 3), ("dense", 4, 2), ("ssv2", 2, 1)])
def test_views_are_those_of_a_test_to_the_bit(video: Path, sampling: str, clips: int, crops: int) -> None:
    model = tiny(sampling=sampling)
    views = model.transform(video, clips, crops)
    assert torch.equal(views.permute(0, 4, 1, 2, 3), views_in_a_test(model, video, clips, crops).video)


def test_predictions_are_the_merged_scores_of_a_test_to_the_bit(video: Path) -> None:
    model = tiny()
    batch = views_in_a_test(model, video, 2, 3)
    task = Classify(model.model)
    with torch.no_grad():
        logits = torch.cat([task.evaluation_step(batch[start : start + 4]) for start in (0, 4)])
    merged = merge(logits.numpy().reshape(1, 2, 3, 5))[0]
    predicted = model.predict(model.transform(video, 2, 3))
    assert predicted.numpy().tolist() == merged.tolist()
    assert predicted.std() > 0.01


def test_frames_in_memory_are_read_as_the_file_is(video: Path) -> None:
    model, frames = tiny(), played(video)
    assert torch.equal(model.transform(frames, 2, 3), model.transform(video, 2, 3))
    assert torch.equal(model.transform(torch.from_numpy(frames)), model.transform(video))


def test_a_file_that_is_no_video_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    with pytest.raises(VideoError, match=r"broken\.mp4: cannot be read as a video"):
        tiny().transform(broken)


def test_frames_that_are_no_bytes_are_refused() -> None:
    with pytest.raises(VideoError, match=r"not \(8, 48, 48, 3\) float64"):
        tiny().transform(np.zeros((8, 48, 48, 3)))


def test_views_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"views must be \(V, 8, 16, 16, 3\) uint8"):
        tiny().predict(torch.zeros(1, 8, 64, 64, 3, dtype=torch.uint8))


def test_classes_that_do_not_exclude_each_other_get_a_sigmoid_each(video: Path) -> None:
    model = tiny(multi_label=True)
    views = model.transform(video, 2, 1)
    assert torch.allclose(model.predict(views), model.logits(views).double().sigmoid().mean(0), atol=1e-15)


def test_normalisation_is_the_descriptions(video: Path) -> None:
    model = tiny(mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
    views = model.transform(video)
    (fed,) = model.batches(views)
    expected = (views.double() / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.5, 0.25, 0.2])
    assert torch.allclose(fed.permute(0, 2, 3, 4, 1).double(), expected, atol=1e-6)


def test_names_of_classes_are_never_guessed(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny()
    assert not model.named
    assert model.labels[torch.tensor(3)] == "class 3"
    assert "does not name its 5 classes. Name them: labels=" in caplog.text
    assert "takes k400_umt or k400 (the order of the training list), or a file" in how(400)


def test_four_lines_from_a_checkpoint_to_a_name(tmp_path: Path, video: Path) -> None:
    import umt

    model = umt.load(checkpoint(tmp_path), device="cpu", precision="fp32", batch_size=4)
    views = model.transform(video)
    probabilities = model.predict(views)
    assert model.labels[probabilities.argmax()] in NAMES
    same = tiny(labels=NAMES)
    assert torch.equal(probabilities, same.predict(same.transform(video)))
    assert model.description.short_side_size == DESCRIPTION.short_side_size


def test_a_model_without_a_head_predicts_nothing(video: Path) -> None:
    model = tiny(arguments={**DESCRIPTION.arguments, "num_classes": 0})
    with pytest.raises(ConfigError, match=r"has no classes to predict.*umt extract"):
        model.predict(model.transform(video))


def test_scores_that_are_no_numbers_are_refused(video: Path) -> None:
    model = tiny()
    torch.nn.init.constant_(model.model.get_parameter("head.bias"), float("nan"))
    with pytest.raises(CheckpointError, match=r"gives scores that are not finite.*--precision fp32"):
        model.predict(model.transform(video))


def test_numbers_below_one_are_refused_on_loading(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--sampling_rate \(0\) must be at least 1"):
        load(checkpoint(tmp_path), device="cpu", sampling_rate=0)
    with pytest.raises(ConfigError, match=r"--short_side_size \(-1\) must be at least 1"):
        load(checkpoint(tmp_path), device="cpu", short_side_size=-1)


def test_an_order_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"names 400 classes, but w\.pth has 174\. Of that size are ssv2"):
        class_names("w.pth", 174, None, "k400")


def test_the_other_order_of_kinetics_is_refused_where_the_weights_say_theirs() -> None:
    from umt.data.labels import names_of

    with pytest.raises(
        ConfigError,
        match=r"alphabetical order, but w\.pth says that its classes are",
    ):
        class_names("w.pth", 400, names_of("k400_umt"), "k400")
    assert class_names("w.pth", 400, None, "k400") == names_of("k400")
