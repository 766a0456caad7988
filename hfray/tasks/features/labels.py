"""Labels of training examples: what a label column may hold, and what it becomes. Knows names, indexes and numbers;
not texts, not tokens.

A column's Arrow type says what it holds, so that one odd value is that row's mistake. Names that the options do not
list stay names until the whole input has been looked through: `index_labels` then makes their final form.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from hfray.errors import RowError, SpecError
from hfray.tasks.features.base import IGNORED, FeatureOptions
from hfray.types import Array, Column, Ragged, Row

if TYPE_CHECKING:
    import pyarrow as pa

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]

_TAG = "tag"
"""The name that Arrow gives the values of a list of tags, one per token, to tell it from a list of a row's labels."""
_MAX_INDEX = 2**31 - 1
_MAX_FLOAT = float(np.finfo(np.float32).max)


class LabelOptions(FeatureOptions):
    """Options of every mode with classes."""

    labels: tuple[str, ...] | Literal["auto"] = Field(default="auto", min_length=1)
    """The names of the classes, by index; `auto`: those in the data, sorted (numbers are indexes already)."""

    @field_validator("labels")
    @classmethod
    def _check_names(cls, labels: tuple[str, ...] | str) -> tuple[str, ...] | str:
        twice = sorted({name for name in labels if labels.count(name) > 1}) if isinstance(labels, tuple) else ()
        if twice:
            raise ValueError(f"{twice[0]!r} is listed twice")
        return labels


class TextLabelOptions(LabelOptions):
    """Options of the modes with labels per row."""

    problem_type: Literal["auto"] | ProblemType = "auto"
    """What `label` is: one class, a list of classes, or a number; `auto` goes by the column's type: text, whole numbers
    and truth values are one class, lists are several, numbers with a fraction are numbers."""


class ClassIndex:
    """Class names, or the numbers of classes, to indexes."""

    def __init__(self, names: tuple[str, ...] | None, type_: pa.DataType, what: str) -> None:
        """names: None where they are not known. type_: of one value. Raises SpecError: nothing in it can be a class."""
        import pyarrow as pa

        self.names = names
        self._index = {name: index for index, name in enumerate(names or ())}
        if pa.types.is_dictionary(type_):
            type_ = type_.value_type
        self._text = is_text(type_)
        if not (self._text or pa.types.is_integer(type_) or pa.types.is_boolean(type_)):
            raise SpecError(f"{what} is {type_}; a class is a name (string) or an index (int)")

    @property
    def open(self) -> bool:
        """Whether values are names that stay names for now."""
        return self._text and self.names is None

    def of(self, value: Any, what: str) -> int | str:
        """The index of a value; its name while names are open. Raises RowError: NullLabel, WrongType, UnknownLabel."""
        if value is None:
            raise RowError(f"{what} is null", type="NullLabel")
        if self._text:
            if not isinstance(value, str):
                raise RowError(f"{what} is {type(value).__name__}, not the name of a class", type="WrongType")
            if self.names is None:
                return _name(value, what)
            if value not in self._index:
                raise RowError(f"{what} {value!r:.100} is not in labels{_hint(value, self.names)}", type="UnknownLabel")
            return self._index[value]
        if not isinstance(value, int | np.integer | np.bool_):
            raise RowError(f"{what} is {type(value).__name__}, not the index of a class", type="WrongType")
        index = int(value)
        most = _MAX_INDEX if self.names is None else len(self.names) - 1
        if not 0 <= index <= most:
            known = "" if self.names is None else f"; {_known(self.names)}"
            raise RowError(f"{what} {index} is not the index of a class{known}", type="UnknownLabel")
        return index


