"""What was checked is what is loaded, however much later (threat T7)."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from hfray.errors import EngineError
from hfray.inference.model_use import CheckedModel, check_use, load_use
from hfray.spec.endpoint import EndpointSpec
from tests.models.lora_support import save_lora
from tests.models.support import save_decoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from transformers import AutoModelForCausalLM

    base = save_decoder(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(base)
    for seed, name in enumerate(("one", "support")):
        save_lora(model, tmp_path / name, seed=seed, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return tmp_path


def checked(folder: Path, **model: Any) -> CheckedModel:
    """As it comes to a replica that starts later."""
    spec = {"model": {"path": str(folder / "model"), "dtype": "float32", **model}, "task": "text-generation"}
    found, _, _ = check_use(EndpointSpec.model_validate({**spec, "engine": {"name": "batch"}}))
    arrived: CheckedModel = pickle.loads(pickle.dumps(found))  # noqa: S301 (our own, as Ray sends it)
    return arrived


def with_adapter(folder: Path) -> CheckedModel:
    return checked(folder, adapter=str(folder / "one"))


def with_adapters(folder: Path) -> CheckedModel:
    return checked(folder, adapters={"support": {"path": str(folder / "support")}})


def flip(file: Path) -> None:
    """One bit of the last byte, a weight; size and time stay."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("make", "file", "says"),
    [
        (checked, "model/model.safetensors", r"model .*\(model\.safetensors has changed\); .* deploy .* again"),
        (with_adapter, "one/adapter_model.safetensors", r"adapter .*/one .*\(adapter_model\.safetensors has changed\)"),
        (with_adapters, "support/adapter_model.safetensors", r"adapter .*/support .*adapter_model\.safetensors has"),
    ],
    ids=["model", "adapter", "adapters"],
)
def test_files_that_have_changed_since_the_check_are_refused(folder: Path, make: Any, file: str, says: str) -> None:
    found = make(folder)
    load_use(found).engine.close()
    flip(folder / file)
    with pytest.raises(EngineError, match=says):
        load_use(found)
    load_use(make(folder)).engine.close()  # deployed again


def test_a_configuration_that_has_changed_is_refused_before_anything_is_loaded(folder: Path) -> None:
    found = checked(folder)
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    told: list[Any] = []
    with pytest.raises(EngineError, match=r"\(config\.json has changed\)"):
        load_use(found, loaded=told.append)
    assert told == []
