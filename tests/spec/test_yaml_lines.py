"""YAML as people mean it, with the line of every key."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hfray.errors import SpecError
from hfray.spec.yaml_lines import dump, dump_blocks, parse, parse_value


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
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("12", 12),
        ("+1", 1),
        ("1_000_000", 1_000_000),
        ("0x1F", 31),
        ("007", "007"),
        ("12:30", "12:30"),
        ("2026-01-31", "2026-01-31"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("null", None),
        ("~", None),
        ("", None),
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
    assert document.line_of(("missing",)) == 1
    assert document.nearest(("b", "c", "deeper")) == ("b", "c")


def test_anchors_and_merged_keys() -> None:
    document = parse("base: &base {a: 1, b: 2}\nuse:\n  <<: *base\n  b: 3\n", "f.yaml")
    assert document.value["use"] == {"a": 1, "b": 3}
    assert document.line_of(("use", "b")) == 4
    assert document.line_of(("use", "a")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", r"f\.yaml:2: a: given twice, first on line 1"),
        ("x:\n  a: 1\n  b: 2\n  a: 3\n", r"f\.yaml:4: x\.a: given twice, first on line 2"),
        ("a: [1,\nb: 2", r"f\.yaml:2: not YAML"),
        ("a: \t- x", r"f\.yaml"),
        (
            "a: 1\n---\nb: 2",
            r"f\.yaml:2: not YAML: expected a single document in the stream but found another document",
        ),
        ("a: !!python/object/apply:os.system [ls]", r"f\.yaml:1: not YAML: could not determine a constructor"),
        ("? [1, 2]\n: x", r"f\.yaml:1: not YAML"),
        ("[" * 5000, r"f\.yaml: not a job: nested too deeply"),
        ("a: &a [*a]", r"f\.yaml: not a job: nested too deeply"),
        ("a: 1\nb: \x01", r"f\.yaml:2: not YAML: the character U\+0001 is not allowed"),
        ("a: !!int x", r"f\.yaml: not YAML: invalid literal"),
    ],
)
def test_mistakes_are_placed(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(text, "f.yaml")


def test_aliases_cannot_blow_a_file_up() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for new, old in zip("bcdefghi", "abcdefgh", strict=True):
        bomb += f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    started = time.process_time()
    with pytest.raises(SpecError, match="more than 100,000 keys and entries"):
        parse(bomb, "f.yaml")
    assert time.process_time() - started < 5


def test_an_empty_file_has_no_value() -> None:
    assert parse("# nothing\n", "f.yaml").value is None


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
CONFUSING = st.sampled_from(
    ["1e3", "no", "on", "2026-01-31", "007", "12:30", "~", "", "=", "<<", "0x1", ".5", "true", "1_0"]
)


@settings(deadline=None)  # a busy machine is no mistake
@given(
    st.recursive(
        SCALARS | CONFUSING,
        lambda each: st.lists(each, max_size=4) | st.dictionaries(CONFUSING | st.text(max_size=5), each, max_size=4),
        max_leaves=12,
    )
)
def test_what_is_dumped_is_read_back(value: object) -> None:
    text = dump({"value": value})
    assert parse(text, "f.yaml").value == {"value": value}
    yaml.safe_load(text)  # other programs can read it as well


LINES = st.lists(
    st.sampled_from(["", " ", "a", "  a: b", "- x ", "# c", "\tt", "---", "|", "ü", "'"]), min_size=1, max_size=6
)


@settings(deadline=None)
@given(LINES.map("\n".join), st.integers(0, 3))
def test_blocks_are_read_back(text: str, depth: int) -> None:
    value: object = {"text": text, "after": "x"}
    for _ in range(depth):
        value = {"in": [value]}
    printed = dump_blocks(value)
    assert parse(printed, "f.yaml").value == value
    assert yaml.safe_load(printed) == value


def test_a_file_in_a_file_stays_readable() -> None:
    once = {"a": "x"}
    assert dump_blocks({"file": "b: 1\nc: 2\n", "one": once, "two": once}) == (
        "file: |\n  b: 1\n  c: 2\none:\n  a: x\ntwo:\n  a: x\n"
    )
    assert dump_blocks("word " * 100).count("\n") <= 2
