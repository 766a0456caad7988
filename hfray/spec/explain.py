"""Every field, its default and meaning, read from the spec classes themselves; JSON Schema for editors. Prints nothing.

A topic is a kind, the name of a task or an engine, a dotted field (`engine.max_batch_tokens`), a section, or the last
key of a field alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hfray.errors import SpecError
from hfray.spec.endpoint import EndpointSpec, GatewaySpec
from hfray.spec.fields import is_operational
from hfray.spec.kinds import job_kinds
from hfray.spec.problems import close_or_known, close_to
from hfray.spec.shape import MANY_MEMBERS, fields, members, tag_of, type_text
from hfray.tasks import TASKS
from hfray.tasks.features import MODES


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One line of `hfray explain`."""

    path: str
    """Dotted, from the job, as `--set` takes it: `engine.max_batch_tokens`. The name of the kind in a list of kinds."""
    type: str
    """`integer >= 1 | auto`, or `section`."""
    default: str
    """As YAML; "" if the field must be given."""
    required: bool
    operational: bool
    """Whether it leaves the answers alone, so that a job may be resumed with another value."""
    doc: str
    members: tuple[str, ...] = ()
    """The tasks, modes or engines that have the field, where not all of them do; the kind of a field that has another
    meaning in another kind."""


def explain(topic: str | None = None) -> list[FieldRow]:
    """The rows of a topic, in the order of definition; None: the kinds. Raises SpecError, naming what is close."""
    kinds = _topics()
    if topic is None:
        return [FieldRow(name, _sort(name), "", False, False, _doc(kind.__doc__)) for name, kind in kinds.items()]
    if topic in kinds:
        return _overview(kinds[topic])
    first, _, rest = topic.partition(".")
    wanted = rest if first in kinds else topic
    rows = _told_apart({name: _rows(kind) for name, kind in kinds.items() if first not in kinds or name == first})
    for matches in _matchers(wanted):
        if found := [row for row in rows if matches(row)]:
            return _grouped(replace(row, members=()) if wanted in row.members else row for row in found)
    paths = list(dict.fromkeys(row.path for row in rows))
    names = [*kinds, *dict.fromkeys(name for row in rows for name in row.members), *paths]
    hint = close_to(topic, names) or close_to(topic.rsplit(".", 1)[-1], paths, by_last=True)
    raise SpecError(f"nothing is called {topic}{hint}{'' if hint else '; `hfray explain score` shows every field'}")


def json_schema(kind: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a job file of this kind, with the descriptions of all fields, for editors."""
    kinds = _topics()
    if kind not in kinds:
        raise SpecError(f"unknown kind {kind!r}{close_or_known(kind, kinds)}")
    is_job = kind in job_kinds()
    schema: dict[str, Any] = kinds[kind].model_json_schema()
    for each in schema["$defs"].values():
        name = each["properties"].get("name", {})
        if name.get("const") in (*TASKS, *MODES):
            each["title"] = name["const"]  # every task's and every mode's class is called Options
            each["required"] = ["name", *each.get("required", ())]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": f"hfray {kind} {'job' if is_job else 'arguments'}",
        "required": [*(["kind"] if is_job else []), *schema.get("required", ())],
    }


def _topics() -> dict[str, type[BaseModel]]:
    """The kinds of jobs, and what the applications of a Ray Serve file take."""
    return {**job_kinds(), "endpoint": EndpointSpec, "gateway": GatewaySpec}


def _sort(name: str) -> str:
    return "kind" if name in job_kinds() else "serve file"


def _rows(kind: type[BaseModel]) -> list[FieldRow]:
    """Every field of every member of every union."""
    return [
        FieldRow(
            path,
            type_text(field),
            _default(field),
            field.is_required(),
            is_operational(field),
            _doc(field.description) or _summary(member),
            () if member is None else (member,),
        )
        for path, member, field in fields(kind)
    ]


def _told_apart(rows: Mapping[str, Sequence[FieldRow]]) -> list[FieldRow]:
    """The rows of all kinds; a field that is not the same in every kind that has it is marked with its kind."""
    meanings: dict[str, set[FieldRow]] = {}
    for each in rows.values():
        for row in each:
            if not row.members:
                meanings.setdefault(row.path, set()).add(row)
    return [
        row if row.members or len(meanings[row.path]) == 1 else replace(row, members=(kind,))
        for kind, each in rows.items()
        for row in each
    ]


def _matchers(topic: str) -> Iterable[Callable[[FieldRow], bool]]:
    """What a topic may mean, the closest meaning first."""
    last = topic.rsplit(".", 1)[-1]
    yield lambda row: row.path == topic or row.path.startswith(f"{topic}.")
    yield lambda row: topic in row.members
    yield lambda row: topic in (f"{member}.{row.path.rsplit('.', 1)[-1]}" for member in row.members)
    yield lambda row: "." not in topic and row.path.rsplit(".", 1)[-1] == last


def _grouped(rows: Iterable[FieldRow]) -> list[FieldRow]:
    """Rows that differ in nothing but the member they belong to, as one."""
    groups: dict[FieldRow, tuple[str, ...]] = {}
    for row in rows:
        key = replace(row, members=())
        groups[key] = tuple(dict.fromkeys(groups.get(key, ()) + row.members))
    return [replace(row, members=names) for row, names in groups.items()]


def _overview(kind: type[BaseModel]) -> list[FieldRow]:
    """A kind's fields, without the names of a union's members and what only few of many have."""
    sizes = {path: len(members(field.annotation)) for path, _, field in fields(kind)}
    kept = []
    for row in _grouped(_rows(kind)):
        section, _, key = row.path.rpartition(".")
        size = sizes.get(section, 0) if row.members else 0
        if (size and key == "name") or (size > MANY_MEMBERS and len(row.members) * 2 <= size):
            continue
        kept.append(replace(row, members=()) if size > MANY_MEMBERS else row)
    return kept


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return tag_of(type(value)) or ""
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value, ensure_ascii=False, default=list)


def _doc(text: str | None) -> str:
    return " ".join((text or "").split())


def _summary(member: str | None) -> str:
    found = TASKS.get(member or "") or MODES.get(member or "")
    return "" if found is None else found.summary
