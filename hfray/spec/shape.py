"""The tree of a spec class: which keys stand where, and which members a union has. Knows pydantic; no values."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Keys = tuple[str | int, ...]

MANY_MEMBERS = 4
"""A union with more members is not spelled out."""

_OR_NULL = " | null"
_NAMES: Mapping[Any, str] = {int: "integer", float: "number", str: "text", bool: "true | false"}
_BOUNDS = ((Ge, "ge", ">="), (Gt, "gt", ">"), (Le, "le", "<="), (Lt, "lt", "<"))


def dotted(keys: Keys) -> str:
    """A path of keys as people write it; a key that would disturb the line is quoted."""
    return ".".join(part if (part := str(key)).isprintable() else repr(part) for key in keys)


def choices(annotation: Any) -> list[Any]:
    """What an annotation admits beside null: the members of a union, or itself alone."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner = choices(get_args(annotation)[0])
        return inner if len(inner) > 1 or get_args(inner[0]) else [annotation]
    if origin in (Union, types.UnionType):
        return [each for arg in get_args(annotation) if arg is not type(None) for each in choices(arg)]
    return [annotation]


def members(annotation: Any) -> dict[str, type[BaseModel]]:
    """The sections an annotation admits, by their `name` (by class name where they have none); {} for plain values."""
    return {tag_of(each) or each.__name__: each for each in choices(annotation) if _is_section(each)}


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def tag_of(section: type[BaseModel]) -> str | None:
    """The literal of a section's `name` field, by which a union tells it from the others."""
    field = section.model_fields.get("name")
    if field is not None and get_origin(field.annotation) is Literal:
        return str(get_args(field.annotation)[0])
    return None


def locate(kind: type[BaseModel], loc: Sequence[str | int]) -> tuple[Keys, type[BaseModel] | None]:
    """A pydantic error's `loc` as the path of keys that the author wrote, and the section that holds the last one.

    pydantic puts the chosen member of a union between the keys (pydantic#7500); those parts are left out.
    """
    path: list[str | int] = []
    place: list[Any] = [kind]
    section: type[BaseModel] | None = None
    for part in loc:
        if len(place) > 1:
            place = [each for each in place if _is_section(each) and tag_of(each) == part] or [Any]
            continue
        path.append(part)
        section = place[0] if _is_section(place[0]) else None
        field = None if section is None else section.model_fields.get(str(part))
        place = [Any] if field is None else choices(field.annotation)
    return tuple(path), section


def fields(kind: type[BaseModel]) -> Iterator[tuple[str, str | None, FieldInfo]]:
    """Every field below a section, in the order of definition: its dotted path, the union member it belongs to (None
    outside of unions), and itself."""
    return _fields(kind, "", None)


def _fields(section: type[BaseModel], prefix: str, member: str | None) -> Iterator[tuple[str, str | None, FieldInfo]]:
    for key, field in section.model_fields.items():
        yield prefix + key, member, field
        below = members(field.annotation)
        for name, each in below.items():
            yield from _fields(each, f"{prefix}{key}.", name if len(below) > 1 else member)


def type_text(field: FieldInfo) -> str:
    """A field's type in a few words: `integer >= 1 | auto`, `text | null`, `list of text`."""
    text = _type_text(field.annotation)
    bounds = _bounds(field.metadata)
    return f"{text.removesuffix(_OR_NULL)}{bounds}{_OR_NULL if text.endswith(_OR_NULL) else ''}" if bounds else text


def _type_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        extra = [each for part in arguments[1:] for each in (part.metadata if isinstance(part, FieldInfo) else [part])]
        return _type_text(arguments[0]) + _bounds(extra)
    if found := members(annotation):
        named = f", name: {' | '.join(found)}" if len(found) <= MANY_MEMBERS else f", name: one of {len(found)}"
        return "section" if len(found) == 1 else f"section{named}"
    if origin in (Union, types.UnionType):
        return " | ".join("null" if each is type(None) else _type_text(each) for each in arguments)
    if origin is Literal:
        return " | ".join(str(each) for each in arguments)
    if origin in (tuple, list):
        return f"list of {_type_text(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type_text(arguments[0])} to {_type_text(arguments[1])}"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(metadata: Sequence[Any]) -> str:
    found = [
        f" {sign} {getattr(each, name)}"
        for each in metadata
        for type_, name, sign in _BOUNDS
        if isinstance(each, type_)
    ]
    return ",".join(found)
