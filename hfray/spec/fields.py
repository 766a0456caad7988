"""Which fields change the answers. Knows pydantic models; not what any field means.

Every field is *identity* (it enters the fingerprint) unless it is marked *operational* where it is defined.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

_MARK = "operational"
_MAX_SHOWN_CHARS = 80
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Of jobs, models and adapters: names that stand in addresses, files and logs as they are."""


class _Absent:
    """Stands for a key that is not there, which null is not."""


_ABSENT = _Absent()


def operational(default: Any, **settings: Any) -> Any:
    """A field that changes speed, cost or bookkeeping, but no answer. `default` may be `...`: required."""
    return Field(default, json_schema_extra={_MARK: True}, **settings)


def is_operational(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get(_MARK))


def misfit(key: str, problem: str) -> PydanticCustomError:
    """What a validator over several fields raises, so that the error names the line of `key` (dotted, from there)."""
    return PydanticCustomError("misfit", "{problem}", {"key": key, "problem": problem})


def named(value: object) -> object:
    """A name alone as a section that takes its defaults."""
    return {"name": value} if isinstance(value, str) else value


def identity_of(spec: BaseModel) -> dict[str, Any]:
    """The identity fields of a spec, recursively, as plain JSON values."""
    return dict(_identity(spec, spec.model_dump(mode="json")))


def _identity(value: Any, plain: Any) -> Any:
    """`plain`, the JSON form of `value`, without the operational fields of the specs in it."""
    if isinstance(value, BaseModel):
        kept = {name for name, field in type(value).model_fields.items() if not is_operational(field)}
        return {name: _identity(getattr(value, name), plain[name]) for name in sorted(kept)}
    if isinstance(value, tuple | list):
        return [_identity(each, shown) for each, shown in zip(value, plain, strict=True)]
    if isinstance(value, Mapping):
        return {key: _identity(each, plain[str(key)]) for key, each in sorted(value.items())}
    return plain


def fingerprint(identity: Mapping[str, Any]) -> str:
    """sha256, in hexadecimal, of the canonical JSON of an identity."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def difference(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed between two identities, a line each: `task.top_k: 3 -> 5`. Empty if and only if they are equal."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in difference(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in difference(a, b, f"{path}.{i}")]
    if old == new and type(old) is type(new):
        return []
    before, after = _shown(old), _shown(new)
    parting = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    start = max(0, parting - _MAX_SHOWN_CHARS // 2)
    return [f"{path}: {_cut(before, start)} -> {_cut(after, start)}"]


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value, ensure_ascii=False)


def _cut(text: str, start: int) -> str:
    """A long value from just before the place where it differs from the other one."""
    if len(text) <= _MAX_SHOWN_CHARS:
        return text
    end = start + _MAX_SHOWN_CHARS
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
