"""What bodies and parameters are made of, and their mistakes in words. Knows pydantic; no task.

A parameter is an option under another name (`names`), or it is followed at some values only (`only`): another value
would change the answer and is refused, not ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from hfray.serving.errors import RequestError
from hfray.serving.hf.call import Limits
from hfray.serving.hf.checks import dotted, wrong
from hfray.spec.problems import close_to
from hfray.types import Row, Strict

Count = Annotated[int, Field(ge=1)]
Texts = Annotated[list[str], Field(min_length=1)]

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "none_required": "null",
}
_PARTICULAR = ("too_short", "too_long", "string_too_short", "string_too_long")
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}


class Fields(Strict):
    """An object of a body: nothing is converted, so that a boolean is no number and a number no text."""

    model_config = ConfigDict(strict=True)
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Field to the values at which it says what is done here anyway; none: it must be left out."""
    instead: ClassVar[Mapping[str, str]] = {}
    """What to do in place of some of those."""

    @field_validator("*", mode="after")
    @classmethod
    def _check_only(cls, value: Any, info: ValidationInfo) -> Any:
        allowed = cls.only.get(info.field_name or "")
        if allowed is None or value is None or value in allowed:
            return value
        leave = f"leave it out, or give {' or '.join(map(_shown, allowed))}" if allowed else "leave it out"
        raise ValueError(f"this value cannot be followed here; {cls.instead.get(info.field_name or '', leave)}")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, allowed in cls.only.items():
            schema["properties"][name]["enum"] = [*allowed, None]
        return schema


class Parameters(Fields):
    """`parameters` of a task. What is null or left out is the endpoint's own."""

    names: ClassVar[Mapping[str, str]] = {}
    """Parameter to option."""

    def given(self) -> dict[str, Any]:
        """What the request says."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in found.items() if value is not None}

    def changes(self, limits: Limits) -> dict[str, Any]:
        """Options of the task. Raises BadParameter."""
        given = self.given()
        found = {option: given[name] for name, option in self.names.items() if name in given}
        return {option: tuple(value) if isinstance(value, list) else value for option, value in found.items()}

    def columns(self, limits: Limits) -> Row:
        """What goes into each row."""
        return {}

    def form(self) -> dict[str, Any]:
        """What `Call.form` keeps."""
        return {}


class ClassicOptions(Fields):
    """Of the classic Inference API; without effect here: nothing is cached, and a model that answers is loaded."""

    use_cache: bool | None = None
    wait_for_model: bool | None = None
    use_gpu: bool | None = None


class Body(Fields):
    """A request's body: `inputs` and `parameters`, or what `rows` and `asked` say stands for them."""

    options: ClassicOptions | None = None

    def rows(self, limits: Limits) -> tuple[list[dict[str, Any]], bool]:
        """One row per input, and whether the inputs are a list."""
        raise NotImplementedError

    def asked(self) -> tuple[Parameters, str]:
        """The parameters, and what stands before their names in the body."""
        return getattr(self, "parameters", None) or Parameters(), "parameters."

    @property
    def is_stream(self) -> bool:
        return bool(getattr(self, "stream", False))


class BadParameter(Exception):
    """A parameter that cannot be followed, by its name alone: what stands before it in a body differs."""

    def __init__(self, words: str, *, name: str = "") -> None:
        super().__init__(words)
        self.name = name


def at_most(given: Mapping[str, Any], name: str, limit: int) -> None:
    """Raises BadParameter for a number over a limit."""
    if given.get(name) is not None and given[name] > limit:
        raise BadParameter(f"may be at most {limit:,} here", name=name)


def validated(kind: type[Body], body: Any) -> Body:
    """Raises RequestError for the first mistake."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise refusal(kind, error) from None


def refusal(kind: type[BaseModel], error: ValidationError, names: Mapping[str, str] | None = None) -> RequestError:
    """The most particular of the mistakes in one field. names: keys that the client calls otherwise."""
    known = set(_field_names(kind))
    found: dict[tuple[str | int, ...], list[Any]] = {}
    for each in error.errors(include_url=False):
        path = tuple(part for part in each["loc"] if isinstance(part, int) or part in known or _is_unknown(each, part))
        found.setdefault(path, []).append(each)
    first = next(iter(found))
    path = max((each for each in found if each[:1] == first[:1]), key=len)
    param = dotted(tuple((names or {}).get(part, part) if isinstance(part, str) else part for part in path))
    words = _sentence(found[path], kind, path)
    return wrong(param, words if param else f"the body: {words}")


def _is_unknown(error: Any, part: Any) -> bool:
    return bool(error["type"] == "extra_forbidden" and part == error["loc"][-1])


def _sentence(errors: Sequence[Any], kind: type[BaseModel], path: tuple[str | int, ...]) -> str:
    # Of a union, the member that the value is like says more than those that it is not.
    error = next((each for each in errors if each["type"] in _PARTICULAR), errors[0])
    context = error.get("ctx") or {}
    match error["type"]:
        case "extra_forbidden":
            owner = _owner(kind, path[:-1])
            close = close_to(path[-1], owner.model_fields)
            return f"is not known{close or '; known: ' + ', '.join(owner.model_fields)}"
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "too_short" | "string_too_short":
            return "is empty" if context["min_length"] == 1 else f"needs at least {context['min_length']}"
        case "too_long" | "string_too_long":
            unit = "characters" if error["type"] == "string_too_long" else "entries"
            return f"may have at most {context['max_length']} {unit}"
    wanted = dict.fromkeys(word for each in errors if (word := _wanted(each)) != "null")
    return f"must be {' or '.join(wanted)}"


def _wanted(error: Any) -> str:
    context = error.get("ctx") or {}
    if error["type"] in _BOUNDS:
        name, words = _BOUNDS[error["type"]]
        return f"{words} {context[name]:g}"
    if error["type"] == "literal_error":
        expected = context["expected"].replace("True", "true").replace("False", "false")
        return f"one of {expected}" if " or " in expected else expected
    if error["type"] == "string_pattern_mismatch":
        return f"text like {context['pattern']}"
    return _WANTED.get(error["type"], str(error["msg"]).removeprefix("Input should be "))


def _owner(kind: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel]:
    for part in path:
        if isinstance(part, str) and part in kind.model_fields:
            kind = next(_models(kind.model_fields[part].annotation), kind)
    return kind


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)


def _field_names(kind: type[BaseModel]) -> Iterator[str]:
    for name, each in kind.model_fields.items():
        yield name
        for model in _models(each.annotation):
            yield from _field_names(model)


def _shown(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
