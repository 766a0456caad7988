"""The names of parts: one numbering over all splits, and back again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfray.data.layout import Layout, is_ours

SPLITS = (("train", 12), ("validation", 1), ("test", 3))


@given(st.integers(0, 10**8 - 1), st.sampled_from(["parquet", "jsonl", "arrow"]))
def test_a_name_tells_its_part(part: int, format: Any) -> None:
    layout = Layout("data", format)
    assert layout.part(layout.name(part)) == part
    assert is_ours(layout.name(part))


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_parts_of_splits_count_on(format: Any) -> None:
    layout = Layout("data", format, SPLITS)
    names = [layout.name(part) for part in range(16)]
    assert len(set(names)) == 16
    assert [layout.part(name) for name in names] == list(range(16))
    assert [layout.split_of(part) for part in (0, 11, 12, 13, 15)] == [0, 0, 1, 2, 2]
    assert all(is_ours(name) for name in names)
    assert layout.folders == ("data", "data/train", "data/validation", "data/test")


def test_names_are_those_of_the_libraries() -> None:
    assert Layout("data", "parquet", SPLITS).path(13) == "data/test/part-00000000.parquet"
    assert Layout("data", "arrow", SPLITS).path(2) == "data/train/data-00002-of-00012.arrow"
    assert Layout("_work/scan/parts", "arrow").path(3) == "_work/scan/parts/part-00000003.arrow"


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "part-.parquet", "part-1.csv", ".part-00000001.parquet.ab.tmp", "00000001.parquet", "part-x.jsonl"],
)
def test_foreign_names_are_no_parts(name: str) -> None:
    assert Layout("data", "parquet").part(name) is None
    assert not is_ours(name)


@pytest.mark.parametrize(
    "name",
    [
        "part-00000000.parquet",
        "dev/part-00000000.parquet",
        "test/part-00000003.parquet",
        "train/part-00000000.jsonl",
        "train/data-00000-of-00012.arrow",
        "train/part-0000000000.parquet",
    ],
)
def test_another_layouts_names_are_no_parts(name: str) -> None:
    assert Layout("data", "parquet", SPLITS).part(name) is None
