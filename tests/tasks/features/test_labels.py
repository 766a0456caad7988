"""What a label column may hold, and what becomes of names that are known only at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from hfray.errors import RowError, SpecError
from hfray.tasks.features.labels import (
    ClassIndex,
    TextLabelOptions,
    TextLabels,
    final_label_type,
    index_labels,
    names_in,
    raw_label_type,
)
from tests.tasks.features.support import listed


def labels(type_: pa.DataType, **options: Any) -> TextLabels:
    return TextLabels(TextLabelOptions(name="any", **options), type_)


def made(of: TextLabels, *values: Any) -> list[Any]:
    """The column of some labels, which is of the type that is promised."""
    column = of.column([of.of({"label": value}) for value in values])
    assert pa.array(listed(column), of.type()).type == of.type()
    return listed(column)


def error(of: TextLabels, value: Any) -> tuple[str, str]:
    with pytest.raises(RowError) as caught:
        of.of({"label": value})
    return caught.value.type, caught.value.message


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_names_become_indexes_of_the_list(type_: pa.DataType) -> None:
    known = labels(type_, labels=["cold", "warm"])
    assert (made(known, "warm", "cold"), known.type(), known.names) == ([1, 0], pa.int32(), ("cold", "warm"))
    assert error(known, "wram") == ("UnknownLabel", "label 'wram' is not in labels; did you mean 'warm'?")
    assert error(known, "zzz") == ("UnknownLabel", "label 'zzz' is not in labels; the 2 classes are 'cold', 'warm'")
    assert error(known, None) == ("NullLabel", "label is null")
    assert error(known, 1) == ("WrongType", "label is int, not the name of a class")
    assert error(known, "0")[0] == "UnknownLabel"  # digits are a name


def test_names_that_are_not_listed_stay_names() -> None:
    names = labels(pa.string())
    assert (made(names, "warm", "cold"), names.type(), names.names) == (["warm", "cold"], pa.string(), None)
    assert error(names, 3)[0] == "WrongType"
    assert error(names, "a\ud800")[0] == "UnknownLabel"


@pytest.mark.parametrize("type_", [pa.int64(), pa.uint8(), pa.bool_()])
def test_whole_numbers_are_indexes(type_: pa.DataType) -> None:
    assert made(labels(type_), 1, 0, True) == [1, 0, 1]
    assert labels(type_).type() == pa.int32()
    known = labels(type_, labels=["cold", "warm"])
    assert made(known, 1, 0) == [1, 0]
    assert error(known, 2) == ("UnknownLabel", "label 2 is not the index of a class; the 2 classes are 'cold', 'warm'")
    assert error(labels(type_), -1)[0] == "UnknownLabel"  # a ClassLabel that is not there
    assert error(labels(type_), 2**31)[0] == "UnknownLabel"
    assert error(labels(type_), "cold")[0] == "WrongType"
    assert error(labels(type_), None)[0] == "NullLabel"


def test_lists_are_several_labels() -> None:
    known = labels(pa.list_(pa.string()), labels=["a", "b", "c"])
    assert made(known, ["c", "a", "c"], [], ["b"]) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert known.type() == pa.list_(pa.float32())
    assert error(known, ["a", "x"]) == (
        "UnknownLabel",
        "label[1] 'x' is not in labels; the 3 classes are 'a', 'b', 'c'",
    )
    assert error(known, ["a", None]) == ("NullLabel", "label[1] is null")
    assert error(known, None)[0] == "NullLabel"
    assert error(known, "a")[0] == "WrongType"
    assert made(labels(pa.list_(pa.int64()), labels=["a", "b"]), [1], [0, 1]) == [[0, 1], [1, 1]]
    names = labels(pa.list_(pa.string()))
    assert made(names, ["c", "a"], []) == [["c", "a"], []]
    with pytest.raises(SpecError, match="labels: missing"):
        labels(pa.list_(pa.int64()))


def test_numbers_are_regression() -> None:
    numbers = labels(pa.float64())
    assert (made(numbers, 2.5, 1), numbers.type(), numbers.names) == ([2.5, 1.0], pa.float32(), None)
    for wrong in ("2.5", float("nan"), float("inf"), 1e39, [1.0], True):
        assert error(numbers, wrong)[0] == "WrongType", wrong
    assert error(numbers, None)[0] == "NullLabel"
    assert made(labels(pa.int64(), problem_type="regression"), 3) == [3.0]


@pytest.mark.parametrize(
    ("type_", "options", "message"),
    [
        (pa.string(), {"problem_type": "regression"}, "is string, not a number"),
        (pa.float32(), {"labels": ["a"]}, "labels: not for problem_type regression"),
        (pa.float32(), {"problem_type": "single_label_classification"}, "a name .* or an index"),
        (pa.string(), {"problem_type": "multi_label_classification"}, "is string, not a list of classes"),
        (pa.list_(pa.string()), {"problem_type": "single_label_classification"}, "not one class"),
        (pa.list_(pa.float32()), {"labels": ["a"]}, "is float; a class is a name"),
        (pa.null(), {}, "is null; a class is a name"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(type_: pa.DataType, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        labels(type_, **options)


@pytest.mark.parametrize("names", [(), ("a", "b", "a")])
def test_a_list_of_labels_that_cannot_be(names: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        TextLabelOptions(name="any", labels=names)


def test_a_row_without_the_column() -> None:
    with pytest.raises(RowError, match="column 'label' is missing") as caught:
        labels(pa.string()).of({"text": "a"})
    assert caught.value.type == "MissingColumn"


def test_names_of_the_whole_input_become_indexes() -> None:
    one, several, tags = (raw_label_type(form) for form in ("one", "several", "tags"))  # type: ignore[arg-type]
    column = ["warm", "cold", "warm"]
    known = names_in(column)
    assert known == ("cold", "warm")
    assert listed(index_labels(column, known)) == listed(index_labels(column, known, one)) == [1, 0, 1]
    assert final_label_type(one) == pa.int32()
    lists = [["b", "a"], [], ["b"]]
    assert names_in(lists) == ("a", "b")
    hot = index_labels(lists, ("a", "b", "c"), several)
    assert listed(hot) == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert final_label_type(several) == pa.list_(pa.float32())
    assert getattr(hot, "values").dtype == np.float32  # noqa: B009
    of_tokens = [[None, "b", None], ["a"]]
    assert names_in(of_tokens) == ("a", "b")
    assert listed(index_labels(of_tokens, ("a", "b"), tags)) == [[-100, 1, -100], [0]]
    assert final_label_type(tags) == pa.list_(pa.int32())
    with pytest.raises(ValueError, match="give raw_type"):
        index_labels(lists, ("a", "b"))
    with pytest.raises(KeyError):
        index_labels(["x"], ("a", "b"))


def test_the_raw_type_survives_a_table_and_a_file() -> None:
    """Tags and labels are told apart by it after the drafts have been read back."""
    for form, wanted in (("tags", pa.list_(pa.int32())), ("several", pa.list_(pa.float32()))):
        schema = pa.schema([("labels", raw_label_type(form))])  # type: ignore[arg-type]
        table = pa.table({"labels": [["a"], []]}, schema=schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table)
        read = pa.ipc.open_stream(sink.getvalue()).read_all().cast(schema)
        again = pa.concat_tables([schema.empty_table(), read]).take(pa.array([1, 0])).combine_chunks()
        assert final_label_type(again.schema.field("labels").type) == wanted


def test_a_class_of_an_odd_type_is_refused() -> None:
    with pytest.raises(SpecError, match="a tag is double"):
        ClassIndex(None, pa.float64(), "a tag")
