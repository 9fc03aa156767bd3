"""Lists with anything in them: any bytes give a VideoList or an AnnotationError, and what is written reads back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from umt.data.lists.lines import SEPARATORS, Form, Row
from umt.data.lists.reading import count_rows, read_list
from umt.data.lists.text import plain_table, read_bytes, rows
from umt.data.lists.video_list import VideoList
from umt.errors import AnnotationError

SEPARATOR = st.sampled_from(list(SEPARATORS))

# Bytes that are nearly lists: random ones are almost never one.
WORDS = [b"a.mp4", b"b/c d.mp4", b"label", b"path", b"num_frames", b"0", b"7", b"-1", b"3.0", b"1e3", b"9" * 19]
MARKS = [b",", b" ", b"\t", b";", b"|", b'"', b'""', b"\n", b"\r\n", b"\r", b"\n\n", b"\x00", b"\xff", b"\xff\xfe"]
LETTERS = [letter.encode() for letter in ("é", "٣", "\u2028", "\u00a0", "\ufeff", "\x1c", "\x0b")]
PIECES = st.sampled_from([*WORDS, *MARKS, *LETTERS])
NEARLY = st.lists(PIECES, max_size=24).map(b"".join)
OPTIONS = st.fixed_dictionaries(
    {
        "separator": SEPARATOR,
        "frame_folders": st.booleans(),
        "labels_optional": st.booleans(),
        "num_classes": st.sampled_from([None, 1, 400]),
    }
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lists") / "list.csv"


@settings(max_examples=400, deadline=None)
@given(data=st.one_of(NEARLY, st.binary(max_size=60)), options=OPTIONS)
@example(data=b"a.mp4," + b"9" * 30 + b"\n", options={"separator": ","})
@example(data=b'"' + b"a" * 200_000 + b'",1\n', options={"separator": ","})
@example(data=b"a\x00b,1\n", options={"separator": ","})
@example(data="a.mp4,٣\n".encode(), options={"separator": ","})
def test_any_bytes_give_a_list_or_a_sentence(file: Path, data: bytes, options: dict) -> None:
    file.write_bytes(data)
    try:
        videos = read_list(file, **options)
    except AnnotationError as error:
        assert str(file) in str(error)  # noqa: PT017
    else:
        assert isinstance(videos, VideoList)
        assert len(videos) == len(videos.num_frames) == count_rows(file) > 0
        assert all(videos.path(row) and "\0" not in videos.path(row) for row in range(len(videos)))


@settings(max_examples=200, deadline=None)
@given(data=st.one_of(NEARLY, st.binary(max_size=60)))
def test_any_bytes_are_counted_or_refused_in_a_sentence(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    try:
        assert count_rows(file) >= 0
    except AnnotationError as error:
        assert str(file) in str(error)  # noqa: PT017


@settings(max_examples=400, deadline=None)
@given(
    data=st.one_of(
        NEARLY,
        st.lists(
            st.tuples(st.sampled_from([b"a.mp4", b"b c,d", b"e "]), st.sampled_from([b"0", b"12", b"-1", b"x"])),
            max_size=5,
        ).map(
            lambda rows: b"".join(
                path + b",17," * (i % 2) + b"," + label + b"\n" for i, (path, label) in enumerate(rows)
            )
        ),
    ),
    form=st.builds(Form, SEPARATOR, st.booleans(), st.booleans(), words=st.booleans()),
)
@example(data=b"a.mp4 \n", form=Form(" ", words=True))
@example(data=b"\npath,class\na.mp4,run\n", form=Form(",", words=True))
@example(data=b"a.mp4,run\r\nb.mp4,\r\n", form=Form(",", words=True))
def test_a_plain_list_reads_the_same_at_once_and_line_by_line(file: Path, data: bytes, form: Form) -> None:
    file.write_bytes(data)
    try:
        plain = plain_table(read_bytes(str(file)), form)
    except AnnotationError:
        return
    if plain is not None:
        videos = VideoList.of("", plain)
        words = plain.words or [""]
        read = [
            (number, Row(videos.path(i), frames, -1 if form.words else label, words[label if form.words else 0]))
            for i, (number, frames, label) in enumerate(
                zip(plain.lines.tolist(), plain.frames.tolist(), plain.labels.tolist(), strict=True)
            )
        ]
        assert read == list(rows(str(file), form))


# What a path may be: anything that a file system and a line can hold, quotes and separators and all.
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1, max_size=20)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(PATHS, st.integers(1, 10**6), st.integers(0, 10**9)), min_size=1, max_size=6),
    separator=SEPARATOR,
    frame_folders=st.booleans(),
)
@example(rows=[("path,label", 1, 0)], separator=",", frame_folders=False)
@example(rows=[('say "yes", now.mp4', 1, 0)], separator=",", frame_folders=False)
def test_written_rows_read_back(
    file: Path, rows: list[tuple[str, int, int]], separator: str, frame_folders: bool
) -> None:
    form = Form(separator, frame_folders)
    written: list[Row] = []
    text = ""
    for path, frames, label in rows:
        row = Row(path, frames if frame_folders else -1, label)
        try:
            text += form.line(row) + "\n"
        except AnnotationError as error:
            assert "cannot be written into a list" in str(error)  # noqa: PT017
            assert path != path.strip() or path.startswith("\ufeff")
        else:
            written.append(row)
    file.write_text(text, encoding="utf-8", newline="")
    if written:
        videos = read_list(file, separator=separator, frame_folders=frame_folders)
        read = zip(map(videos.path, range(len(videos))), videos.num_frames, videos.labels, strict=True)
        assert [Row(p, int(f), int(label)) for p, f, label in read] == written
        assert count_rows(file) == len(written)
