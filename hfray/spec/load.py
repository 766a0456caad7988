"""A job file to a frozen spec; every mistake as `file:line: key: what is wrong, what to do`. Opens that one file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hfray.errors import SpecError
from hfray.spec.score import ScoreJob, job_kinds
from hfray.spec.shape import fields_at, tags
from hfray.spec.yaml_lines import Document, parse, parse_value


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> ScoreJob:
    """Reads and validates a job file. `overrides` are `a.b=c`, applied before validation.

    Raises SpecError with one line for each problem.
    """
    name = str(path)
    document = parse(_read(Path(path)), name)
    if document.value is None:
        raise SpecError(f"{name}: the file is empty; `hfray explain score` shows what a job needs")
    if not isinstance(document.value, dict):
        raise SpecError(f"{name}:1: a job is a mapping of keys, not a {type(document.value).__name__}")
    value = document.value
    overridden = [_apply(value, each) for each in overrides]
    kinds = job_kinds()
    kind = value.get("kind")
    if kind not in kinds:
        where = f"{name}:{document.line_of(('kind',)) or 1}"
        if kind is None:
            raise SpecError(f"{where}: kind: missing; one of {', '.join(kinds)}")
        raise SpecError(f"{where}: kind: unknown kind {kind!r}{_hint(str(kind), kinds)}; known: {', '.join(kinds)}")
    try:
        job: ScoreJob = kinds[kind].model_validate(value)
    except ValidationError as error:
        problems = [_problem(each, kinds[kind], name, document, overridden) for each in error.errors()]
        raise SpecError("\n".join(dict.fromkeys(problems))) from None
    return job


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = path.parent if path.parent.is_dir() else Path()
        close = difflib.get_close_matches(path.name, [each.name for each in near.iterdir()], n=1, cutoff=0.6)
        raise SpecError(
            f"{path}: there is no such file{f'; did you mean {near / close[0]}?' if close else ''}"
        ) from None
    except IsADirectoryError:
        raise SpecError(f"{path}: a folder, not a job file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def _apply(value: dict[str, Any], override: str) -> tuple[str | int, ...]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {override}: write it as key=value, such as --set workers.max=4")
    parts: tuple[str | int, ...] = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    place: Any = value
    for part, following in zip(parts, parts[1:], strict=False):
        if isinstance(place, list) and isinstance(part, int) and part < len(place):
            place = place[part]
        elif isinstance(place, dict) and isinstance(part, str):
            if not isinstance(place.get(part), dict | list):
                place[part] = [] if isinstance(following, int) else {}
            place = place[part]
        else:
            raise SpecError(f"--set {override}: there is no {part!r} to set a key in")
    last = parts[-1]
    if isinstance(place, dict):
        place[str(last)] = parse_value(text)
    elif isinstance(last, int) and last <= len(place):
        place[last : last + 1] = [parse_value(text)]
    else:
        raise SpecError(f"--set {override}: a list has no entry {last!r}")
    return parts


def _problem(
    error: Any, kind: type[BaseModel], name: str, document: Document, overridden: Iterable[tuple[str | int, ...]]
) -> str:
    path, tag = _without_tags(error["loc"], kind)
    dotted = ".".join(str(part) for part in path)
    culprit = next((each for each in overridden if path[: len(each)] == each or each[: len(path)] == path), None)
    if culprit is not None:
        where, dotted = f"--set {dotted}", ""
    else:
        line = document.line_of(path)
        where = f"{name}:{line}" if line else name
    prefix = f"{where}: {dotted}: " if dotted else f"{where}: "
    return prefix + _plain(error, path, kind, tag)


def _without_tags(loc: Sequence[str | int], kind: type[BaseModel]) -> tuple[tuple[str | int, ...], str | None]:
    """The path of keys, without what pydantic adds to it, and the member of a union it went through last."""
    path: list[str | int] = []
    tag: str | None = None
    for part in loc:
        if isinstance(part, str) and part in tags(kind, tuple(path)):
            tag = part
        else:
            path.append(part)
    return tuple(path), tag


def _plain(error: Any, path: tuple[str | int, ...], kind: type[BaseModel], tag: str | None) -> str:
    """pydantic's messages in the words of someone who writes YAML."""
    context = error.get("ctx") or {}
    given = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            known = fields_at(kind, path[:-1], tag)
            return f"unknown key{_hint(str(path[-1]), known)}; known: {', '.join(known)}" if known else "unknown key"
        case "missing":
            return "missing"
        case "union_tag_invalid":
            known = [each.strip(" '") for each in str(context["expected_tags"]).split(",")]
            return f"unknown name {context['tag']!r}{_hint(str(context['tag']), known)}; known: {', '.join(known)}"
        case "union_tag_not_found":
            return "name is missing; it says which one"
        case "literal_error":
            known = [each.strip(" '") for each in str(context["expected"]).replace(" or ", ", ").split(",")]
            return f"{given!r} is not one of {', '.join(known)}{_hint(str(given), known)}"
        case "value_error":
            return str(context["error"])
        case "string_pattern_mismatch":
            return f"{given!r} must match {context['pattern']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"a section with keys of its own, not {given!r}"
        case "tuple_type" | "list_type":
            return f"a list, not {given!r}"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return f"{error['msg'].removeprefix('Input should be ')}, not {given!r}"
    message = str(error["msg"]).removeprefix("Input should be a valid ").removeprefix("Input should be ")
    return f"must be {message.split(', unable')[0]}, not {given!r}"


def _hint(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""
