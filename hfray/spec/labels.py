"""What Ray calls a label selector: how a job says which nodes may work for it, and what it means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
Labels = dict[
    Annotated[str, Field(pattern=rf"^([a-z0-9.-]{{1,253}}/)?{_LABEL}$")],
    Annotated[str, Field(pattern=rf"^!?({_LABEL}|in\({_LABEL}(, ?{_LABEL})*\))$")],
]
"""Label to `value`, `!value`, `in(a, b)` or `!in(a, b)`."""


def has_labels(node: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether Ray would place there what selects nodes so."""
    for key, selector in wanted.items():
        text = selector.removeprefix("!")
        values = re.split(r", ?", text[3:-1]) if text.startswith("in(") else [text]
        if (node.get(key) in values) == selector.startswith("!"):
            return False
    return True
