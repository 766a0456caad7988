"""Methods: told apart by name, with defaults of their own."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from hfray.spec.methods import FullSpec, LoraSpec, MethodSpec, QloraSpec

ADAPTER: TypeAdapter[object] = TypeAdapter(MethodSpec)


def test_a_name_is_enough() -> None:
    assert ADAPTER.validate_python("full") == FullSpec()
    assert ADAPTER.validate_python("lora") == LoraSpec()
    assert ADAPTER.validate_python({"name": "qlora", "r": 8}) == QloraSpec(r=8)
    assert ADAPTER.validate_python({"name": "lora", "target_modules": ["q_proj"]}) == LoraSpec(
        target_modules=("q_proj",)
    )


@pytest.mark.parametrize(
    "wrong",
    ["adapter", {}, {"name": "full", "r": 8}, {"name": "lora", "quantization": "nf4"}, {"name": "lora", "dropout": 1},
     {"name": "lora", "target_modules": [""]}, {"name": "lora", "target_modules": "q_proj"}],
)  # fmt: skip
def test_what_a_method_does_not_have(wrong: object) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(wrong)
