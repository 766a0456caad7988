from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from hfray.data.utf8 import decode, repair_table, replace_surrogates, without_surrogates


@given(st.lists(st.none() | st.binary(max_size=8), max_size=8))
def test_a_repaired_column_is_valid_and_only_bad_rows_change(values: list[bytes | None]) -> None:
    raw = pa.array(values, pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers(), raw.null_count)
    table, errors = repair_table(pa.table({"n": range(len(values)), "t": column}))
    table.validate(full=True)
    for row, (value, kept) in enumerate(zip(values, table["t"].to_pylist(), strict=True)):
        if value is None:
            assert kept is None
        else:
            assert (kept, row in errors) == decode(value)


def test_every_nesting_is_repaired() -> None:
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    large = pa.Array.from_buffers(pa.large_string(), 1, pa.array([b"\xff"], pa.large_binary()).buffers())
    offsets = pa.array([0, 1], pa.int32())
    columns = {
        "large": large,
        "list": pa.ListArray.from_arrays(offsets, bad),
        "struct": pa.StructArray.from_arrays([bad, pa.array([7])], names=["s", "n"]),
        "map": pa.MapArray.from_arrays(offsets, pa.array(["k"]), bad),
        "fixed": pa.FixedSizeListArray.from_arrays(bad, 1),
    }
    for name, column in columns.items():
        table, errors = repair_table(pa.table({name: column}))
        table.validate(full=True)
        assert list(errors) == [0], name
        assert "\ufffd" in str(table[name].to_pylist())
        assert table[name].type == column.type


@given(st.text(st.characters()))
def test_surrogates(text: str) -> None:
    whole = replace_surrogates(text)
    whole.encode()
    if not any(0xD800 <= ord(char) < 0xE000 for char in text):
        assert whole == text


def test_surrogates_in_json_values() -> None:
    assert without_surrogates({"a\udc00": ["\ud83d\ude00", 1, None]}) == {"a\ufffd": ["😀", 1, None]}
