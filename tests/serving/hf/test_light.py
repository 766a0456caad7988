"""The protocol answers without what runs models: a gateway has none of it in memory."""

from __future__ import annotations

from tests.test_light_imports import HEAVY, imported_by

PROGRAM = """
import sys
import hfray.serving.hf.schemas
print("imported:", *{name.partition(".")[0] for name in sys.modules})
"""


def test_imports() -> None:
    imported = imported_by(PROGRAM)
    assert "pydantic" in imported
    assert not imported & HEAVY
