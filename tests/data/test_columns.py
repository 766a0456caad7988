from __future__ import annotations

import pyarrow as pa
import pytest

from hfray.data.base import ShardRows
from hfray.data.columns import Columns
from hfray.errors import SpecError

SCHEMA = pa.schema({"id": pa.int64(), "query": pa.string()})


def test_renaming() -> None:
    columns = Columns({"text": "query", "picture": "image"}, SCHEMA, ("image",))
    assert columns.schema == pa.schema({"id": pa.int64(), "text": pa.string()})
    assert columns.names == ("id", "text", "picture")
    rows = ShardRows(pa.table({"id": [1], "query": ["5"]}, schema=SCHEMA), seen={"query": [5], "image": [b"x"]})
    renamed = columns.apply(rows)
    assert renamed.table.to_pylist() == [{"id": 1, "text": "5"}]
    assert renamed.rows() == [{"id": 1, "text": 5, "picture": b"x"}]
    assert Columns({}, SCHEMA).apply(rows).table is not None
    swapped = Columns({"query": "id", "id": "query"}, SCHEMA)
    assert swapped.names == ("query", "id")


@pytest.mark.parametrize(
    ("mapping", "schema", "words"),
    [
        ({"text": "quer"}, SCHEMA, r"columns\.text: the input has no column 'quer': did you mean 'query'\? it has id,"),
        ({"a": "id", "b": "id"}, SCHEMA, "both 'a' and 'b' are made from 'id'"),
        ({"id": "query"}, SCHEMA, "'id' and 'query' would both be called 'id'"),
        (
            {},
            pa.schema({"result": pa.string()}),
            r"a column 'result', which hfray writes itself: .*input_result: result",
        ),
        ({"error": "id"}, SCHEMA, r"a column 'error'"),
    ],
)
def test_mistakes(mapping: dict[str, str], schema: pa.Schema, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Columns(mapping, schema)


def test_a_reserved_name_can_be_renamed_away() -> None:
    assert Columns({"old": "result"}, pa.schema({"result": pa.string()})).names == ("old",)


def test_require() -> None:
    columns = Columns({}, SCHEMA)
    columns.require(["id", "query"], "task")
    with pytest.raises(
        SpecError, match=r"task: there is no column 'querry': did you mean 'query'\?.*columns: {querry:"
    ):
        columns.require(["id", "querry"], "task")
    with pytest.raises(SpecError, match="it has none"):
        Columns({}, pa.schema([])).require(["text"], "task")
