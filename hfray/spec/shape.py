"""The tree of a spec class: which keys a section has, which members a union has. Knows pydantic; no values."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def members(annotation: Any) -> dict[str, type[BaseModel]]:
    """The spec classes that an annotation admits: by their `name` literal for a union told apart by it, else by class
    name; {} for plain values."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        found: dict[str, type[BaseModel]] = {}
        for each in get_args(annotation):
            found.update(members(each))
        return found
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {tag_of(annotation) or annotation.__name__: annotation}
    return {}


def tag_of(spec: type[BaseModel]) -> str | None:
    """The literal of a class's `name` field, by which a union tells it from the others."""
    field = spec.model_fields.get("name")
    if field is not None and get_origin(field.annotation) is Literal:
        return str(get_args(field.annotation)[0])
    return None


def sections_at(kind: type[BaseModel], path: Sequence[str | int]) -> dict[str, type[BaseModel]]:
    """The classes that may stand at a path of keys; {} where there is a plain value or nothing."""
    found: dict[str, type[BaseModel]] = {kind.__name__: kind}
    for part in path:
        following: dict[str, type[BaseModel]] = {}
        for spec in found.values():
            field = spec.model_fields.get(str(part))
            if field is not None:
                following.update(members(field.annotation))
        found = following
    return found


def tags(kind: type[BaseModel], path: Sequence[str | int]) -> set[str]:
    """What pydantic may insert into an error's path below `path` that is no key: union members."""
    below = sections_at(kind, path)
    keys = {key for spec in below.values() for key in spec.model_fields}
    names = {name for name in below if name not in keys}
    # Members of a union of plain types are named by their type, as in ("max_batch_tokens", "int").
    return (
        names | {"int", "float", "str", "bool", "none", "constrained-int", "literal['auto']", "literal['all']"} - keys
    )


def fields_at(kind: type[BaseModel], path: Sequence[str | int], given_tag: str | None = None) -> list[str]:
    """The keys that may stand at a path, in the order of definition; of the member `given_tag` if there is one."""
    keys: dict[str, None] = {}
    sections = sections_at(kind, path)
    for name, spec in sections.items():
        if given_tag not in sections or name == given_tag:
            keys.update(dict.fromkeys(spec.model_fields))
    return list(keys)
