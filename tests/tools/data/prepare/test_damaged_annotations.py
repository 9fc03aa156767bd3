"""Whatever stands in an annotation file, it is read or refused with a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umt.errors import UserError
from umt.tools.data.prepare import kinetics
from umt.tools.data.prepare.clips import Official
from umt.tools.data.prepare.others import READERS

HEADER = b"label,youtube_id,time_start,time_end,split\n"
KINETICS = HEADER + b'yoga,0wR5jVB-WPk,417,427,train\n"yoga",a_b-c_d-e_f,5,15,train\n'
ENTRY = {"0wR5jVB-WPk": {"annotations": {"label": "yoga", "segment": [1.0, 11.0]}, "subset": "train"}}
FILES = {
    "k400": {"train.csv": KINETICS},
    "k600": {"train.json": json.dumps(ENTRY).encode()},
    "ssv2": {
        "train.json": b'[{"id": "78687", "template": "Holding [something] next to [something]"}]',
        "labels.json": b'{"Approaching something with your camera": "0"}',
        "test-answers.csv": b"1420;Approaching something with your camera\n",
    },
    "mitv1": {"trainingSet.csv": b"clapping/yt-1.mp4,clapping,4,1\n", "moments_categories.txt": b"clapping,0\n"},
    "ucf101": {"trainlist01.txt": b"ApplyEyeMakeup/v_g08_c01.avi 1\n", "testlist01.txt": b"Archery/v_g01_c01.avi\n"},
    "hmdb51": {"brush_hair_test_split1.txt": b"a.avi 1 \nb.avi 2 \n"},
}


def read(dataset: str, folder: Path) -> Official:
    if dataset.startswith("k"):
        return kinetics.read(dataset, [folder], [folder], "umt")
    return READERS[dataset]([folder], [folder], 1)


def damaged(content: bytes, draw: Callable[..., int | bytes]) -> bytes:
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(start + 20, len(content))))
    return content[:start] + draw(st.binary(max_size=12)) + content[end:]  # type: ignore[index, operator]


@pytest.mark.parametrize("dataset", FILES)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_a_damaged_annotation_gives_lists_or_a_sentence(dataset: str, data: st.DataObject, tmp_path: Path) -> None:
    folder = tmp_path / dataset
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    spoilt = data.draw(st.sampled_from(sorted(FILES[dataset])))
    for name, content in FILES[dataset].items():
        (folder / name).write_bytes(damaged(content, data.draw) if name == spoilt else content)
    said = ""
    try:
        assert all(clip.stems for clips in read(dataset, folder).splits.values() for clip in clips)
    except UserError as error:
        said = str(error)
    assert not said or (dataset in said or str(folder) in said)
    assert "\n" not in said


@pytest.mark.parametrize("dataset", ["k400", "ssv2"])
@pytest.mark.parametrize("content", ["[" * 100_000, "null", "[[]]", '{"a": 1}', '{"a": {"annotations": 3}}', '"x"'])
def test_json_of_another_kind_is_refused(dataset: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(UserError, match=r"train.json|no annotation below"):
        read(dataset, tmp_path)
