"""YAML as people mean it, with the line of every key."""

from __future__ import annotations

import pytest

from hfray.errors import SpecError
from hfray.spec.yaml_lines import parse, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("1e-3", 0.001),
        ("-2E5", -200000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("12", 12),
        ("1.2.3", "1.2.3"),
        ("null", None),
        ("~", None),
        ("[1, a]", [1, "a"]),
        ("a: [", "a: ["),
    ],
)
def test_values(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_lines_of_keys_entries_and_their_surroundings() -> None:
    document = parse("a: 1\nb:\n  c: 2\n  d:\n  - x\n  - y: 3\n", "f.yaml")
    assert document.value == {"a": 1, "b": {"c": 2, "d": ["x", {"y": 3}]}}
    assert [document.line_of(path) for path in [("a",), ("b",), ("b", "c"), ("b", "d", 1), ("b", "d", 1, "y")]] == [
        1, 2, 3, 6, 6,
    ]  # fmt: skip
    assert document.line_of(("b", "missing", "deeper")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", r"f\.yaml:2: a: given twice, first on line 1"),
        ("x:\n  a: 1\n  b: 2\n  a: 3\n", r"f\.yaml:4: a: given twice, first on line 2"),
        ("a: [1,\nb: 2", r"f\.yaml:2: not YAML"),
        ("a: \t- x", r"f\.yaml"),
        ("a: !!python/object/apply:os.system [ls]", r"f\.yaml:1: not YAML: could not determine a constructor"),
        ("? [1, 2]\n: x", r"f\.yaml:1: not YAML"),
        ("[" * 5000, r"f\.yaml: nested too deeply"),
        ("a: \x01", r"f\.yaml: not YAML"),
    ],
)
def test_mistakes_are_placed(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(text, "f.yaml")


def test_an_empty_file_has_no_value() -> None:
    assert parse("# nothing\n", "f.yaml").value is None
