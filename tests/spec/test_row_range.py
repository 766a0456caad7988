"""Ranges of rows are Python's slices, in rows or in percent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfray.spec.row_range import bounds, check_range

ENDS = st.one_of(st.none(), st.integers(-30, 30))


@given(ENDS, ENDS, st.integers(0, 25))
def test_rows_are_those_of_a_slice(first: int | None, last: int | None, num_rows: int) -> None:
    text = ":".join("" if end is None else str(end) for end in (first, last))
    if text == ":":
        return
    start, stop = bounds(text, num_rows)
    assert list(range(start, stop)) == list(range(num_rows))[first:last]


@given(st.integers(0, 100), st.integers(0, 10_000))
def test_percentages_cut_without_a_gap(percent: int, num_rows: int) -> None:
    assert bounds(f":{percent}%", num_rows)[1] == bounds(f"{percent}%:", num_rows)[0]
    assert bounds(f"-{percent}%:", num_rows)[0] == num_rows - bounds(f":{percent}%", num_rows)[1]


def test_a_limit_counts_from_the_first_selected_row() -> None:
    assert bounds("10:50", 100, limit=7) == (10, 17)
    assert bounds(None, 100, limit=700) == (0, 100)


@pytest.mark.parametrize("text", ["", ":", "5", "a:b", "1:2:3", "1.5:", "101%:", "%:"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|more than all"):
        check_range(text)
