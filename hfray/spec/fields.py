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

_MARK = "operational"


def operational(default: Any, **settings: Any) -> Any:
    """A field that changes speed, cost or bookkeeping, but no answer."""
    return Field(default, json_schema_extra={_MARK: True}, **settings)


def is_operational(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get(_MARK))


def identity_of(spec: BaseModel) -> dict[str, Any]:
    """The identity fields of a spec, recursively, as plain JSON values."""
    plain = spec.model_dump(mode="json")
    return {
        name: identity_of(value) if isinstance(value := getattr(spec, name), BaseModel) else plain[name]
        for name, field in type(spec).model_fields.items()
        if not is_operational(field)
    }


def fingerprint(identity: Mapping[str, Any]) -> str:
    """sha256, in hexadecimal, of the canonical JSON of an identity."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def difference(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed between two identities, a line each: `task.top_k: 3 -> 5`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in difference(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in difference(a, b, f"{path}.{i}")]
    return [] if old == new else [f"{path}: {_shown(old)} -> {_shown(new)}"]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if value is not None else "nothing"
    return text if len(text) <= 80 else f"{text[:77]}..."
