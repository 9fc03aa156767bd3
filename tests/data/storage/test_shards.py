"""The index of shards: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umt.data.storage.shards import Place, Shard, read_index, write_index
from umt.errors import AnnotationError

DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
PATHS = st.binary(min_size=1, max_size=30).map(lambda b: b.replace(b"\n", b"\t").decode("utf-8", "surrogateescape"))
NUMBERS = st.integers(0, 2**62)


@st.composite
def indexes(draw: st.DrawFn) -> tuple[tuple[Shard, ...], list[Place]]:
    shards = draw(st.lists(st.builds(Shard, PATHS, NUMBERS, DIGESTS), min_size=1, max_size=4).map(tuple))
    place = st.builds(Place, PATHS, st.integers(0, len(shards) - 1), NUMBERS, NUMBERS, DIGESTS)
    return shards, draw(st.lists(place, max_size=6))


@given(indexes())
def test_an_index_survives_writing_and_reading(index: tuple[tuple[Shard, ...], list[Place]]) -> None:
    assert read_index(write_index(*index), "shards.idx") == index


@given(indexes(), st.data())
def test_no_part_of_an_index_passes_for_a_whole_one(
    index: tuple[tuple[Shard, ...], list[Place]], data: st.DataObject
) -> None:
    whole = write_index(*index)
    with pytest.raises(AnnotationError, match=r"^shards\.idx is not a complete index of shards"):
        read_index(whole[: data.draw(st.integers(0, len(whole) - 1))], "shards.idx")


@given(st.binary(max_size=200))
def test_other_bytes_are_a_sentence(content: bytes) -> None:
    with pytest.raises(AnnotationError, match=r"^shards\.idx is not a complete index of shards"):
        read_index(content, "shards.idx")
