"""What an adapter stands beside: PEFT's choice, all linear layers, or named modules, which must be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from hfray.errors import SpecError
from hfray.models.targets import Targets, on_meta, targets_of
from hfray.spec.methods import LoraSpec
from tests.models.support import save_model

CLASSIFIER = "AutoModelForSequenceClassification"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model")


def targets(folder: Path, **method: Any) -> Targets:
    return targets_of(LoraSpec(**method), on_meta(AutoConfig.from_pretrained(folder), CLASSIFIER), CLASSIFIER)


def test_targets_are_those_of_the_architecture_or_all_or_the_named_ones(folder: Path) -> None:
    assert targets(folder) == Targets(("query", "value"), ("classifier",), ("classifier",))
    assert targets(folder, target_modules="all-linear").layers is None
    named = targets(folder, target_modules=["dense"], train_modules=["pooler"])
    assert (named.layers, named.whole) == (("dense",), ("classifier", "pooler"))


def test_a_module_that_there_is_not_is_answered_with_those_that_there_are(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"method\.target_modules: .* has no module 'q_proj'.*query"):
        targets(folder, target_modules=["q_proj"])
    with pytest.raises(SpecError, match=r"method\.train_modules: .* has no module 'polar'.*pooler"):
        targets(folder, train_modules=["polar"])
