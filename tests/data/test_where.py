from __future__ import annotations

import contextlib
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.data.where import MAX_CHARS, compile_where
from hfray.errors import RowError, SpecError

ROW: dict[str, Any] = {
    "score": 0.75, "n": 7, "lang": "de", "text": "Grüße, Welt", "empty": None, "flag": True, "tags": ["a", "b"],
    "meta": {"source": "web", "deep": {"x": 1}}, "price": "12.5", "odd name": 1, "zero": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("score > 0.5", True),
        ("0.5 < score <= 0.75", True),
        ("0.8 < score <= 1", False),
        ("lang == 'de' and n != 8", True),
        ('lang in ["de", "fr"]', True),
        ("lang in ('fr',)", False),
        ("lang not in ['fr']", True),
        ("n not in [7, 8]", False),
        ("not lang == 'fr'", True),
        ("lang == 'fr' or n == 7 and score < 1", True),
        ("empty == None", True),
        ("empty is None", True),
        ("n is None", False),
        ("n is not None", True),
        ("n != None", True),
        ("empty > 1", False),
        ("empty != 1", False),
        ("empty not in [1]", False),
        ("not (empty > 1)", True),
        ("empty", False),
        ("flag", True),
        ("not flag", False),
        ("flag == True", True),
        ("length(text) == 11", True),
        ("length(tags) == 2", True),
        ("length(empty) > 0", False),
        ("lower(text) == 'grüße, welt' and upper(lang) == 'DE'", True),
        ("startswith(text, 'Gr') and endswith(text, 'Welt')", True),
        ("contains(text, 'üß')", True),
        ("contains(tags, 'b')", True),
        ("contains(tags, 'c')", False),
        ("startswith(empty, 'x')", False),
        ("meta.source == 'web' and meta.deep.x == 1", True),
        ("meta.nothing is None and meta.nothing.more is None", True),
        ("(n + 1) * 2 - 6 / 3 == 14", True),
        ("n % 2 == 1 and -n < 0 and +n == 7", True),
        ("empty + 1 > 0", False),
        ("number(price) > 12", True),
        ("number(n) == 7", True),
        ("col('odd name') == 1", True),
        ("True", True),
        ("  n == 7\n  and flag ", True),
    ],
)
def test_answers(text: str, wanted: bool) -> None:
    assert compile_where(text).matches(ROW) is wanted


def test_columns_and_pickling() -> None:
    where = compile_where("meta.source == 'x' and col('odd name') > n + n")
    assert where.columns == ("meta", "odd name", "n")
    again = pickle.loads(pickle.dumps(where))  # noqa: S301
    assert again.matches(ROW) is where.matches(ROW)


@pytest.mark.parametrize(
    "text",
    ["text > 1", "price == 12.5", "n in ['7']", "n / zero > 1", "n and flag", "n", "lower(n) == 'x'", "missing == 1",
     "n.x == 1", "text * 10 == ''", "text % n == ''", "number(text) > 1", "contains(text, 1)", "length(n) > 1"],
)  # fmt: skip
def test_rows_it_cannot_be_said_of(text: str) -> None:
    with pytest.raises(RowError) as caught:
        compile_where(text).matches(ROW)
    assert caught.value.type == "WhereFailed"


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        (" ", 1, "no condition"),
        ("n = 7", 3, "write == to compare"),
        ("n == 7 &&", 9, "invalid syntax"),
        ("ü == 1 and __import__('os')", 12, r"no function __import__\(\)"),
        ("n == 7 and (lambda: 1)", 13, "lambda"),
        ("n ** 9 > 1", 1, "operator"),
        ("n == 1 and tags[0] == 1", 12, r"x\[\.\.\.\]"),
        ("text.lower() == 'x'", 1, "this call"),
        ("f'{n}' == 'x'", 1, "f-string"),
        ("length(n, n) == 1", 1, r"length\(\) takes 1 value, not 2"),
        ("contains(n) == 1", 1, r"contains\(\) takes 2 values, not 1"),
        ("n is 7", 1, "None only"),
        ("'a' in text", 1, "contains"),
        ("n < None", 1, "no order"),
        ("{n: 1}", 1, "{...}"),
        ("[x for x in tags]", 1, "not allowed"),
        ("1j == n", 1, "literal"),
        ("b'x' == n", 1, "literal"),
        ("match(text, '(a+)+$')", 1, r"no function match\(\)"),
        ("n if flag else n", 1, "if"),
        ("(n := 1) == 1", 2, "assignment"),
        ("length(x=n) == 1", 1, "this call|no function"),
    ],
)
def test_mistakes_say_where_and_what_is_allowed(text: str, position: int, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        compile_where(text)
    assert f"where: at character {position}: " in str(caught.value)
    assert "allowed: columns" in str(caught.value)


def test_bounds() -> None:
    for text in (
        "n == " + "1" * MAX_CHARS, "not " * 60 + "flag", "(" * 300 + "n" + ")" * 300, "-" * 3000 + "1", "n == 0\x00",
    ):  # fmt: skip
        with pytest.raises(SpecError):
            compile_where(text)


@given(st.text(alphabet="n flag.()[]<>=!'\"+-*/%,0andortisNoe\x00é", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_compiled_or_refused(text: str) -> None:
    with contextlib.suppress(SpecError):
        where = compile_where(text)
        with contextlib.suppress(RowError):
            assert isinstance(where.matches(ROW), bool)