class TextLabels:
    """The column `label`: one class, several classes, or a number for each row."""

    def __init__(self, options: TextLabelOptions, type_: pa.DataType) -> None:
        """Raises SpecError: the column's type does not fit the options."""
        self.names = None if options.labels == "auto" else tuple(options.labels)
        self._problem: ProblemType = _problem_of(type_) if options.problem_type == "auto" else options.problem_type
        if self._problem == "regression":
            if not _is_number(type_):
                raise SpecError(f"problem_type regression: column 'label' is {type_}, not a number")
            if self.names is not None:
                raise SpecError("labels: not for problem_type regression, whose labels are numbers")
            return
        self._several = self._problem == "multi_label_classification"
        if self._several != _is_list(type_):
            wanted = "a list of classes" if self._several else "one class"
            raise SpecError(f"problem_type {self._problem}: column 'label' is {type_}, not {wanted}")
        value_type = type_.value_type if self._several else type_
        self._classes = ClassIndex(self.names, value_type, "column 'label'")
        if self._several and self.names is None and not self._classes.open:
            raise SpecError(
                f"labels: missing; column 'label' is {type_}, which does not say how many classes there are"
            )

    def of(self, row: Row) -> Any:
        """What `column` takes for one row. Raises RowError: MissingColumn, NullLabel, WrongType, UnknownLabel."""
        if "label" not in row:
            raise RowError("column 'label' is missing", type="MissingColumn")
        value = row["label"]
        if self._problem == "regression":
            return _number(value)
        if not self._several:
            return self._classes.of(value, "label")
        if value is None:
            raise RowError("label is null", type="NullLabel")
        if not isinstance(value, list | tuple | np.ndarray):
            raise RowError(f"label is {type(value).__name__}, not a list of classes", type="WrongType")
        return [self._classes.of(each, f"label[{index}]") for index, each in enumerate(value)]

    def column(self, values: list[Any]) -> Column:
        if self._problem == "regression":
            return np.array(values, np.float32)
        if self._classes.open:
            return values
        return _multi_hot(values, len(self.names or ())) if self._several else np.array(values, np.int32)

    def type(self) -> pa.DataType:
        """Of what `column` gives."""
        import pyarrow as pa

        if self._problem == "regression":
            return pa.float32()
        raw = raw_label_type("several" if self._several else "one")
        return raw if self._classes.open else final_label_type(raw)


def raw_label_type(form: Literal["one", "several", "tags"]) -> pa.DataType:
    """The Arrow type of labels that are names still: one per row, several per row, or one per token (null: ignored)."""
    import pyarrow as pa

    forms = {"one": pa.string(), "several": pa.list_(pa.string()), "tags": pa.list_(pa.field(_TAG, pa.string()))}
    return forms[form]


def final_label_type(raw_type: pa.DataType) -> pa.DataType:
    """What labels of a `raw_label_type` become: int32, list<float> (one per class), or list<int32> (one per token)."""
    import pyarrow as pa

    if not _is_list(raw_type):
        return pa.int32()
    return pa.list_(pa.int32() if _are_tags(raw_type) else pa.float32())


def index_labels(column: Sequence[Any], names: Sequence[str], raw_type: pa.DataType | None = None) -> Column:
    """A column of names in its final form. Raises ValueError for lists without their type: several labels and tags look
    alike, and KeyError for a name that is not in `names`.

    raw_type: of the column; not needed for one name per row.
    """
    index: Mapping[str | None, int] = {None: IGNORED} | {name: place for place, name in enumerate(names)}
    if raw_type is None and any(isinstance(each, list) for each in column):
        raise ValueError("lists of names are indexed by their Arrow type: give raw_type")
    if raw_type is None or not _is_list(raw_type):
        return np.array([index[each] for each in column], np.int32)
    indexes = [[index[name] for name in each] for each in column]
    return Ragged.of(indexes) if _are_tags(raw_type) else _multi_hot(indexes, len(names))


def names_in(column: Sequence[Any]) -> tuple[str, ...]:
    """All names in a column of names, or of lists of them, sorted."""
    names: set[str | None] = set()
    for value in column:
        names.update([value] if isinstance(value, str) else value)
    return tuple(sorted(name for name in names if name is not None))


def is_text(type_: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _problem_of(type_: pa.DataType) -> ProblemType:
    import pyarrow as pa

    if _is_list(type_):
        return "multi_label_classification"
    return "regression" if pa.types.is_floating(type_) or pa.types.is_decimal(type_) else "single_label_classification"


def _is_list(type_: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _is_number(type_: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_decimal(type_))


def _are_tags(raw_type: pa.DataType) -> bool:
    return bool(raw_type.value_field.name == _TAG)


def _multi_hot(indexes: Sequence[Sequence[int]], num_labels: int) -> Ragged:
    """float32, one list of `num_labels` zeros and ones per row."""
    hot: Array = np.zeros((len(indexes), num_labels), np.float32)
    for row, chosen in enumerate(indexes):
        hot[row, chosen] = 1.0
    return Ragged(hot.reshape(-1), np.arange(len(indexes) + 1, dtype=np.int64) * num_labels)


def _name(value: str, what: str) -> str:
    """A name that can be written. Raises RowError UnknownLabel."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RowError(f"{what} {value!r:.100} contains a lone surrogate", type="UnknownLabel") from None
    return value


def _number(value: Any) -> float:
    if value is None:
        raise RowError("label is null", type="NullLabel")
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= _MAX_FLOAT:
        raise RowError(f"label {value!r:.100} ({type(value).__name__}) is not a finite number", type="WrongType")
    return number


def _hint(value: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(value, names, n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; {_known(names)}"


def _known(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:8]))
    return f"the {len(names)} classes are {shown}{', ...' if len(names) > 8 else ''}"
