"""The `where` of a job: a small expression over the columns of one row. Parsed, checked and walked; never evaluated
as code. Knows its own grammar and plain values; not files, not tasks.

    score > 0.5 and lang in ["de", "fr"]        0 < length(text) <= 2000        not startswith(url, "http")
    label is not None                           meta.source == "web"            number(price) * 2 > 10

A comparison with a null is false (`!=` and `not in` too; ask for nulls with `is None`), and so is a null condition.
A function of a null, and arithmetic with one, is null.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from hfray.errors import RowError, SpecError

Value = Callable[[Mapping[str, Any]], Any]

ALLOWED = (
    "columns (a, a.b for fields, col('any name')), numbers, strings, True, False, None, lists, and or not, "
    "== != < <= > >=, in, not in, is None, is not None, + - * / %, "
    "length() lower() upper() number() startswith() endswith() contains()"
)
MAX_CHARS = 4096
_LONE_EQUALS = re.compile(r"(?<![=!<>])=(?!=)")
MAX_DEPTH = 40


class Where:
    """A compiled condition. `columns`: the columns it uses. Picklable (it travels as its text)."""

    def __init__(self, text: str) -> None:
        self.text = text
        compiler = _Compiler(" ".join(text.splitlines()).strip())
        self._matches = _condition(compiler.compile())
        self.columns: tuple[str, ...] = tuple(compiler.columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return Where, (self.text,)

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether the row is wanted. Raises RowError WhereFailed if that cannot be said of this row."""
        try:
            return bool(self._matches(row))
        except RowError:
            raise
        except Exception as error:
            raise RowError(f"where cannot be evaluated: {error}", type="WhereFailed") from error


def compile_where(text: str) -> Where:
    """Raises SpecError with the position (counted from 1) of what is not allowed, and what is."""
    return Where(text)


