"""What stands where in a spec, read from its annotations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from hfray.spec.shape import fields, locate, members, type_text
from hfray.types import Strict


class Left(Strict):
    name: Literal["left"] = "left"
    size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


class Right(Strict):
    name: Literal["right"] = "right"
    names: dict[str, int]


class Inner(Strict):
    share: float | None = Field(default=None, gt=0, le=1)
    texts: tuple[str, ...] = ()


class Outer(Strict):
    side: Annotated[Left | Right, Field(discriminator="name")] = Left()
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()


def locations(value: dict[str, object]) -> list[tuple[tuple[str | int, ...], str | None]]:
    try:
        Outer.model_validate(value)
    except ValidationError as error:
        found = [locate(Outer, each["loc"]) for each in error.errors()]
        return [(keys, section and section.__name__) for keys, section in found]
    return []


def test_union_members_are_no_keys() -> None:
    assert locations({"side": {"name": "left", "size": 0}}) == [(("side", "size"), "Left")] * 2
    assert locations({"side": {"name": "left", "sise": 0}}) == [(("side", "sise"), "Left")]
    assert locations({"side": {"name": "right", "names": {"left": "x"}}}) == [(("side", "names", "left"), None)]
    assert locations({"side": {"name": "up"}}) == [(("side",), "Outer")]
    assert locations({"inner": {"texts": ["a", 1]}}) == [(("inner", "texts", 1), None)]
    assert locations({"many": [{}, {"share": 2}]}) == [(("many", 1, "share"), None)]
    assert locations({"left": 1}) == [(("left",), "Outer")]


def test_members_of_an_annotation() -> None:
    assert list(members(Outer.model_fields["side"].annotation)) == ["left", "right"]
    assert list(members(Outer.model_fields["inner"].annotation)) == ["Inner"]
    assert members(int | None) == {}


def test_types_in_words() -> None:
    assert {path: type_text(field) for path, _, field in fields(Outer)} == {
        "side": "section, name: left | right",
        "side.name": "right",
        "side.size": "integer >= 1 | auto",
        "side.names": "mapping of text to integer",
        "inner": "section",
        "inner.share": "number > 0, <= 1 | null",
        "inner.texts": "list of text",
        "many": "list of section",
    }


def test_fields_know_their_member() -> None:
    assert [member for path, member, _ in fields(Outer) if path.startswith("side.")] == [
        "left",
        "left",
        "right",
        "right",
    ]
    assert [member for path, member, _ in fields(Outer) if path.startswith("inner.")] == [None, None]