class _Compiler:
    """Turns a checked syntax tree into nested functions of a row."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.columns: dict[str, None] = {}

    def compile(self) -> Value:
        if not self._text:
            raise SpecError(f"where: at character 1: there is no condition; allowed: {ALLOWED}")
        if len(self._text) > MAX_CHARS:
            raise SpecError(f"where: has {len(self._text):,} characters, over {MAX_CHARS:,}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self._text, mode="eval")
        except SyntaxError as error:
            hint = "; write == to compare" if _LONE_EQUALS.search(self._text) else ""
            raise SpecError(f"where: at character {error.offset or 1}: {error.msg}{hint}; allowed: {ALLOWED}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise SpecError(f"where: cannot be parsed ({error}); allowed: {ALLOWED}") from None
        return self._value(tree.body, 0)

    def _refuse(self, node: ast.AST, what: str) -> SpecError:
        before = self._text.encode()[: getattr(node, "col_offset", 0)].decode(errors="ignore")
        return SpecError(f"where: at character {len(before) + 1}: {what}; allowed: {ALLOWED}")

    def _value(self, node: ast.expr, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise self._refuse(node, f"nested over {MAX_DEPTH} deep")
        depth += 1
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, str | int | float):
                return lambda row: value
            case ast.Name(id=name):
                return self._column(name)
            case ast.Attribute(value=base, attr=name):
                return self._field(self._value(base, depth), name)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                values = [self._value(each, depth) for each in elements]
                return lambda row: [each(row) for each in values]
            case ast.BoolOp(op=op, values=parts):
                conditions = [_condition(self._value(each, depth)) for each in parts]
                joined = all if isinstance(op, ast.And) else any
                return lambda row: joined(each(row) for each in conditions)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                condition = _condition(self._value(operand, depth))
                return lambda row: not condition(row)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                number = self._value(operand, depth)
                factor = -1 if isinstance(sign, ast.USub) else 1
                return lambda row: _arithmetic(operator.mul, factor, number(row))
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _ARITHMETIC:
                function, first, second = _ARITHMETIC[type(op)], self._value(left, depth), self._value(right, depth)
                return lambda row: _arithmetic(function, first(row), second(row))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._comparison(node, [left, *comparators], ops, depth)
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str(name))], keywords=[]):
                return self._column(name)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                called, count = _FUNCTIONS[name]
                if len(arguments) != count:
                    raise self._refuse(node, f"{name}() takes {count} value{'s' * (count > 1)}, not {len(arguments)}")
                return _call(called, [self._value(each, depth) for each in arguments])
            case ast.Call(func=ast.Name(id=name)):
                raise self._refuse(node, f"there is no function {name}()")
        raise self._refuse(node, f"{_KINDS.get(type(node), type(node).__name__)} is not allowed")

    def _column(self, name: str) -> Value:
        self.columns[name] = None

        def value(row: Mapping[str, Any]) -> Any:
            if name not in row:
                raise RowError(f"where: the row has no column {name!r}", type="WhereFailed")
            return row[name]

        return value

    @staticmethod
    def _field(base: Value, name: str) -> Value:
        def value(row: Mapping[str, Any]) -> Any:
            found = base(row)
            if found is None:
                return None
            if not isinstance(found, Mapping):
                raise TypeError(f"{type(found).__name__} has no field {name!r}")
            return found.get(name)

        return value

    def _comparison(self, node: ast.Compare, operands: list[ast.expr], ops: list[ast.cmpop], depth: int) -> Value:
        values = [self._value(each, depth) for each in operands]
        tests: list[tuple[Callable[[Any, Any], bool], Value, Value]] = []
        for number, op in enumerate(ops):
            right = operands[number + 1]
            with_none = isinstance(right, ast.Constant) and right.value is None
            if isinstance(op, ast.Is | ast.IsNot) and not with_none:
                raise self._refuse(node, "`is` compares with None only")
            if isinstance(op, ast.In | ast.NotIn) and not isinstance(right, ast.List | ast.Tuple):
                raise self._refuse(node, "`in` wants a list; use contains(text, part) to look inside a text")
            if with_none and not isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
                raise self._refuse(node, "None has no order")
            test = _NULL_TESTS[type(op)] if with_none else _COMPARISONS[type(op)]
            tests.append((test, values[number], values[number + 1]))
        return lambda row: all(test(left(row), right(row)) for test, left, right in tests)


def _condition(value: Value) -> Value:
    """A value that has to be a truth; null counts as false."""

    def condition(row: Mapping[str, Any]) -> bool:
        found = value(row)
        if found is None or isinstance(found, bool):
            return bool(found)
        raise TypeError(f"{type(found).__name__} is not a condition")

    return condition


def _call(function: Callable[..., Any], arguments: list[Value]) -> Value:
    def value(row: Mapping[str, Any]) -> Any:
        values = [each(row) for each in arguments]
        return None if any(each is None for each in values) else function(*values)

    return value


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool | str | bytes | list | tuple | Mapping)


def _arithmetic(function: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    if left is None or right is None:
        return None
    # Numbers (and times) only: a text times a number is a way to fill the memory, `%` would format it.
    if not _is_number(left) or not _is_number(right):
        raise TypeError(f"no arithmetic with {type(left).__name__} and {type(right).__name__}")
    return function(left, right)


def _comparable(left: Any, right: Any) -> None:
    """A number never equals a text: the columns of a CSV file are texts, and silence would select nothing."""
    if isinstance(left, str) != isinstance(right, str):
        raise TypeError(f"cannot compare {type(left).__name__} with {type(right).__name__} (number(x) reads a text)")


def _compared(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    def test(left: Any, right: Any) -> bool:
        if left is None or right is None:
            return False
        _comparable(left, right)
        return bool(function(left, right))

    return test


def _is_in(value: Any, choices: list[Any]) -> bool:
    return any(_compared(operator.eq)(value, choice) for choice in choices)


def _startswith(text: str, part: str) -> bool:
    return _text(text).startswith(_text(part))


def _endswith(text: str, part: str) -> bool:
    return _text(text).endswith(_text(part))


def _contains(whole: Any, part: Any) -> bool:
    return part in whole if isinstance(whole, list) else _text(part) in _text(whole)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is not text")
    return value


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else float(_text(value))


_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "length": (len, 1),
    "lower": (lambda text: _text(text).lower(), 1),
    "upper": (lambda text: _text(text).upper(), 1),
    "number": (_number, 1),
    "startswith": (_startswith, 2),
    "endswith": (_endswith, 2),
    "contains": (_contains, 2),
}
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: _compared(operator.eq),
    ast.NotEq: _compared(operator.ne),
    ast.Lt: _compared(operator.lt),
    ast.LtE: _compared(operator.le),
    ast.Gt: _compared(operator.gt),
    ast.GtE: _compared(operator.ge),
    ast.In: _is_in,
    ast.NotIn: lambda value, choices: value is not None and not _is_in(value, choices),
}
_NULL_TESTS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Is: lambda left, right: left is None,
    ast.Eq: lambda left, right: left is None,
    ast.IsNot: lambda left, right: left is not None,
    ast.NotEq: lambda left, right: left is not None,
}
_KINDS: dict[type, str] = {
    ast.BinOp: "this operator",
    ast.UnaryOp: "this operator",
    ast.Subscript: "x[...]",
    ast.Lambda: "lambda",
    ast.IfExp: "if ... else",
    ast.JoinedStr: "an f-string",
    ast.Call: "this call",
    ast.Dict: "{...}",
    ast.Set: "{...}",
    ast.NamedExpr: "an assignment",
    ast.Constant: "this literal",
}
